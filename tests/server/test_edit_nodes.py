"""Editing on the real server: a source with two edits, words with settings of their own, a local blend and its mask."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hrv_pack.tests.support.graphs import node
from launcher.api_client import ApiClient, WorkflowError
from PIL import Image

Graph = dict[str, dict[str, Any]]

SAMPLING = {"seed": 3, "steps": 3, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
EDIT = {
    "pairs": "",
    "cross_end": 0.8,
    "self_end": -1.0,
    "clamp": 0.0,
    "cross_start": 0.0,
    "self_start": 0.0,
    "self_size": 0.25,
}


def graph() -> Graph:
    """A red circle as it is, as a blue one and as a star, and the plain image of the source."""
    made: Graph = {
        "mini": node("HRV_LoadMini"),
        "load": node("HRV_Load", file="hrv-mini.safetensors"),
        "source": node("HRV_TextEncode", clip=["mini", 1], text="a red circle, night"),
        "blue": node("HRV_TextEncode", clip=["mini", 1], text="a blue circle, night"),
        "star": node("HRV_TextEncode", clip=["mini", 1], text="a large red star, night"),
        "negative": node("CLIPTextEncode", clip=["mini", 1], text=""),
        "latent": node("EmptyLatentImage", width=128, height=128, batch_size=1),
        "words": node(
            "HRV_EditWords", conditioning=["star", 0], words="star", weight=1.5, start=0.0, end=0.5, clamp=0.0
        ),
        "first": node(
            "HRV_PromptEdit",
            model=["mini", 0],
            source=["source", 0],
            target=["blue", 0],
            latent=["latent", 0],
            hrv=["load", 0],
            concept="Color",
            strength=1.0,
            **EDIT,
        ),
        "second": node(
            "HRV_PromptEdit",
            model=["first", 0],
            source=["first", 1],
            target=["words", 0],
            latent=["first", 2],
            **EDIT,
        ),
        "show": node("PreviewAny", source=["second", 3]),
        "blend": node(
            "HRV_LocalBlend",
            conditioning=["second", 1],
            latent=["second", 2],
            words="circle, star",
            threshold=0.95,
            start=0.2,
            end=1.0,
            size=0.25,
        ),
        "sample": node(
            "KSampler",
            model=["second", 0],
            positive=["blend", 0],
            negative=["negative", 0],
            latent_image=["blend", 1],
            **SAMPLING,
        ),
        "plain": node(
            "KSampler",
            model=["mini", 0],
            positive=["source", 0],
            negative=["negative", 0],
            latent_image=["latent", 0],
            **SAMPLING,
        ),
        "mask": node("HRV_EditMask", latent=["sample", 0]),
        "mask picture": node("MaskToImage", mask=["mask", 0]),
        "masks": node("PreviewImage", images=["mask picture", 0]),
    }
    for name, samples in (("edits", "sample"), ("plain image", "plain")):
        made[f"decode {name}"] = node("VAEDecode", samples=[samples, 0], vae=["mini", 2])
        made[name] = node("PreviewImage", images=[f"decode {name}", 0])
    return made


def test_a_source_and_its_edits(api: ApiClient) -> None:
    result = api.run(graph(), timeout=300)
    assert result.outputs["show"]["text"][0].splitlines() == [
        "a = a",
        "+ large",
        "red = red",
        "circle -> star",
        ", = ,",
        "night = night",
        "star: weight 1.5, progress 0 to 0.5",
    ]

    def pictures(name: str) -> list[np.ndarray]:
        images = (Image.open(io.BytesIO(api.view(record))) for record in result.images(name))
        return [np.asarray(image.convert("RGB")).astype(int) for image in images]

    source, *edits = pictures("edits")
    (plain,) = pictures("plain image")
    masks = pictures("masks")
    assert np.abs(source - plain).max() <= 1
    assert len(edits) == len(masks) == 2
    for edit, mask in zip(edits, masks, strict=True):
        assert set(np.unique(mask)) == {0, 255}
        assert np.abs(edit - source)[mask == 0].max() <= 1
        assert np.abs(edit - source)[mask == 255].mean() > 1


@pytest.mark.parametrize(
    ("at", "changes", "sentence"),
    [
        ("first", {"target": ["negative", 0]}, "The target does not say which token belongs to which word"),
        ("first", {"concept": "Colour"}, "concept"),
        ("first", {"pairs": "circle"}, "'circle' does not say which words belong together"),
        ("second", {"latent": ["latent", 0]}, "The source already has 1 edits"),
        ("words", {"words": "cat"}, 'The prompt does not contain "cat"'),
        ("blend", {"conditioning": ["source", 0]}, "no edits to keep to one place"),
        ("sample", {"latent_image": ["latent", 0]}, "source and its edits are 3 rows, but the latent has 1"),
        ("mask", {"latent": ["plain", 0]}, "not sampled with Local Blend"),
    ],
)
def test_refusals_are_sentences(api: ApiClient, at: str, changes: dict[str, Any], sentence: str) -> None:
    made = graph()
    made[at]["inputs"].update(changes)
    with pytest.raises(WorkflowError, match=sentence) as caught:
        api.run(made, timeout=300)
    assert caught.value.class_type == made[at]["class_type"]
