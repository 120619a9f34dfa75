"""The scorer nodes on the real server: scores on a node and in the graph, and refusals in sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hrv_pack.mini.captions import draw_samples
from hrv_pack.mini.world import draw
from hrv_pack.tests.support.graphs import node
from launcher.api_client import ApiClient, WorkflowError
from launcher.comfy_server import ComfyServer
from PIL import Image


@pytest.fixture(scope="module")
def word(comfy_server: ComfyServer) -> str:
    """The color of the thing in the server's picture mini.png."""
    (sample,), truth = draw_samples(1, np.random.default_rng(2), "colored")
    pixels = (draw(truth)[0].movedim(0, -1).numpy() * 255).round().astype(np.uint8)
    folder: Path = comfy_server.base_directory / "input"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((128, 128), Image.Resampling.NEAREST).save(folder / "mini.png")
    return sample.named["Color"]


def score(api: ApiClient, scorer: dict[str, Any], image: dict[str, Any] | None = None, **asked: str) -> list[str]:
    """What Score Images shows of a picture, mini.png unless another is given, and the mean that it gives."""
    graph = {
        "image": image or node("LoadImage", image="mini.png"),
        "scorer": scorer,
        "score": node("HRV_Score", images=["image", 0], scorer=["scorer", 0], **asked),
        "mean": node("PreviewAny", source=["score", 0]),
    }
    result = api.run(graph, timeout=300)
    return [*result.outputs["score"]["text"][0].splitlines(), *result.outputs["mean"]["text"]]


def test_a_picture_is_scored(api: ApiClient, word: str) -> None:
    mini = node("HRV_ScorerMini")
    lines = score(api, mini, concept="color", target=word)
    assert lines == [f"HRV-mini's truth, '{word}': 1.0000", "image 1: 1.0000", "1.0"]
    assert score(api, mini, concept="Color", target="black")[-1] == "0.0"


WHITE = {"height": 128, "batch_size": 1, "color": 0xFFFFFF}


@pytest.mark.parametrize(
    ("scorer", "width", "asked", "sentence"),
    [
        (node("HRV_ScorerMini"), 128, {"concept": "Mood", "target": "happy"}, "no concept 'Mood' in this mini world"),
        (node("HRV_ScorerMini"), 128, {"concept": "Color", "target": "pink"}, "There is no Color 'pink'"),
        (node("HRV_ScorerMini"), 96, {"concept": "Color", "target": "red"}, "not on 96 x 128"),
        (node("HRV_ScorerTransformers", folder="absent"), 128, {"concept": "", "target": "red"}, "no folder 'absent'"),
        (node("HRV_ScorerTransformers", folder=".."), 128, {"concept": "", "target": "red"}, "There is no folder"),
    ],
)
def test_refusals_are_sentences(
    api: ApiClient, scorer: dict[str, Any], width: int, asked: dict[str, str], sentence: str
) -> None:
    with pytest.raises(WorkflowError, match=sentence):
        score(api, scorer, node("EmptyImage", width=width, **WHITE), **asked)
