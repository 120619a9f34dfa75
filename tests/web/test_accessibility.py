"""Without a mouse: what Chromium tells screen readers of the pack's elements, and what keys reach and do."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.slow

RENDERERS = pytest.mark.parametrize("renderer", ["classic", "nodes2"])
CONTROLS = {"button", "combobox", "application", "progressbar", "group", "image", "img"}


@RENDERERS
def test_elements_have_roles_and_names(report: dict[str, Any], renderer: str) -> None:
    tree = {panel: [tuple(one) for one in found] for panel, found in report["accessibility"][renderer]["tree"].items()}
    assert ("group", "Words of the prompt") in tree[".hrv-words"]
    assert [("button", word) for word in ("a", "red", "car")] == [
        one for one in tree[".hrv-words"] if one[0] == "button"
    ]
    heads = tree[".hrv-heads"]
    assert {("combobox", "Concept"), ("combobox", "Scale")} <= set(heads)
    assert {("button", "Save the picture (PNG)"), ("button", "Save the numbers (CSV)")} <= set(heads)
    assert any(role == "application" and name.startswith("Heat map of 128 heads") for role, name in heads)
    assert {"progressbar", "status"} <= {role for role, _ in tree[".hrv-status"]}
    nameless = [(panel, role) for panel, found in tree.items() for role, name in found if role in CONTROLS and not name]
    assert nameless == []


@RENDERERS
def test_words_and_heads_are_reached_and_chosen_by_keys(report: dict[str, Any], renderer: str) -> None:
    seen = report["accessibility"][renderer]
    assert (seen["focused"], seen["words"]) == ("red", "red, car")
    assert seen["passed"][-1] == "CANVAS" and "BUTTON" in seen["passed"]
    assert seen["said"].startswith("down2.0 head 1: ") or seen["said"].startswith("down"), seen["said"]
    assert seen["heads"]
    assert seen["nodes"] == 6, "Delete on a word deletes no node"


@RENDERERS
def test_the_wheel_zooms_over_words(report: dict[str, Any], renderer: str) -> None:
    assert report["accessibility"][renderer]["zoom"] > 1


def test_a_menu_is_opened_searched_and_chosen_from_by_keys(report: dict[str, Any]) -> None:
    assert report["accessibility"]["menu"] == "Shape"
