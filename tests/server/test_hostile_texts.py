"""Texts that can't be encoded, on the real server: its queue goes on, because no such text gets into a message."""

from __future__ import annotations

from typing import Any

import pytest
from hrv_pack.tests.support.graphs import node
from launcher.api_client import ApiClient, WorkflowError
from launcher.comfy_server import ComfyServer

HALF = "a \ud800 b"
MINI = {"mini": node("HRV_LoadMini"), "load": node("HRV_Load", file="hrv-mini.safetensors")}


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
                "pick": node("HRV_PickConcepts", hrv=["load", 0], concepts=f"Color, {HALF}"),
                "map": node("HRV_HeatMap", hrv=["pick", 0], concepts=""),
            },
            "HRV_PickConcepts",
        ),
    ],
)
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
