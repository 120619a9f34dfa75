"""Concept fields in the real page: menus of the connected HRV's concepts, and plain strings everywhere else."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.slow

MINI = ["Color", "Shape", "Pattern", "Size", "Position", "Scene", "Plants"]
TYPE = "… type"


@pytest.fixture
def menus(report: dict[str, Any]) -> dict[str, Any]:
    seen: dict[str, Any] = report["menus"]
    return seen


@pytest.mark.parametrize("renderer", ["classic", "nodes2"])
def test_a_menu_offers_the_concepts_and_marks_what_is_none(menus: dict[str, Any], renderer: str) -> None:
    assert menus[renderer] == {
        "offered": [*MINI, TYPE],
        "marked": "There is no concept 'Colour' in this HRV. Did you mean Color?",
        "unmarked": True,
        "queued": "Size",
    }


def test_menus_work_in_subgraphs(menus: dict[str, Any]) -> None:
    assert menus["subgraph"] == {"values": [*MINI, TYPE], "queued": "Size"}


def test_menus_work_on_the_nodes_of_subgraphs(menus: dict[str, Any]) -> None:
    assert menus["promoted"] == {
        "mark": "There is no concept 'Colour' in this HRV. Did you mean Color?",
        "offered": [*MINI, TYPE],
        "queued": "Shape",
    }


def test_menus_know_what_other_nodes_will_give(menus: dict[str, Any]) -> None:
    assert menus["sources"]["merged"] == ["", "Size", "Color", "Mood", "Weather", TYPE]
    assert menus["sources"]["published"] == 34 + 2
    assert menus["sources"]["scorer"] == [*MINI, TYPE]
    assert menus["sources"]["unconnected"] == ["", TYPE]


def test_a_new_check_sets_heads_to_zero_and_an_old_one_weakens_as_it_did(menus: dict[str, Any]) -> None:
    zero, published = "set heads to zero (0)", "the paper's -2"
    expected = {"added": zero, "saved": published, "copied": zero, "older": published}
    assert menus["sources"]["weakening"] == expected


def test_several_concepts_are_chosen_and_names_can_be_typed(menus: dict[str, Any]) -> None:
    assert menus["several"] == {"chosen": "Size, Color", "typed": "Weather"}
