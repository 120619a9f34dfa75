"""Heat maps on real nodes: closed in workflows that exist, alike in both renderers, never queued or saved."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def heads(report: dict[str, Any]) -> dict[str, Any]:
    seen: dict[str, Any] = report["heads"]
    return seen


@pytest.mark.parametrize("renderer", ["classic", "nodes2"])
def test_a_map_is_read_by_pointer_and_keys(heads: dict[str, Any], renderer: str) -> None:
    seen = heads[renderer]
    shown = dict(seen["shown"])
    assert {"Heat map of 128 heads for all concepts", "Heat map of 128 heads for Color"} < shown.keys()
    assert shown["Heat map"] == "Its heads are known after a run."
    assert seen["hovered"].startswith("down1.0 head 0: ")
    assert ", rank " in seen["hovered"] and " of 128. Most for " in seen["hovered"]


@pytest.mark.parametrize("renderer", ["classic", "nodes2"])
def test_clicks_and_keys_take_heads_into_scale_heads(heads: dict[str, Any], renderer: str) -> None:
    seen = heads[renderer]
    assert seen["added"] == ["Added down1.0:0. Scale Heads has 1 head.", "down1:0"]
    assert (seen["both"], seen["removed"]) == ("down1:0 down2:1", "")


def test_keys_on_a_map_delete_no_node(heads: dict[str, Any]) -> None:
    assert heads["afterKeys"] == 4


def test_the_theme_is_followed(heads: dict[str, Any]) -> None:
    assert heads["themes"]["dark"] != heads["themes"]["light"]


def test_pictures_and_tables_are_saved(heads: dict[str, Any]) -> None:
    csv, png = heads["files"]["csv"], heads["files"]["png"]
    assert csv["start"].startswith('concept,layer,head,position,value,rank\r\n"Color",down1.0,0,0,')
    assert csv["lines"] == 1 + 7 * 128
    assert png["start"][1:4] == "PNG" and png["size"] > 10_000


def test_maps_are_neither_queued_nor_saved_as_values(heads: dict[str, Any], own_nodes: dict[str, Any]) -> None:
    for node_class, values in heads["saved"]["values"].items():
        info = own_nodes[node_class]["input"]
        inputs = {**info.get("required", {}), **info.get("optional", {})}
        assert heads["saved"]["prompt"][node_class] != [] and "hrv.heads" not in heads["saved"]["prompt"][node_class]
        assert len(values) == sum(kind in ("STRING", "INT", "FLOAT", "COMBO") for kind, *_ in inputs.values())


def test_open_maps_are_open_again_and_nodes_keep_their_size(heads: dict[str, Any]) -> None:
    assert heads["again"]["before"] == heads["again"]["after"]
    assert heads["toggled"]["closed"] == heads["toggled"]["closedAgain"]
    assert heads["toggled"]["open"][1] > heads["toggled"]["closed"][1] + 200


def test_two_hrvs_are_shown_as_a_difference(heads: dict[str, Any]) -> None:
    kept = heads["difference"]
    assert (kept["open"], kept["show"], kept["concept"]) == (True, "hrv − other", "Color")


def test_1300_heads_of_34_concepts_are_drawn_and_read_fast(heads: dict[str, Any]) -> None:
    # Milliseconds, with room for a busy machine: about 60 and 1 on a free one.
    assert heads["large"]["draw"] < 3000
    assert heads["large"]["point"] < 50


def test_nothing_is_left_of_nodes_that_were_removed(heads: dict[str, Any]) -> None:
    assert heads["removed"] == 0
