"""Texts of nodes are remembered by workflow, the last ones, and no longer than they are true."""

from __future__ import annotations

from pathlib import Path

import pytest
from hrv_pack.host.page.shown_texts import MOST, SHOWN, ShownTexts
from hrv_pack.host.page.texts import show_on_running_node
from hrv_pack.hrv.errors import HRVError
from hrv_pack.nodes.concepts import Concepts
from hrv_pack.tests.support.told_page import NODE, WORKFLOW, told_page


def test_the_last_text_of_each_node_is_kept() -> None:
    texts = ShownTexts()
    for workflow, node, text in (("a", "1", "old"), ("a", "1", "new"), ("b", "1", "other"), ("", "1", "nobody's")):
        texts.put(workflow, node, text)
    assert (texts.of("a"), texts.of("b"), texts.of("")) == ({"1": "new"}, {"1": "other"}, {})
    texts.drop("a", "1")
    texts.drop("a", "2")
    assert texts.of("a") == {}


def test_no_more_than_the_last_ones_are_kept() -> None:
    texts = ShownTexts()
    for number in range(MOST):
        texts.put("a", str(number), "text")
    texts.put("a", "0", "again")
    texts.put("b", "1", "one more")
    assert len(texts.of("a")) == MOST - 1 and texts.of("a")["0"] == "again"


def test_an_error_is_remembered_until_its_node_runs_again(tmp_path: Path) -> None:
    with told_page(tmp_path / "statuses.json"):
        with pytest.raises(HRVError) as caught:
            Concepts.execute(concepts="no colon")
        assert SHOWN.of(WORKFLOW) == {NODE: str(caught.value)}
        Concepts.execute(concepts="Color: red, blue")
        assert SHOWN.of(WORKFLOW) == {}


def test_what_is_said_while_a_node_of_others_runs_is_remembered_too(tmp_path: Path) -> None:
    with told_page(tmp_path / "statuses.json"):
        show_on_running_node("HRV: a sentence.")
        assert SHOWN.of(WORKFLOW) == {NODE: "HRV: a sentence."}
    SHOWN.drop(WORKFLOW, NODE)
