"""What people do with nodes leaves values, sizes and panels as they were, in both renderers."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.slow

MINI = ["Color", "Shape", "Pattern", "Size", "Position", "Scene", "Plants"]
TYPE = "… type"


@pytest.fixture(params=["classic", "nodes2"])
def handling(report: dict[str, Any], request: pytest.FixtureRequest) -> dict[str, Any]:
    seen: dict[str, Any] = report["handling"][request.param]
    return seen


def test_a_copy_has_the_values_and_the_panel(handling: dict[str, Any]) -> None:
    (before,) = handling["before"]
    assert before["open"] and before["maps"] == 1
    assert [{**one, "size": None} for one in handling["pasted"]] == [{**before, "size": None}] * 2
    assert handling["pasted"][0] == before


def test_undo_takes_the_copy_away_and_redo_brings_it_back(handling: dict[str, Any]) -> None:
    (before,), (undone,) = handling["before"], handling["undone"]
    assert undone == before
    assert [one["values"] for one in handling["redone"]] == [before["values"]] * 2


def test_a_bypassed_control_is_not_queued_and_keeps_what_it_has(handling: dict[str, Any]) -> None:
    assert not handling["bypassed"]
    assert handling["whileBypassed"] == handling["after"] == handling["undone"]


def test_a_selection_becomes_a_subgraph_whose_menus_and_words_still_work(handling: dict[str, Any]) -> None:
    assert handling["concepts"] == [*MINI, TYPE]
    assert handling["words"] == ["", "*", "a", "red", "square", TYPE]
    assert (handling["clicked"], handling["chips"]) == ("square", ["square"])
    assert handling["kept"]
