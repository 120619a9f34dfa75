"""Intervals of shares whose samples come in groups, against what repeating the whole experiment gives."""

from __future__ import annotations

import numpy as np
import pytest
from hrv_pack.benchmarks.shares import grouped_interval, paired_difference, share
from hrv_pack.mini.evaluation import wilson_interval


def drawn(rng: np.random.Generator, groups: int, size: int, likeness: float) -> list[list[bool]]:
    """Samples that are right half of the time; with this chance one takes what its group has in common."""
    common = rng.random(groups) < 0.5
    alike = rng.random((groups, size)) < likeness
    own = rng.random((groups, size)) < 0.5
    found: list[list[bool]] = np.where(alike, common[:, None], own).tolist()
    return found


def test_groups_of_one_have_wilsons_interval() -> None:
    groups = [[True]] * 7 + [[False]] * 3
    assert share(groups) == 0.7
    # The variance between groups is estimated, so it is a little above that of independent samples.
    assert grouped_interval(groups) == pytest.approx(wilson_interval(7, 10), abs=0.02)


def test_a_group_whose_samples_all_agree_counts_once() -> None:
    groups = [[True] * 6] * 12 + [[False] * 6] * 8
    assert grouped_interval(groups) == pytest.approx(wilson_interval(12, 20), abs=0.01)


def test_where_all_agree_every_group_counts_once() -> None:
    assert grouped_interval([[True] * 6] * 12) == wilson_interval(12, 12)
    assert grouped_interval([[False] * 6] * 12) == wilson_interval(0, 12)


def test_no_samples_say_nothing() -> None:
    assert np.isnan(share([]))
    assert grouped_interval([]) == (0.0, 1.0)


@pytest.mark.parametrize("likeness", [0.0, 0.5, 0.9])
def test_intervals_hold_the_truth_as_often_as_they_say(likeness: float) -> None:
    rng = np.random.default_rng(0)
    held = [low <= 0.5 <= high for low, high in (grouped_interval(drawn(rng, 30, 6, likeness)) for _ in range(400))]
    assert 0.92 <= np.mean(held) <= 0.99


def test_differences_of_ways_on_the_same_groups() -> None:
    rng = np.random.default_rng(0)
    base = drawn(rng, 40, 6, 0.9)
    better = [[True, *group[1:]] for group in base]
    gained = share(better) - share(base)
    found, low, high = paired_difference(better, base)
    assert found == pytest.approx(gained)
    # Nothing but the first sample of a group differs, so the interval is far narrower than either share's.
    assert 0.0 < low < gained < high < 1 / 6
    assert paired_difference(base, base) == (0.0, 0.0, 0.0)


def test_differences_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    found = [paired_difference(drawn(rng, 30, 6, 0.7), drawn(rng, 30, 6, 0.7)) for _ in range(100)]
    assert 0.90 <= np.mean([low <= 0.0 <= high for _, low, high in found]) <= 0.99


def test_unlike_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="same samples"):
        paired_difference([[True]], [[True, False]])
