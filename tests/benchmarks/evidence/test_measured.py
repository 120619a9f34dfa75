"""Numbers with intervals, against what is known of them in closed form or from repeating the experiment."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hrv_pack.benchmarks.evidence.measured import Measured, exactly, goals, of_means, of_parts, of_shares


def test_shares_count_pictures_and_group_them_by_prompt() -> None:
    found = of_shares([[True, True], [False, False], [True, False]])
    assert (found.value, found.n) == (0.5, 6)
    alone = of_shares([[one] for one in (True, True, False, False, True, False)])
    assert found.low < alone.low < 0.5 < alone.high < found.high


def test_means_of_several_concepts_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(200):
        same = rng.normal(size=40)
        found = of_means([same + rng.normal(size=40), same, rng.normal(size=30)], [0, 0, 1])
        assert found.n == 110
        held.append(found.low <= 0.0 <= found.high)
    assert 0.89 <= np.mean(held) <= 0.99


def test_concepts_that_share_prompts_are_drawn_together() -> None:
    values = np.random.default_rng(0).normal(size=50)
    together, apart = (of_means([values, -values], groups) for groups in ([0, 0], [0, 1]))
    assert together.low == pytest.approx(0.0) == together.high
    assert apart.low < -0.05 and apart.high > 0.05


@pytest.mark.parametrize("count", [4, 8, 40])
def test_the_jackknife_of_a_mean_is_its_standard_error(count: int) -> None:
    values = np.random.default_rng(1).normal(scale=0.1, size=count)
    found = of_parts(count, lambda which: float(values[which].mean()), 5 * count)
    assert found.value == pytest.approx(values.mean()) and found.n == 5 * count
    parts = min(count, 8)
    means = [values[np.arange(count) % parts == part].mean() for part in range(parts)]
    t = {4: 3.1824, 8: 2.3646}[parts]
    assert found.high - found.value == pytest.approx(t * np.std(means, ddof=1) / math.sqrt(parts), rel=1e-4)


def test_no_interval_goes_beyond_1() -> None:
    found = of_parts(8, lambda which: float(np.array([1.0, 0.9] * 4)[which].mean()), 8)
    assert found.value == pytest.approx(0.95) and found.low < 0.92 and found.high < 1.0
    found = of_parts(8, lambda which: float(np.array([1.0] * 7 + [0.5])[which].mean()), 8)
    assert found.low < 0.85 and found.high == 1.0


def test_few_batches_say_nothing_of_an_interval() -> None:
    found = of_parts(3, lambda which: 0.25, 16)
    assert found.value == 0.25 and math.isnan(found.low) and str(found) == "0.25"
    assert exactly(0.5, 7) == Measured(0.5, 0.5, 0.5, 7) and str(exactly(0.5, 7)) == "0.50"
    assert str(Measured(0.5, 0.4, 0.6, 7)) == "0.50 (0.40 to 0.60)"


def test_goals_are_met_or_not_and_only_of_what_was_measured() -> None:
    numbers = {"a": Measured(0.5, 0.4, 0.6, 7), "b": Measured(0.2, 0.1, 0.3, 7)}
    assert goals(numbers, [("a", ">=", 0.5), ("b", "<=", 0.16), ("c", ">=", 0.0)]) == (
        "- `a` >= 0.5: 0.50 (0.40 to 0.60), met\n- `b` <= 0.16: 0.20 (0.10 to 0.30), **not met**\n"
    )
