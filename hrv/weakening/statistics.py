"""What an ordered weakening analysis says: curves, the area between them, and whether the HRV separates.

If an HRV means something, weakening its most relevant heads first (MoRHF) removes the concept early and weakening its
least relevant first (LeRHF) late. The area between the two curves, over the share of heads, is therefore compared with
the same area between a random order and itself backwards, which is zero but for chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

from ..errors import HRVError
from ..relevance.orders import LEAST_RELEVANT_FIRST, MOST_RELEVANT_FIRST, RANDOM
from .plan import UNWEAKENED, Line, Plan, Scores, Weakening

YES, WEAKLY, NO = "yes", "weakly", "no"

SURE, HINT = 0.05, 0.2
"""Probabilities of so large an area by chance, below which a verdict is "yes" and "weakly"."""

FEWEST = 4
"""With fewer images a point than these nothing is sure."""

_RESAMPLES = 2000
_SEED = 0


class Estimate(NamedTuple):
    """A mean with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True, eq=False)
class Curve:
    """Mean scores float64 [head counts] with their 95 % bootstrap interval."""

    mean: Scores
    low: Scores
    high: Scores


@dataclass(frozen=True)
class Finding:
    """What the analysis of one concept found at one factor.

    ``factor``        what weakened heads were multiplied by.
    ``verdict``       "yes", "weakly" or "no": whether the HRV tells which heads the concept needs.
    ``area``          between LeRHF and MoRHF over the share of heads weakened, in units of the score.
    ``share``         the area as a share of what weakening every head takes away; None if that is nothing.
    ``random_areas``  the same area for every random order and itself backwards.
    ``p``             how probable so large an area is for an order that knows nothing (Student's t of the random areas,
                      whose true mean is 0); None without random orders.
    ``agreement``     rank agreement, -1 to 1: how much oftener the LeRHF image of the same prompt, seed and number of
                      heads scores above the MoRHF image than below.
    ``unweakened``    mean score as it is; ``all_weakened`` with every head weakened.
    ``images``        how many prompts and seeds every point is the mean of; ``left_out`` how many more could not be
                      scored everywhere.
    """

    concept: str
    factor: float
    verdict: str
    area: Estimate
    share: float | None
    random_areas: tuple[float, ...]
    p: float | None
    agreement: float
    unweakened: float
    all_weakened: float
    images: int
    left_out: int

    def sentence(self) -> str:
        """The verdict in words and numbers."""
        share = "" if self.share is None else f", {self.share:.0%} of everything that weakening takes away"
        chance = "no random order to compare with"
        if self.p is not None:
            spread = math.sqrt(np.mean(np.square(self.random_areas)))
            pairs = f"{len(self.random_areas)} random order{'' if len(self.random_areas) == 1 else 's'}"
            chance = f"by chance about ±{spread:.3f} ({pairs}), p = {self.p:.3f}"
        left_out = f", {self.left_out} left out because they couldn't be scored" if self.left_out else ""
        doubt = ""
        if self.all_weakened >= self.unweakened:
            doubt = " Weakening every head takes nothing away: the scorer doesn't see the concept in these images."
        elif self.images < FEWEST:
            doubt = f" So few images prove nothing: use at least {FEWEST} prompts and seeds."
        return (
            f"{self.concept}: {self.verdict}. Area between least and most relevant first {self.area}{share}; {chance}. "
            f"Rank agreement {self.agreement:.2f}. Score {self.unweakened:.3f} unweakened and {self.all_weakened:.3f} "
            f"with every head weakened; {self.images} image{'' if self.images == 1 else 's'} a point{left_out}.{doubt}"
        )


def curve(result: Weakening, lines: Sequence[Line]) -> Curve:
    """The mean curve of some lines; its interval covers the choice of prompts, of seeds and, of several, of lines."""
    scores = np.stack([result.along(line) for line in lines])  # [lines, head counts, cases, seeds]
    random = np.random.default_rng(_SEED)
    means = np.empty((_RESAMPLES, scores.shape[1]))
    chosen = random.integers(len(lines), size=(_RESAMPLES, len(lines)))
    cases, seeds = _resampled(random, scores.shape[2:])
    for number in range(_RESAMPLES):
        part = scores[chosen[number]][:, :, cases[number][:, None], seeds[number]]
        means[number] = _mean(part, (0, 2, 3))
    low, high = _interval(means)
    return Curve(_mean(scores, (0, 2, 3)), low, high)


