"""Texts that can't be encoded, on the real server: its queue goes on, because no such text gets into a message."""

from __future__ import annotations

from typing import Any

import pytest
from hrv_pack.tests.support.graphs import node
from launcher.api_client import ApiClient, WorkflowError
from launcher.comfy_server import ComfyServer

HALF = "a \ud800 b"
MINI = {"mini": node("HRV_LoadMini"), "load": node("HRV_Load", file="hrv-mini.safetensors")}
SAMPLING: dict[str, Any] = {
    "seed": 0, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "width": 64, "height": 64,
    "batch_size": 1, "negative": "",
}  # fmt: skip


@pytest.mark.parametrize(
    ("graph", "class_type"),
    [
        ({"save": node("HRV_Save", hrv=["load", 0], name=HALF)}, "HRV_Save"),
        ({"rank": node("HRV_Rank", hrv=["load", 0], concepts=HALF, top_k=3)}, "HRV_Rank"),
        ({"map": node("HRV_HeatMap", hrv=["load", 0], concepts=HALF)}, "HRV_HeatMap"),
        (
            {
                "text": node("HRV_TextEncode", clip=["mini", 1], text=HALF),
                "show": node("HRV_Tokens", conditioning=["text", 0]),
            },
            "HRV_TextEncode",
        ),
        (
            {
                "text": node("HRV_TextEncode", clip=["mini", 1], text="a red circle"),
                "words": node(
                    "HRV_EditWords", conditioning=["text", 0], words=HALF, weight=2.0, start=0.0, end=-1.0, clamp=0.0
                ),
                "show": node("HRV_Tokens", conditioning=["words", 0]),
            },
            "HRV_EditWords",
        ),
        (
            {
                "text": node("HRV_TextEncode", clip=["mini", 1], text="a red circle"),
                "heads": node(
                    "HRV_ScaleHeads", model=["mini", 0], conditioning=["text", 0], words="red", heads=HALF, factor=0.5,
                    strength=1.0, start=0.0, end=1.0,
                ),
                "show": node("HRV_Tokens", conditioning=["heads", 1]),
            },
            "HRV_ScaleHeads",
        ),
        (
            {
                "text": node("HRV_TextEncode", clip=["mini", 1], text="a red circle"),
                "excite": node(
                    "HRV_AttendAndExcite", model=["mini", 0], conditioning=["text", 0], subjects=HALF, step_size=1.0,
                    iterations=1, thresholds="", decay=0.5, start=0.0, end=0.5, resolution=8, smoothing=0.5, clamp=0.0,
                    checkpointing=False,
                ),
                "show": node("HRV_Tokens", conditioning=["excite", 1]),
            },
            "HRV_AttendAndExcite",
        ),
        (
            {
                "concepts": node("HRV_Concepts", concepts="Color: red, blue"),
                "build": node(
                    "HRV_Build", model=["mini", 0], clip=["mini", 1], concepts=["concepts", 0], prompts=HALF, images=1,
                    **SAMPLING,
                ),
                "save": node("HRV_Save", hrv=["build", 0], name="never"),
            },
            "HRV_Build",
        ),
        (
            {
                "scorer": node("HRV_ScorerMini"),
                "experiment": node("HRV_Experiment", file="none", prompts="[Color]\na <red> circle"),
                "analysis": node(
                    "HRV_OrderedWeakening", model=["mini", 0], clip=["mini", 1], vae=["mini", 2], hrv=["load", 0],
                    scorer=["scorer", 0], experiment=["experiment", 0], concept="Color", seeds=1, prompts=0,
                    head_counts="50%", random_orders=0, factor=0.0, uniform=False, save_images=False,
                    filename_prefix=HALF, order_seed=0, **SAMPLING,
                ),
            },
            "HRV_OrderedWeakening",
        ),
        (
            {
                "pick": node("HRV_PickConcepts", hrv=["load", 0], concepts=f"Color, {HALF}"),
                "map": node("HRV_HeatMap", hrv=["pick", 0], concepts=""),
            },
            "HRV_PickConcepts",
        ),
    ],
    ids=["name", "concepts", "map", "text", "words", "heads", "subjects", "prompts", "prefix", "pick"],
)  # fmt: skip
def test_half_a_character_is_refused_and_the_queue_goes_on(
    api: ApiClient, graph: dict[str, Any], class_type: str
) -> None:
    with pytest.raises(WorkflowError, match=r"has half a character \('.ud800'\) at place \d+") as caught:
        api.run({**MINI, **graph}, timeout=120)
    assert caught.value.class_type == class_type
    assert len(str(caught.value)) < 700
    api.run({**MINI, "rank": node("HRV_Rank", hrv=["load", 0], concepts="Color", top_k=3)}, timeout=120)


def test_seventy_inputs_of_a_node_are_no_python_error(api: ApiClient, comfy_server: ComfyServer) -> None:
    inputs = {f"hrvs.hrv{number}": ["load", 0] for number in range(70)}
    mean = {"mean": node("HRV_Mean", **inputs), "map": node("HRV_HeatMap", hrv=["mean", 0], concepts="Color")}
    with pytest.raises(WorkflowError, match="at most 64"):
        api.run({**MINI, **mean}, timeout=120)
