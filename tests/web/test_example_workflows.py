"""Every example workflow opens in the real front end as it was saved, says nothing bad, and runs."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from launcher.paths import PACK_ROOT
from launcher.workflow_convert import to_prompt

pytestmark = pytest.mark.slow

EXAMPLES = sorted(file.stem for file in (PACK_ROOT / "example_workflows").glob("*.json"))

Box = tuple[float, float, float, float]


def overlap(one: Box, other: Box) -> bool:
    """Whether two boxes (left, top, right, bottom) share more than an edge."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def inside(inner: Box, outer: Box) -> bool:
    return outer[0] <= inner[0] and outer[1] <= inner[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def test_examples_open_without_a_complaint(report: dict[str, Any]) -> None:
    assert list(report["workflows"]) == EXAMPLES
    for name, seen in report["workflows"].items():
        assert (name, seen["unknown"], seen["complaints"]) == (name, [], [])


def test_a_workflow_with_a_missing_file_is_complained_about(report: dict[str, Any]) -> None:
    assert "gone.safetensors" in report["broken"]


def test_the_page_and_the_launcher_make_the_same_prompt(
    report: dict[str, Any], examples: dict[str, Any], object_info: dict[str, Any]
) -> None:
    for name, graph in examples.items():
        assert report["workflows"][name]["prompt"] == to_prompt(graph, object_info), name


def test_every_required_input_is_connected_or_set(report: dict[str, Any], object_info: dict[str, Any]) -> None:
    for seen in report["workflows"].values():
        for node in seen["prompt"].values():
            assert object_info[node["class_type"]]["input"].get("required", {}).keys() <= node["inputs"].keys()


def test_saving_again_changes_nothing_that_matters(report: dict[str, Any], examples: dict[str, Any]) -> None:
    """The files are what this front end writes, so that opening and saving one makes no noise."""
    for name, graph in examples.items():
        saved = report["workflows"][name]["saved"]
        assert saved["links"] == graph["links"]
        assert saved["groups"] == graph["groups"]
        again = {node["id"]: node for node in saved["nodes"]}
        assert again.keys() == {node["id"] for node in graph["nodes"]}
        for node in graph["nodes"]:
            for key in ("type", "title", "pos", "mode"):
                assert again[node["id"]].get(key) == node.get(key), (name, node["id"], key)
            assert again[node["id"]].get("widgets_values", []) == node.get("widgets_values", []), (name, node["id"])


def test_workflows_are_the_same_with_our_extension_and_without(report: dict[str, Any]) -> None:
    """No node grows, no value and no prompt changes because of what the pack adds to the page."""
    for name, seen in report["workflows"].items():
        plain = report["withoutUs"][name]
        assert seen["prompt"] == plain["prompt"], name
        for node, other in zip(seen["saved"]["nodes"], plain["saved"]["nodes"], strict=True):
            assert node == other, (name, node["id"])


def test_no_node_covers_another_and_groups_hold_theirs(report: dict[str, Any]) -> None:
    for name, seen in report["workflows"].items():
        for renderer in ("boxes", "boxesInNodes2"):
            for one, other in combinations(seen[renderer], 2):
                assert not overlap(one["box"], other["box"]), (name, renderer, one["id"], other["id"])
        for one, other in combinations(seen["groups"], 2):
            assert not overlap(one["box"], other["box"]), (name, one["id"], other["id"])
        for group in seen["groups"]:
            for node in seen["boxes"]:
                apart = not overlap(node["box"], group["box"])
                assert apart or inside(node["box"], group["box"]), (name, group["id"], node["id"])


def test_the_template_browser_shows_all_examples_in_order_with_their_pictures(report: dict[str, Any]) -> None:
    assert list(report["templates"].items()) == [(name, True) for name in EXAMPLES], (
        "run scripts/make_thumbnails.py for the pictures"
    )


def test_examples_for_the_embedded_model_run_from_the_page(report: dict[str, Any]) -> None:
    assert len(report["runs"]) > 10
    for name, run in report["runs"].items():
        assert (name, run["end"], run["message"], run["complaints"]) == (name, "execution_success", "", [])


def test_a_built_file_can_be_loaded(report: dict[str, Any]) -> None:
    assert "hrv-mini-built.safetensors" in report["filesAfterRefresh"]


def test_a_control_shows_a_picture_for_each_image(report: dict[str, Any]) -> None:
    # Some nodes show something other than pictures.
    run = next(run for name, run in report["runs"].items() if name.endswith("Strengthen a concept"))
    assert sorted(filter(None, run["pictures"].values())) == [2, 2]