def finding(result: Weakening, factor: float | None = None, chance: Sequence[float] = ()) -> Finding:
    """What a result says at a factor (its first by default). Raises HRVError if no image could be scored throughout.

    ``chance`` are the random areas of another analysis of the same images, for a result without random orders.
    """
    plan = result.plan
    used = plan.factors[0] if factor is None else factor
    most, least = Line(MOST_RELEVANT_FIRST, used), Line(LEAST_RELEVANT_FIRST, used)
    turns = [[Line(RANDOM, used, draw, back) for back in (False, True)] for draw in range(plan.random_orders)]
    every = np.stack([result.along(line) for line in [most, least, *(line for pair in turns for line in pair)]])
    complete = np.isfinite(every).all(axis=(0, 1))  # [cases, seeds]
    if not complete.any():
        raise HRVError(
            f"No image of {result.concept} could be scored at every number of heads, so there is no verdict. The log "
            "says why the scorer failed."
        )

    shares = np.array(plan.head_counts) / plan.head_count
    areas = _area(result.along(least), shares) - _area(result.along(most), shares)  # [cases, seeds]
    area = estimate(np.where(complete, areas, np.nan))
    random_areas = tuple(
        float((_area(result.along(back), shares) - _area(result.along(forth), shares))[complete].mean())
        for forth, back in turns
    ) or tuple(chance)
    p = _chance(area.value, random_areas) if random_areas else None
    difference = (result.along(least) - result.along(most))[1:-1][:, complete]
    ends = [result.of(plan.cell(most, heads))[complete] for heads in (0, plan.head_count)]
    unweakened, all_weakened = (float(end.mean()) for end in ends)
    return Finding(
        concept=result.concept,
        factor=used,
        verdict=_verdict(area, p, int(complete.sum()), unweakened > all_weakened),
        area=area,
        share=area.value / (unweakened - all_weakened) if unweakened > all_weakened else None,
        random_areas=random_areas,
        p=p,
        agreement=float(np.sign(difference).mean()) if difference.size else 0.0,
        unweakened=unweakened,
        all_weakened=all_weakened,
        images=int(complete.sum()),
        left_out=int((~complete).sum()),
    )


def overall(findings: Sequence[Finding]) -> str:
    """One verdict on several concepts: "yes" if it is for most of them, "no" if it is for most, else "weakly"."""
    verdicts = [each.verdict for each in findings]
    for verdict in (YES, NO):
        if verdicts.count(verdict) * 2 > len(verdicts):
            return verdict
    return WEAKLY


def orders_of(plan: Plan, factor: float) -> dict[str, list[Line]]:
    """The lines of a factor by their order, in the plan's order: all random ones together."""
    found: dict[str, list[Line]] = {}
    for line in plan.lines:
        if line.factor == factor:
            found.setdefault(line.order, []).append(line)
    return found


def mean_scores(result: Weakening, order: str) -> Scores:
    """Mean scores [factors, head counts] of an order (or of the uniform baseline) at every factor."""
    return np.stack([_mean(result.along(Line(order, factor)), (1, 2)) for factor in result.plan.factors])


def unweakened_score(result: Weakening) -> float:
    """Mean score of the images as they are."""
    return float(_mean(result.of(UNWEAKENED), (0, 1)))


def estimate(values: Scores) -> Estimate:
    """Mean of values [cases, seeds] without NaN, with the interval of a bootstrap over cases and, in each, seeds."""
    random = np.random.default_rng(_SEED)
    cases, seeds = _resampled(random, values.shape)
    low, high = _interval(_mean(values[cases[:, :, None], seeds], (1, 2)))
    return Estimate(float(_mean(values, (0, 1))), float(low), float(high))


def _verdict(area: Estimate, p: float | None, images: int, visible: bool) -> str:
    if not visible or area.low <= 0:
        return NO
    if p is None:
        return WEAKLY
    if p < SURE and images >= FEWEST:
        return YES
    return WEAKLY if p < HINT else NO


def _chance(area: float, random_areas: Sequence[float]) -> float:
    """One-sided p of an area under areas of random orders, which are symmetric around 0."""
    spread = math.sqrt(np.mean(np.square(random_areas)))
    if spread == 0:
        # Scores so coarse that no random order showed a difference: as many of them as there are, and no more, say so.
        return 1 / (len(random_areas) + 1) if area > 0 else 1.0
    return float(1 - stdtr(len(random_areas), area / spread))


def _area(scores: Scores, shares: npt.NDArray[np.float64]) -> Scores:
    """Areas [cases, seeds] under scores [head counts, cases, seeds] by the trapezoidal rule."""
    widths = np.diff(shares)[:, None, None]
    return ((scores[1:] + scores[:-1]) / 2 * widths).sum(axis=0)


def _resampled(
    random: np.random.Generator, shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Numbers of cases [resamples, cases], and of seeds for each [resamples, cases, seeds]."""
    cases, seeds = shape
    return (
        random.integers(cases, size=(_RESAMPLES, cases)),
        random.integers(seeds, size=(_RESAMPLES, cases, seeds)),
    )


def _interval(means: Scores) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    low, high = np.nanpercentile(means, [2.5, 97.5], axis=0)
    return low, high


def _mean(values: Scores, axes: tuple[int, ...]) -> Scores:
    """The mean without NaN; NaN of nothing."""
    there = np.isfinite(values)
    number = there.sum(axis=axes)
    total = np.where(there, values, 0.0).sum(axis=axes)
    return np.divide(total, number, out=np.full(np.shape(total), np.nan), where=number > 0)
