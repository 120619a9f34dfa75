"""Orders of head positions for ordered weakening."""

from __future__ import annotations

import numpy as np
import pytest
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.hrv.relevance.orders import ORDERS, head_order
from hrv_pack.hrv.relevance.vectors import HRV

LAYOUT = HeadLayout((AttentionLayer("input", 1, 0, 2), AttentionLayer("middle", 0, 0, 3)))
VALUES = np.array([[0.0, 0.5, 2.0, 2.0, 12.0], [4.0, 3.0, 2.0, 1.0, 0.0]], dtype=np.float32)
MADE = HRV(VALUES, ("Color", "Plants"), LAYOUT)


def test_the_most_relevant_come_first_and_the_least_relevant_in_the_reverse_order() -> None:
    assert head_order(MADE, "Color", "most relevant first").tolist() == [4, 2, 3, 1, 0]
    assert head_order(MADE, "color", "least relevant first").tolist() == [0, 1, 3, 2, 4]


def test_the_ranking_is_that_of_the_counts_where_there_are_any() -> None:
    built = HRV.from_counts(np.array([[3, 0, 1, 4, 10], [1, 4, 1, 4, 90]]), ("Color", "Plants"), LAYOUT)
    assert head_order(built, "Color", "most relevant first").tolist() == built.ranking("Color").tolist()


def test_the_random_order_depends_on_the_seed_alone_and_is_the_same_everywhere() -> None:
    other = HRV(VALUES[::-1], ("Color", "Plants"), LAYOUT)
    for seed in (0, 7, 2**64 - 1):
        drawn = {tuple(head_order(hrv, name, "random", seed)) for hrv in (MADE, other) for name in hrv.concepts}
        assert len(drawn) == 1
    assert len({tuple(head_order(MADE, "Color", "random", seed)) for seed in range(200)}) > 90
    assert head_order(MADE, "Color", "random", 3).tolist() == [1, 4, 2, 0, 3]


def test_every_place_of_the_random_order_is_as_likely_for_every_head() -> None:
    drawn = np.array([head_order(MADE, "Color", "random", seed) for seed in range(2000)])
    times = np.array([(drawn == head).sum(axis=0) for head in range(5)])
    # 2000 draws of 1 in 5: a standard deviation of 18.
    assert np.abs(times - 400).max() < 90


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_has_each_head_once(order: str) -> None:
    found = head_order(MADE, "Color", order, 11)
    assert found.dtype == np.int64
    assert sorted(found.tolist()) == [0, 1, 2, 3, 4]


def test_unknown_orders_and_concepts_are_refused_with_those_there_are() -> None:
    with pytest.raises(
        HRVError, match=r"no order of heads 'LeRHF': .* most relevant first, least relevant first, random"
    ):
        head_order(MADE, "Color", "LeRHF")
    for order in ORDERS:
        with pytest.raises(HRVError, match="Did you mean Color"):
            head_order(MADE, "Colour", order)
