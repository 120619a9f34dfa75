"""Convergence: rank correlation against its definition, and the expected agreement against simulated builds."""

from __future__ import annotations

import numpy as np
import pytest
from hrv_pack.hrv.building.convergence import Point, expected_agreement, measure, next_measurement
from hrv_pack.hrv.relevance.agreement import rank_agreement
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

ROWS = hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(3, 30)), elements=st.integers(0, 6))


def ranks(row: np.ndarray) -> np.ndarray:
    """Mean ranks by counting, as Spearman defines them."""
    return np.array([(row < value).sum() + ((row == value).sum() + 1) / 2 for value in row])


@given(ROWS, st.randoms())
def test_agreement_is_the_correlation_of_mean_ranks(values: np.ndarray, random: np.random.Generator) -> None:
    other = values[:, ::-1] + values.mean()
    found = rank_agreement(values, other)
    for row, one, two in zip(found, values, other, strict=True):
        if np.ptp(one) == 0:
            assert row == 0
        else:
            assert row == pytest.approx(np.corrcoef(ranks(one), ranks(two))[0, 1], abs=1e-12)


def test_agreement_sees_order_only() -> None:
    values = np.array([[1.0, 5.0, 2.0, 9.0]])
    assert rank_agreement(values, np.exp(values)) == pytest.approx([1.0])
    assert rank_agreement(values, -values) == pytest.approx([-1.0])
    assert expected_agreement(np.array([1.0, 0.0, -0.5])) == pytest.approx([1.0, 0.0, 0.0])


def simulated(images: int, truth: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Halves [2, N, H] of a build whose heads attend most to concept n with the probability ``truth`` [N, H]."""
    halves = [[random.multinomial(images // 2, head) for head in truth.T] for _ in range(2)]
    return np.array(halves).transpose(0, 2, 1)


@pytest.mark.parametrize("images", [20, 60, 400])
def test_the_expected_agreement_with_an_endless_build_is_met(images: int) -> None:
    random = np.random.default_rng(0)
    truth = random.dirichlet(np.full(5, 3.0), 128).T
    expected, met = [], []
    for _ in range(10):
        halves = simulated(images, truth, random)
        point = measure(images, halves)
        assert point is not None
        expected.append(point.expected)
        met.append(rank_agreement(halves.sum(0) / images, truth).mean())
    # Rank correlation loses a little to ties and to its own nonlinearity.
    assert np.mean(expected) == pytest.approx(np.mean(met), abs=0.02)


def test_a_half_without_images_tells_nothing() -> None:
    halves = np.zeros((2, 3, 4), dtype=np.int64)
    halves[0] = 1
    assert measure(1, halves) is None
    halves[1] = 2
    assert measure(2, halves) == Point(2, 0.0, 0.0, 0.0, 0.0)


def test_measurements_come_at_growing_distances() -> None:
    images = [0]
    while images[-1] < 1000:
        images.append(next_measurement(images[-1]))
    assert images[:4] == [0, 1, 2, 3] and len(images) < 70
