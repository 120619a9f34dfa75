"""Shares of a benchmark whose samples come in groups: intervals that know it, and paired differences.

Edits of one source share its prompt and its noise, so they are not as good as independent samples. What is repeated
independently is the group.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hrv_pack.mini.evaluation import wilson_interval

Groups = Sequence[Sequence[bool]]
"""What every group's samples came to; groups may have unlike numbers of samples, but at least one."""

_DRAWS = 10_000


def share(groups: Groups) -> float:
    """The share of samples that are right; NaN without samples."""
    samples = [right for group in groups for right in group]
    return float(np.mean(samples)) if samples else float("nan")


def grouped_interval(groups: Groups) -> tuple[float, float]:
    """The 95 % interval of :func:`share`: Wilson's for as many independent samples as the groups are worth.

    That number is the samples' over the design effect, how often the variance between groups (of a ratio, linearised)
    is that of independent samples; never below one. Where all samples agree nothing can be estimated, and every group
    counts as one sample. Without samples it is 0 to 1.
    """
    sizes = np.array([len(group) for group in groups], dtype=np.float64)
    if not len(sizes):
        return wilson_interval(0, 0)
    right = np.array([sum(group) for group in groups], dtype=np.float64)
    total, found = sizes.sum(), right.sum() / sizes.sum()
    worth = float(len(sizes))
    if 0.0 < found < 1.0 and len(sizes) > 1:
        between = np.square(right - found * sizes).sum() / total**2 * len(sizes) / (len(sizes) - 1)
        worth = total / max(1.0, between / (found * (1.0 - found) / total))
    return wilson_interval(found * worth, worth)


def paired_difference(groups: Groups, base: Groups) -> tuple[float, float, float]:
    """How far the share of one way lies above another's on the same samples, and the 95 % interval of that.

    The interval is a bootstrap over the groups, both ways of a group drawn together. Raises ValueError for unlike
    groups.
    """
    if [len(group) for group in groups] != [len(group) for group in base]:
        raise ValueError("Ways are compared on the same samples of the same groups.")
    sizes = np.array([len(group) for group in groups])
    gained = np.array([sum(one) - sum(other) for one, other in zip(groups, base, strict=True)])
    drawn = np.random.default_rng(0).integers(0, len(sizes), (_DRAWS, len(sizes)))
    low, high = np.quantile(gained[drawn].sum(1) / sizes[drawn].sum(1), (0.025, 0.975))
    return float(gained.sum() / sizes.sum()), float(low), float(high)
