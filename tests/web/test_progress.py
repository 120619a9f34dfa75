"""Long work on real nodes: seen while it runs, after a cancel, after a reload with all results, and in subgraphs."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def progress(report: dict[str, Any]) -> dict[str, Any]:
    seen: dict[str, Any] = report["progress"]
    return seen


def images(says: str) -> int:
    """How many images a sentence says are done."""
    found = re.search(r"(\d+) of 2000 images", says)
    assert found is not None, says
    return int(found[1])


def test_a_panel_is_opened_by_hand_only(progress: dict[str, Any]) -> None:
    assert progress["open"][1] > progress["closed"][1]
    assert progress["before"] == "Not run yet."


def test_a_build_is_seen_while_it_runs_and_after_a_reload(progress: dict[str, Any]) -> None:
    assert progress["running"].endswith(" left") and progress["curves"] > 50
    assert images(progress["reloaded"]) >= images(progress["running"]) > 0


@pytest.mark.parametrize("renderer", ["cancelled", "nodes2"])
def test_a_cancelled_build_says_what_is_kept(progress: dict[str, Any], renderer: str) -> None:
    assert images(progress[renderer]) >= images(progress["reloaded"])
    assert progress[renderer].endswith(" kept. The same settings resume from there.")


def test_progress_and_results_are_there_again_in_subgraphs_too(progress: dict[str, Any]) -> None:
    seen = progress["inSubgraph"]
    assert (seen["done"], seen["after"], seen["pictures"]) == ("Done: 20 images.", "Done: 20 images.", 1)
    assert seen["sameText"] and seen["saved"].startswith("hrv/hrv-mini-built")


def test_the_node_of_a_subgraph_says_how_far_the_build_inside_is(progress: dict[str, Any]) -> None:
    seen = progress["outer"]
    assert images(seen["running"]) >= images(seen["badge"]) > 0
    assert re.fullmatch(
        r"Cancelled: \d+ of 2000 images kept\. The same settings resume from there\.", seen["cancelled"]
    )
