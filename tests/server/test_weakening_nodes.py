"""Ordered weakening on the real server: what the nodes give, save and refuse."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import numpy as np
import pytest
from hrv_pack.tests.support.graphs import node
from launcher.api_client import ApiClient, WorkflowError
from launcher.comfy_server import ComfyServer
from PIL import Image

Graph = dict[str, dict[str, Any]]

PROMPTS = "[Color]\na large <red | blue> circle\n[Shape]\na large red <star>"
MADE: dict[str, Any] = {
    "seeds": 1,
    "seed": 3,
    "prompts": 0,
    "steps": 2,
    "cfg": 4.0,
    "sampler_name": "euler",
    "scheduler": "normal",
    "width": 128,
    "height": 128,
    "batch_size": 8,
    "negative": "",
}
ANALYSIS: dict[str, Any] = {
    "concept": "color",
    **MADE,
    "head_counts": "25%",
    "random_orders": 1,
    "factor": -2.0,
    "uniform": True,
    "save_images": True,
    "order_seed": 0,
}


def graph(class_type: str, outputs: int, written: str = PROMPTS, **inputs: Any) -> Graph:
    """One of the nodes on HRV-mini, and its outputs from ``outputs`` on, all texts, shown."""
    made: Graph = {
        "mini": node("HRV_LoadMini"),
        "hrv": node("HRV_Load", file="hrv-mini.safetensors"),
        "scorer": node("HRV_ScorerMini"),
        "experiment": node("HRV_Experiment", file="none", prompts=written),
        "node": node(
            class_type,
            model=["mini", 0],
            clip=["mini", 1],
            vae=["mini", 2],
            hrv=["hrv", 0],
            scorer=["scorer", 0],
            experiment=["experiment", 0],
            **inputs,
        ),
    }
    texts = {
        "HRV_OrderedWeakening": 5, "HRV_WeakeningSummary": 4, "HRV_QuickCheck": 1, "HRV_FactorSweep": 4,
        "HRV_SideEffects": 3,
    }  # fmt: skip
    for number in range(outputs, texts[class_type]):
        made[f"text{number}"] = node("PreviewAny", source=["node", number])
    return made


def test_an_analysis_is_pictures_a_verdict_and_tables(api: ApiClient, comfy_server: ComfyServer) -> None:
    result = api.run(graph("HRV_OrderedWeakening", 2, filename_prefix="weak/one", **ANALYSIS), timeout=300)
    verdict, scores, told = (result.outputs[f"text{number}"]["text"][0] for number in (2, 3, 4))
    assert re.match(r"Color: (yes|weakly|no)\. Area .* 2 images a point", verdict)
    rows = list(csv.DictReader(io.StringIO(scores)))
    assert len(rows) == 2 * (2 + 5) and {row["score"] for row in rows} <= {"0.0", "1.0"}
    assert {row["heads"] for row in rows} == {"0", "32", "128"} and {row["seed"] for row in rows} == {"3"}
    assert json.loads(told)["provenance"][0]["scorer"] == "HRV-mini's truth"
    picture = Image.open(io.BytesIO(api.view(result.images("node")[0])))
    assert picture.width == 900
    folder = comfy_server.base_directory / "output" / "weak"
    (saved,) = folder.glob("one_*.csv")
    assert saved.read_text() == scores and saved.with_suffix(".json").read_text() == told
    images = list(folder.rglob("*.png"))
    assert len(images) == len(rows) and np.asarray(Image.open(images[0])).shape == (128, 128, 3)


def test_all_concepts_are_a_row_each(api: ApiClient) -> None:
    settings: dict[str, Any] = {"head_counts": "25%", "random_orders": 1, "factor": -2.0, "order_seed": 0}
    inputs: dict[str, Any] = {**MADE, **settings, "concepts": "", "filename_prefix": "weak/all"}
    result = api.run(graph("HRV_WeakeningSummary", 1, **inputs), timeout=300)
    table = result.outputs["text1"]["text"][0]
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == ["| Color", "| Shape"]


def test_a_quick_check_says_what_it_rests_on(api: ApiClient) -> None:
    result = api.run(graph("HRV_QuickCheck", 0, **{**MADE, "seeds": 2}, concepts="Shape"), timeout=300)
    verdict = result.outputs["text0"]["text"][0]
    assert re.match(r"Does this HRV hold here\? (Weakly|No)\.\nShape: (weakly|no)\.", verdict)
    assert "2 images a point" in verdict and "From 36 images" in verdict
    assert "So few images prove nothing" in verdict or "takes nothing away" in verdict


def test_a_sweep_has_an_area_for_each_factor(api: ApiClient) -> None:
    inputs: dict[str, Any] = {
        **MADE,
        "concept": "Shape",
        "factors": "-2, 1",
        "head_counts": "50%",
        "filename_prefix": "weak/factors",
    }
    result = api.run(graph("HRV_FactorSweep", 1, **inputs), timeout=300)
    first, second = result.outputs["text1"]["text"][0].splitlines()
    assert first.startswith("factor -2: area ") and second == "factor 1: area 0.000 (0.000 to 0.000)"


def test_side_effects_are_a_matrix_of_all_that_prompts_say(api: ApiClient, comfy_server: ComfyServer) -> None:
    inputs: dict[str, Any] = {**MADE, "concepts": "", "factor": 0.0, "filename_prefix": "weak/matrix"}
    result = api.run(graph("HRV_SideEffects", 1, heads="25%", **inputs), timeout=300)
    table, told = (result.outputs[f"text{number}"]["text"][0] for number in (1, 2))
    # Both prompts of Color name a circle, which Shape doesn't score, and that of Shape names red.
    assert table.splitlines()[0] == "| heads of | Color | Shape |" and table.splitlines()[-1] == "| images | 3 | 1 |"
    assert json.loads(told)["heads"] == 32
    (saved,) = (comfy_server.base_directory / "output" / "weak").glob("matrix_*.json")
    assert saved.read_text() == told
    assert Image.open(io.BytesIO(api.view(result.images("node")[0]))).width > 200
    for heads, sentence in (("100%", "the same for every concept"), ("a few", "isn't a number of heads")):
        with pytest.raises(WorkflowError, match=sentence):
            api.run(graph("HRV_SideEffects", 1, heads=heads, **inputs))


@pytest.mark.parametrize(
    ("changes", "prompts", "sentence", "refused_by"),
    [
        ({"concept": "Animals"}, PROMPTS, "There is no concept 'Animals'", "node"),
        ({"concept": " "}, PROMPTS, "There is no concept", "node"),
        ({"seeds": 0}, PROMPTS, "smaller than min", "node"),
        ({"head_counts": "129"}, PROMPTS, "has 128 heads, so 129 of them", "node"),
        ({"width": 120}, PROMPTS, "a multiple of 32", "node"),
        ({"filename_prefix": "../out"}, PROMPTS, "leads out of the output folder", "node"),
        ({}, "[Color]\na red car", "exactly one group in angle brackets", "experiment"),
        ({}, " ", "The experiment is empty", "experiment"),
        ({}, "[Color]\na <purple> circle", "There is no Color 'purple' in the world of HRV-mini", "node"),
        ({}, "[Mood]\n<sad>", "Mood", "node"),
    ],
)
def test_refusals_are_sentences(
    api: ApiClient, changes: dict[str, Any], prompts: str, sentence: str, refused_by: str
) -> None:
    made = graph("HRV_OrderedWeakening", 2, prompts, **{"filename_prefix": "weak/never", **ANALYSIS, **changes})
    with pytest.raises(WorkflowError, match=sentence) as caught:
        api.run(made, timeout=300)
    assert caught.value.class_type == made[refused_by]["class_type"]
