"""Controls as plain data: factors, strengths, windows, clamps, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hrv_pack.hrv.controls.control import Control, adjust, scale_heads, strengthen, weaken
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.hrv.progress import Window
from hrv_pack.hrv.relevance.orders import head_order
from hrv_pack.hrv.relevance.vectors import HRV, clamped_row
from hypothesis import given
from hypothesis import strategies as st

LAYOUT = HeadLayout((AttentionLayer("input", 1, 0, 2), AttentionLayer("middle", 0, 0, 3)))
VALUES = np.array([[0.0, 0.5, 1.0, 2.0, 12.0], [1.0, 1.0, 1.0, 1.0, 1.0], [3.0, 0.25, 0.0, 9.0, 4.0]], dtype=np.float32)
MADE = HRV(VALUES, ("Color", "Even", "Plants"), LAYOUT)
WHOLE = Window()


def control(**changes: Any) -> Control:
    fields: dict[str, Any] = {"factors": VALUES[0], "positions": (2, 3), "layout": LAYOUT, "label": "strengthen Color"}
    return Control(**{**fields, **changes})


@pytest.mark.parametrize("window", [(0.0, 0.0), (0.0, 1.0), (0.25, 0.75), (1.0, 1.0)])
def test_windows_lie_in_the_run(window: tuple[float, float]) -> None:
    made = Window(*window)
    assert (made.start, made.end) == window
    assert made.is_whole == (window == (0.0, 1.0))


@pytest.mark.parametrize("window", [(-0.1, 1.0), (0.0, 1.1), (0.8, 0.2), (math.nan, 1.0), (0.0, math.nan)])
def test_other_windows_are_refused_with_their_numbers(window: tuple[float, float]) -> None:
    with pytest.raises(HRVError, match=f"between 0 and 1, not from {window[0]} to {window[1]}"):
        Window(*window)


def test_windows_of_equal_borders_are_one_key() -> None:
    assert len({Window(0.25, 0.5), Window(0.25, 0.5), Window(0.25, 0.75)}) == 2


def test_strengthening_takes_the_vector_itself() -> None:
    made = strengthen(MADE, "color", [3, 2, 3], 1.0, Window(0.1, 0.2), None)
    assert made.weights.tolist() == VALUES[0].tolist()
    assert made.positions == (2, 3)
    assert (made.window, made.layout, made.label) == (Window(0.1, 0.2), LAYOUT, "strengthen color")


def test_adjusting_weighs_the_desired_against_the_undesired() -> None:
    published = adjust(MADE, "Color", "Plants", [1], 1.0, WHOLE, None)
    assert published.weights.tolist() == [2 * c - p for c, p in zip(VALUES[0], VALUES[2], strict=True)]
    other = adjust(MADE, "Plants", "Color", [1], 1.0, WHOLE, None, desired_weight=0.5, undesired_weight=3.0)
    assert other.weights.tolist() == [0.5 * p + 3 * c for c, p in zip(VALUES[0], VALUES[2], strict=True)]


def test_the_clamp_limits_elements_before_they_are_combined() -> None:
    assert clamped_row(MADE, "Color", 9.0).tolist() == [0.0, 0.5, 1.0, 2.0, 9.0]
    assert clamped_row(MADE, "Color", None).tolist() == VALUES[0].tolist()
    assert strengthen(MADE, "Color", [1], 1.0, WHOLE, 1.5).weights.tolist() == [0.0, 0.5, 1.0, 1.5, 1.5]
    assert adjust(MADE, "Color", "Plants", [1], 1.0, WHOLE, 2.0).weights.tolist() == [-2.0, 0.75, 2.0, 2.0, 2.0]
    assert MADE.row("Color").tolist() == VALUES[0].tolist()


@pytest.mark.parametrize("clamp", [0.0, -1.0, math.nan])
def test_a_clamp_that_is_not_positive_is_refused(clamp: float) -> None:
    with pytest.raises(HRVError, match=r"clamp of HRV elements must be a positive number, not"):
        clamped_row(MADE, "Color", clamp)


@given(st.floats(-5, 5))
def test_the_strength_is_linear_from_identity(strength: float) -> None:
    weights = control(strength=strength).weights
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, 1 + strength * (VALUES[0].astype(np.float64) - 1), rtol=1e-6, atol=1e-6)


def test_strength_1_is_the_factors_bit_for_bit_and_0_is_exactly_1() -> None:
    factors = np.array([0.1, 1 / 3, 7.7, 1e-6, 3e5], dtype=np.float32)
    assert np.array_equal(control(factors=factors).weights, factors)
    assert (control(factors=factors, strength=0.0).weights == 1.0).all()


def test_identities_are_known() -> None:
    assert control(strength=0.0).is_identity
    assert control(positions=()).is_identity
    assert control(factors=np.ones(5)).is_identity
    assert not control().is_identity
    assert not control(factors=np.array([1, 1, 1, 1, 1.001])).is_identity
    assert not control(strength=-1.0).is_identity


def test_factors_are_a_copy_that_cannot_be_written() -> None:
    factors = np.array(VALUES[0])
    made = control(factors=factors)
    factors[:] = 7
    assert made.factors.tolist() == VALUES[0].tolist()
    for array in (made.factors, made.weights):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize("factors", [np.ones(4), np.ones((5, 1)), np.ones((1, 5))])
def test_factors_of_another_number_of_heads_are_refused(factors: np.ndarray) -> None:
    with pytest.raises(HRVError, match=r"5 heads in 2 cross-attention layers .* one factor per head"):
        control(factors=factors)


@pytest.mark.parametrize(
    "changes", [{"factors": [1, 2, math.nan, 1, 1]}, {"factors": [1, 2, 3, 4, math.inf]}, {"strength": math.nan}]
)
def test_what_is_not_finite_is_refused_by_label(changes: dict[str, Any]) -> None:
    with pytest.raises(HRVError, match=r"finite numbers \(strengthen Color\)"):
        control(**changes)


@pytest.mark.parametrize(("desired", "undesired"), [("Color", "Color"), ("Color", " color")])
def test_adjusting_needs_two_concepts(desired: str, undesired: str) -> None:
    with pytest.raises(HRVError, match=r"both 'Color': choose two"):
        adjust(MADE, desired, undesired, [1], 1.0, WHOLE, None)


def test_unknown_concepts_are_refused_with_those_there_are() -> None:
    with pytest.raises(HRVError, match=r"'Colour' in this HRV\. Did you mean Color\?"):
        strengthen(MADE, "Colour", [1], 1.0, WHOLE, None)
    with pytest.raises(HRVError, match="'Fruit' in this HRV"):
        adjust(MADE, "Color", "Fruit", [1], 1.0, WHOLE, None)


@pytest.mark.parametrize(
    ("order", "heads", "factors"),
    [
        ("most relevant first", 0, [1, 1, 1, 1, 1]),
        ("most relevant first", 2, [1, 1, 1, -2, -2]),
        ("least relevant first", 2, [-2, -2, 1, 1, 1]),
        ("random", 5, [-2, -2, -2, -2, -2]),
    ],
)
def test_weakening_scales_the_first_heads_of_an_order(order: str, heads: int, factors: list[float]) -> None:
    made = weaken(MADE, "color", order, heads, [2, 3], 1.0, Window(0.1, 0.2))
    assert made.weights.tolist() == factors
    assert (made.positions, made.window, made.layout) == ((2, 3), Window(0.1, 0.2), LAYOUT)


def test_weakening_takes_any_factor_and_the_random_order_of_its_seed() -> None:
    made = weaken(MADE, "Color", "random", 2, [1], 0.5, WHOLE, factor=0.0, seed=9)
    first = head_order(MADE, "Color", "random", 9)[:2]
    assert made.weights.tolist() == [0.5 if head in first else 1.0 for head in range(5)]


def test_labels_say_which_heads() -> None:
    labels = [
        weaken(MADE, "color", "most relevant first", 3, [1], 1.0, WHOLE).label,
        weaken(MADE, "Color", "random", 1, [1], 1.0, WHOLE, seed=7).label,
        scale_heads(LAYOUT, [4, 2, 3], 0.0, [1], 1.0, WHOLE).label,
        scale_heads(LAYOUT, [], -0.5, [1], 1.0, WHOLE).label,
        scale_heads(HeadLayout((AttentionLayer("middle", 0, 0, 99),)), range(0, 99, 2), 2.0, [1], 1.0, WHOLE).label,
    ]
    assert labels == [
        "weaken 3 heads of Color, most relevant first",
        "weaken 1 head in random order (seed 7)",
        "scale mid by 0",
        "scale no heads by -0.5",
        "scale 50 heads by 2",
    ]


@pytest.mark.parametrize("heads", [-1, 6])
def test_weakening_takes_no_more_heads_than_there_are(heads: int) -> None:
    with pytest.raises(HRVError, match=rf"5 heads in 2 .* 0 to 5 heads can be weakened, not {heads}\."):
        weaken(MADE, "Color", "random", heads, [1], 1.0, WHOLE)


def test_weakening_refuses_what_orders_refuse() -> None:
    with pytest.raises(HRVError, match="no order of heads 'first'"):
        weaken(MADE, "Color", "first", 1, [1], 1.0, WHOLE)
    with pytest.raises(HRVError, match=r"finite numbers \(weaken 1 head of Color"):
        weaken(MADE, "Color", "most relevant first", 1, [1], 1.0, WHOLE, factor=math.inf)


def test_chosen_heads_get_the_factor_and_the_others_one() -> None:
    made = scale_heads(LAYOUT, [3, 0, 3], -1.5, [4, 2], 1.0, Window(0.0, 0.5))
    assert made.weights.tolist() == [-1.5, 1, 1, -1.5, 1]
    assert (made.positions, made.window, made.layout) == ((2, 4), Window(0.0, 0.5), LAYOUT)
    assert scale_heads(LAYOUT, [1], 3.0, [1], 0.5, WHOLE).weights.tolist() == [1, 2, 1, 1, 1]
    assert scale_heads(LAYOUT, [], 0.0, [1], 1.0, WHOLE).is_identity


def test_chosen_heads_must_be_there() -> None:
    with pytest.raises(HRVError, match="are 0 to 4"):
        scale_heads(LAYOUT, [5], 0.0, [1], 1.0, WHOLE)
