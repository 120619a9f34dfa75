"""How nodes of ordered weakening are told what to do with weakened heads."""

from __future__ import annotations

import pytest
from hrv_pack.hrv.errors import HRVError
from hrv_pack.nodes.weakening import OrderedWeakening
from hrv_pack.nodes.weakening_checks import QuickCheck
from hrv_pack.nodes.weakening_inputs import AS_PUBLISHED, BY_FACTOR, SET_TO_ZERO, WeakenedHeads


def weakened(factor: float, **more: str) -> WeakenedHeads:
    return WeakenedHeads("11", 3, factor, 0, **more)


@pytest.mark.parametrize("factor", [-2.0, 0.0, 0.5])
def test_graphs_without_the_choice_are_weakened_by_their_factor(factor: float) -> None:
    assert weakened(factor).plan(128) == weakened(factor, weakening=BY_FACTOR).plan(128)
    assert weakened(factor).plan(128).factors == (factor,)


def test_a_choice_comes_before_the_factor() -> None:
    assert weakened(1.0, weakening=SET_TO_ZERO).plan(128).factors == (0.0,)
    assert weakened(0.5, weakening=AS_PUBLISHED).plan(128).factors == (-2.0,)


def test_a_factor_that_weakens_nothing_is_refused() -> None:
    with pytest.raises(HRVError, match="factor is 1, which weakens no head"):
        weakened(1.0).plan(128)


def test_what_saved_graphs_do_not_have_means_what_it_meant() -> None:
    """The page fills in a widget's default where a saved graph is older than the widget."""
    defaults = {
        node: next(each.default for each in node.define_schema().inputs if each.id == "weakening")
        for node in (OrderedWeakening, QuickCheck)
    }
    assert defaults == {OrderedWeakening: BY_FACTOR, QuickCheck: AS_PUBLISHED}
