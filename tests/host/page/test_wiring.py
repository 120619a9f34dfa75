"""Controls whose outputs lead nowhere say so."""

from __future__ import annotations

from typing import Any

import pytest
from hrv_pack.host.page.wiring import wiring_complaint
from hrv_pack.nodes import NODES
from hrv_pack.nodes.wiring import CONTROL_NODES
from hrv_pack.tests.support.graphs import node

Graph = dict[str, dict[str, Any]]


def graph(model: list[Any], positive: list[Any]) -> Graph:
    """A control "one", another "two" behind it, and a sampler with these inputs."""
    return {
        "one": {"class_type": "HRV_ConceptStrengthen", "inputs": {"model": ["load", 0], "conditioning": ["text", 0]}},
        "two": {"class_type": "HRV_ScaleHeads", "inputs": {"model": ["one", 0], "conditioning": ["one", 1]}},
        "sample": {"class_type": "KSampler", "inputs": {"model": model, "positive": positive, "seed": 1}},
    }


@pytest.mark.parametrize(
    ("model", "positive", "of_one", "of_two"),
    [
        (["two", 0], ["two", 1], None, None),
        # The mechanism is the same whichever control brings it.
        (["one", 0], ["two", 1], None, None),
        (["load", 0], ["two", 1], "MODEL of an HRV control", "MODEL of an HRV control"),
        (["two", 0], ["text", 0], None, "CONDITIONING of this node"),
        # Outputs count by their number, not by what uses the node.
        (["load", 0], ["one", 1], "MODEL of an HRV control", "CONDITIONING of this node"),
    ],
)
def test_what_is_missing_is_said(model: Any, positive: Any, of_one: str | None, of_two: str | None) -> None:
    for name, expected in (("one", of_one), ("two", of_two)):
        found = wiring_complaint(graph(model, positive), name, CONTROL_NODES)
        assert (found is None) == (expected is None)
        assert expected is None or expected in str(found)


AREA = node("ConditioningSetArea", conditioning=["two", 1], width=64)
COMBINE = node("ConditioningCombine", conditioning_1=["text", 0], conditioning_2=["area", 0])
SWITCH = node("SomePack'sSwitch", on=True, first=["two", 0])


@pytest.mark.parametrize(
    ("more", "deaf"),
    [
        ({"second": node("KSampler", model=["load", 0], positive=["two", 1])}, True),
        ({"second": node("KSampler", model=["load", 0], positive=["text", 0], negative=["two", 1])}, True),
        ({"second": node("KSampler", model=["load", 0], positive=["text", 0])}, False),
        ({"second": node("KSampler", model=["lora", 0], positive=["two", 1])}, True),
        ({"second": node("KSampler", model=["other lora", 0], positive=["two", 1])}, False),
        # Through what gives conditionings again.
        ({"second": node("KSampler", model=["load", 0], positive=["combine", 0])}, True),
        ({"second": node("KSampler", model=["two", 0], positive=["combine", 0])}, False),
        # A class that nobody knows may do anything.
        ({"second": node("SomePack'sSampler", model=["load", 0], positive=["two", 1])}, False),
        ({"second": node("KSampler", model=["switch", 0], positive=["two", 1])}, False),
    ],
)
def test_a_second_sampler_without_the_mechanism_is_named(more: Graph, deaf: bool) -> None:
    prompt = {
        **graph(["two", 0], ["two", 1]),
        "lora": node("LoraLoaderModelOnly", model=["load", 0], lora_name="a"),
        "other lora": node("LoraLoaderModelOnly", model=["one", 0], lora_name="a"),
        "area": AREA,
        "combine": COMBINE,
        "switch": SWITCH,
        **more,
    }
    for name in ("one", "two"):
        found = wiring_complaint(prompt, name, CONTROL_NODES)
        assert (found is not None) == deaf
        assert found is None or "The node 'KSampler' (second) takes the CONDITIONING of this node" in found


def test_a_node_is_called_as_its_user_calls_it() -> None:
    prompt = graph(["two", 0], ["two", 1])
    second = {**node("KSampler", model=["load", 0], positive=["two", 1]), "_meta": {"title": "for comparison"}}
    assert "'for comparison' (9)" in str(wiring_complaint({**prompt, "9": second}, "two", CONTROL_NODES))


def test_nodes_that_the_prompt_does_not_know_are_left_alone() -> None:
    assert wiring_complaint(graph(["load", 0], ["text", 0]), "12:one", CONTROL_NODES) is None


def test_every_node_with_these_outputs_is_on_the_list() -> None:
    outputs = {
        node.GET_SCHEMA().node_id: [output.io_type for output in node.GET_SCHEMA().outputs or ()] for node in NODES
    }
    assert {name for name, types in outputs.items() if types[:2] == ["MODEL", "CONDITIONING"]} == set(CONTROL_NODES)
