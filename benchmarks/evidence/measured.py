"""Numbers of the evidence with their intervals: shares of pictures, means over prompts, and what is estimated anew.

Whatever is repeated independently is the prompt, so intervals are made by prompt: pictures of one prompt are a group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from ..shares import Groups, grouped_interval, share

Values = npt.NDArray[np.float64]

_DRAWS = 4000
_PARTS, _FEWEST_PARTS = 8, 4


class Measured(NamedTuple):
    """A number, its 95 % interval, and how many pictures (pairs, images) it is made from."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if not self.low < self.high:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


Numbers = dict[str, Measured]
"""By key, such as ``read_by_concept.Shape.causal.8.both``."""


def goals(numbers: Numbers, bounds: Sequence[tuple[str, str, float]]) -> str:
    """A list in Markdown of which goals are met: (number, ">=" or "<=", bound); of those that were measured."""
    lines = []
    for key, sign, bound in bounds:
        if key in numbers:
            met = numbers[key].value >= bound if sign == ">=" else numbers[key].value <= bound
            lines.append(f"- `{key}` {sign} {bound:g}: {numbers[key]}, {'met' if met else '**not met**'}\n")
    return "".join(lines)


def of_shares(groups: Groups) -> Measured:
    """The share of pictures that are right; ``groups`` has those of each prompt."""
    return Measured(share(groups), *grouped_interval(groups), sum(len(group) for group in groups))


def of_means(values: Sequence[Values], groups: Sequence[int] | None = None) -> Measured:
    """The mean over some concepts of values [prompts], with the interval of a bootstrap over prompts.

    ``groups`` says which concepts share their prompts, and so are drawn together: those of one number. Without it all
    do.
    """
    numbers = [0] * len(values) if groups is None else groups
    means = []
    for each, number in zip(values, numbers, strict=True):
        drawn = np.random.default_rng(number).integers(0, len(each), (_DRAWS, len(each)))
        means.append(each[drawn].mean(axis=1))
    low, high = np.quantile(np.mean(means, axis=0), (0.025, 0.975))
    return Measured(float(np.mean([each.mean() for each in values])), float(low), float(high), sum(map(len, values)))


def exactly(value: float, n: int) -> Measured:
    """What nothing was drawn for, so that its interval is the number itself."""
    return Measured(value, value, value, n)


def of_parts(count: int, found: Callable[[npt.NDArray[np.bool_]], float], n: int) -> Measured:
    """What is estimated from ``count`` prompts or batches, with a jackknife's interval over eighths of them.

    It is a share or an agreement, so never more than 1, and neither is its interval. ``found`` estimates it from those
    that are True [count]. Of fewer than eight each is a part, and fewer than four say nothing of an interval, which
    then is NaN.
    """
    value, parts = found(np.ones(count, dtype=bool)), min(count, _PARTS)
    if parts < _FEWEST_PARTS:
        return Measured(value, math.nan, math.nan, n)
    part = np.arange(count) % parts
    without = np.array([found(part != one) for one in range(parts)])
    error = math.sqrt((parts - 1) / parts * np.square(without - without.mean()).sum())
    half = float(stdtrit(parts - 1, 0.975)) * error
    return Measured(value, value - half, min(value + half, 1.0), n)
