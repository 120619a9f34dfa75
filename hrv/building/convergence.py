"""How far a build has converged: agreement of two halves of its images, and what it says about the whole.

Rankings are compared by Spearman's rank correlation. Of two halves that agree with r, the whole agrees with another
whole of its size by R = 2 r / (1 + r) (Spearman 1910, Brown 1910), and with the ranking of an endless build by the
square root of R (attenuation, Spearman 1904).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..relevance.agreement import rank_agreement
from ..relevance.evidence import Counts, head_shares

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """After ``images`` images: how well the halves agree, and the expected agreement with an endless build.

    Both are rank correlations, the mean over all concepts and the smallest of them.
    """

    images: int
    halves: float
    halves_least: float
    expected: float
    expected_least: float


def measure(images: int, halves: Counts) -> Point | None:
    """The point of a build of ``images`` images whose halves have the counts int64 [2, N, H].

    None as long as one half has no image.
    """
    if not halves.any(axis=1).all():
        return None
    agreement = rank_agreement(head_shares(halves[0]), head_shares(halves[1]))
    expected = expected_agreement(agreement)
    return Point(images, float(agreement.mean()), float(agreement.min()), float(expected.mean()), float(expected.min()))


def expected_agreement(halves: Shares) -> Shares:
    """From the agreement r of two halves the expected agreement of the whole with an endless build: sqrt(2r / (1 + r)).

    Halves that disagree (r below 0) say nothing about the whole: 0.
    """
    positive = np.maximum(halves, 0.0)
    return np.sqrt(2 * positive / (1 + positive))


def next_measurement(images: int) -> int:
    """After how many images to measure again: a tenth more, at least one."""
    return images + max(1, images // 10)
