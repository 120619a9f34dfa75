"""Readings as plain data: gates, strengths, which heads a concept has, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hrv_pack.hrv.controls.description import prompt_text
from hrv_pack.hrv.controls.reading import Reading, read_concept
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.hrv.progress import Window
from hrv_pack.hrv.prompts.tokens import TokenMap
from hrv_pack.hrv.relevance.vectors import HRV

LAYOUT = HeadLayout((AttentionLayer("input", 1, 0, 2), AttentionLayer("middle", 0, 0, 3)))
VALUES = np.array([[0.0, 0.5, 1.0, 2.0, 12.0], [0.0, 0.0, 0.0, 0.0, 0.0]], dtype=np.float32)
MADE = HRV(VALUES, ("Color", "Empty"), LAYOUT)
WHOLE = Window()


def reading(**changes: Any) -> Reading:
    fields: dict[str, Any] = {"gates": np.array([0.0, 1.0, 0.5, 0.0, 0.0]), "layout": LAYOUT, "label": "read Color"}
    return Reading(**{**fields, **changes})


@pytest.mark.parametrize(("heads", "gates"), [(1, [0, 0, 0, 0, 1]), (3, [0, 0, 1, 1, 1]), (5, [1] * 5)])
def test_the_most_relevant_heads_read_the_other_prompt(heads: int, gates: list[float]) -> None:
    assert read_concept(MADE, "color", heads, 1.0, WHOLE).gates.tolist() == gates


@pytest.mark.parametrize(("count", "default"), [(1, 1), (5, 1), (128, 8), (1300, 78)])
def test_no_number_is_six_percent_but_one_head_at_least(count: int, default: int) -> None:
    layout = HeadLayout((AttentionLayer("middle", 0, 0, count),))
    made = HRV(np.arange(1, count + 1, dtype=np.float32)[None], ("Color",), layout)
    gates = read_concept(made, "Color", 0, 1.0, WHOLE).gates
    assert gates.sum() == default and gates[-default:].all()


@pytest.mark.parametrize(
    ("heads", "gates"), [(1, [0, 0, 1 / 12, 2 / 12, 1]), (2, [0, 0.25, 0.5, 1, 1]), (3, [0, 0.5, 1, 1, 1])]
)
def test_by_relevance_others_follow_in_proportion_to_the_last_of_them(heads: int, gates: list[float]) -> None:
    assert read_concept(MADE, "color", heads, 1.0, WHOLE, gates="by relevance").gates == pytest.approx(gates)


def test_by_relevance_more_heads_than_are_relevant_are_those_that_are() -> None:
    found = read_concept(MADE, "color", 5, 1.0, WHOLE, gates="by relevance")
    assert found.gates.tolist() == [0, 1, 1, 1, 1]
    assert found.label == "read Color (by relevance, 5 heads fully) from another prompt"


def test_there_are_no_other_gates() -> None:
    with pytest.raises(HRVError, match="no gates 'soft': choose one of top heads, by relevance"):
        read_concept(MADE, "Color", 1, 1.0, WHOLE, gates="soft")


def test_strength_multiplies_the_gates() -> None:
    assert reading(strength=-0.5).weights.tolist() == [0.0, -0.5, -0.25, 0.0, 0.0]
    assert reading(strength=0.0).is_identity and reading(gates=np.zeros(5)).is_identity
    assert not reading().is_identity
    assert len({reading().uid for _ in range(3)}) == 3
    for array in (reading().gates, reading().weights):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1.0


def test_labels_say_how_many_heads_and_which_prompt() -> None:
    for heads, text, label in (
        (1, "", "read Color (1 head) from another prompt"),
        (2, " a  blue\nsquare ", 'read Color (2 heads) from "a blue square"'),
        (2, "x" * 100, f'read Color (2 heads) from "{"x" * 60}..."'),
    ):
        assert read_concept(MADE, "COLOR", heads, 1.0, WHOLE, text).label == label


def test_a_prompt_shows_its_readings_behind_its_controls() -> None:
    shown = prompt_text(TokenMap("", (), 77), [], [reading(strength=0.5, window=Window(0.25, 1.0))])
    assert shown == "No words.\n\nread Color; strength 0.5; progress 0.25 to 1"


@pytest.mark.parametrize("heads", [-1, 6])
def test_heads_that_there_are_not_are_refused(heads: int) -> None:
    with pytest.raises(HRVError, match=f"0 to 5 can read another prompt, not {heads}"):
        read_concept(MADE, "Color", heads, 1.0, WHOLE)


def test_concepts_without_heads_are_refused() -> None:
    with pytest.raises(HRVError, match="Shape"):
        read_concept(MADE, "Shape", 1, 1.0, WHOLE)
    with pytest.raises(HRVError, match="no head has any relevance for Empty"):
        read_concept(MADE, "empty", 1, 1.0, WHOLE)


def test_readings_need_finite_numbers_for_all_heads() -> None:
    with pytest.raises(HRVError, match="one gate a head"):
        reading(gates=np.zeros(4))
    for changes in ({"gates": np.array([0, 1, math.nan, 0, 0])}, {"strength": math.inf}):
        with pytest.raises(HRVError, match=r"finite numbers \(read Color\)"):
            reading(**changes)
