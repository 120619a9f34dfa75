"""Rank correlation of relevances: whether two HRVs put the heads of a concept in the same order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Shares = npt.NDArray[np.float64]


def rank_agreement(one: Shares, other: Shares) -> Shares:
    """Spearman's rank correlation of every row of two arrays [N, H]: [N]; 0 where a row is constant.

    Equal values share their mean rank.
    """
    a, b = _centred_ranks(one), _centred_ranks(other)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), scale, out=np.zeros(len(scale)), where=scale > 0)


def _centred_ranks(values: Shares) -> Shares:
    """Ranks of every row's elements, equal ones sharing the mean of theirs, less the mean rank."""
    ranks = np.empty(values.shape, dtype=np.float64)
    for row, target in zip(values, ranks, strict=True):
        _, inverse, numbers = np.unique(row, return_inverse=True, return_counts=True)
        ends = np.cumsum(numbers)
        target[:] = (ends - (numbers - 1) / 2)[inverse.ravel()]
    return ranks - (values.shape[1] + 1) / 2
