"""Ordered weakening analysis (arXiv 2412.02237, section 4): which heads are weakened how, and what it did to scores.

A *line* is a way of choosing heads; its points are *cells*, one for each number of heads. Cells in which nothing is
weakened, and those in which every head is, are shared between lines, so that no image is made twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import HRVError, listed, quoted, short
from ..relevance.orders import (
    LEAST_RELEVANT_FIRST,
    MOST_RELEVANT_FIRST,
    RANDOM,
    WEAKEN_FACTOR,
    head_order,
    heads_of_percent,
)
from ..relevance.vectors import HRV, Factors
from ..scoring.experiments import Case

Scores = npt.NDArray[np.float64]

UNIFORM = "all heads alike"
"""The baseline without an order: every head is weakened as much as all are together, as a mean."""


class Line(NamedTuple):
    """An order of heads and a factor; of the random orders, ``draw`` counts and ``backwards`` turns one round."""

    order: str
    factor: float = WEAKEN_FACTOR
    draw: int = 0
    backwards: bool = False


class Cell(NamedTuple):
    """What is done to all words of a prompt: the first ``heads`` of a line's order get its factor."""

    line: Line
    heads: int


UNWEAKENED = Cell(Line("none", 1.0), 0)
"""The image as it is without weakening."""

_EVERY_HEAD = "every head"


@dataclass(frozen=True)
class Plan:
    """Which cells an analysis has.

    ``head_counts``    numbers of heads to weaken, ascending, from 0 to all.
    ``random_orders``  how many random orders there are; each is used forwards and backwards.
    ``factors``        what the words' attention is multiplied by.
    ``uniform``        whether the baseline :data:`UNIFORM` is measured too.
    ``order_seed``     of the first random order; the others follow it.
    """

    head_counts: tuple[int, ...]
    random_orders: int = 3
    factors: tuple[float, ...] = (WEAKEN_FACTOR,)
    uniform: bool = False
    order_seed: int = 0

    def __post_init__(self) -> None:
        counts = self.head_counts
        if len(counts) < 2 or counts[0] != 0 or any(one >= other for one, other in pairwise(counts)):
            raise HRVError(f"The numbers of heads must ascend from 0 to all heads, not {list(counts)}.")
        if self.random_orders < 0:
            raise HRVError(f"The number of random orders must be 0 or more, not {self.random_orders}.")
        if not self.factors or len(set(self.factors)) < len(self.factors) or not np.isfinite(self.factors).all():
            raise HRVError(f"There must be at least one factor, all finite and each once, not {list(self.factors)}.")

    @property
    def head_count(self) -> int:
        """All heads H of the layout that the plan is for."""
        return self.head_counts[-1]

    @property
    def lines(self) -> tuple[Line, ...]:
        """For every factor: most relevant first, least relevant first, the random orders, and the baseline if asked."""
        return tuple(line for factor in self.factors for line in self._lines(factor))

    def _lines(self, factor: float) -> list[Line]:
        turns = [Line(RANDOM, factor, draw, back) for draw in range(self.random_orders) for back in (False, True)]
        uniform = [Line(UNIFORM, factor)] if self.uniform else []
        return [Line(MOST_RELEVANT_FIRST, factor), Line(LEAST_RELEVANT_FIRST, factor), *turns, *uniform]

    def cell(self, line: Line, heads: int) -> Cell:
        """The cell of a line at a number of heads; lines share the cells in which they do the same."""
        if heads == 0 or line.factor == 1.0:
            return UNWEAKENED
        if line.order == UNIFORM:
            return self._alike.get(_of_every_head(line.factor, heads, self.head_count), Cell(line, heads))
        return Cell(Line(_EVERY_HEAD, line.factor) if heads == self.head_count else line, heads)

    @cached_property
    def _alike(self) -> dict[float, Cell]:
        """The cells in which all heads have one factor, by that factor."""
        found = {factor: Cell(Line(_EVERY_HEAD, factor), self.head_count) for factor in self.factors}
        found[1.0] = UNWEAKENED
        for factor in self.factors:
            for heads in self.head_counts:
                found.setdefault(_of_every_head(factor, heads, self.head_count), Cell(Line(UNIFORM, factor), heads))
        return found

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, each once; those without and with all heads first, since everything is compared with them."""
        both_ends = [self.cell(line, heads) for heads in (0, self.head_count) for line in self.lines]
        between = [self.cell(line, heads) for line in self.lines for heads in self.head_counts]
        return tuple(dict.fromkeys([*both_ends, *between]))


def usual_head_counts(head_count: int) -> tuple[int, ...]:
    """Published: 0, 1, 11, 21 ... 121, 128 of 128 heads and 0, 11, 111 ... 1211, 1300 of 1300; others in proportion."""
    step, first = max(1, round(head_count / 13)), max(1, round(head_count / 120))
    return (0, *range(first, head_count, step), head_count)


def parse_head_counts(text: str, head_count: int) -> tuple[int, ...]:
    """Numbers of heads separated by commas, each of them or a share such as 25%; 0 and all are added.

    An empty text means :func:`usual_head_counts`. Raises HRVError for anything else, for a number of heads that the
    layout does not have, and where no number is left at which orders differ.
    """
    if not text.strip():
        return usual_head_counts(head_count)
    counts = {0, head_count, *(parse_heads(part, head_count) for part in text.split(","))}
    if len(counts) == 2:
        raise HRVError(
            f"head_counts {quoted(text)} has no number between 0 and {head_count}, where all orders are the same: "
            "add some, such as 11, 25%."
        )
    return tuple(sorted(counts))


def parse_heads(text: str, head_count: int) -> int:
    """A number of heads, or a share such as 25%. Raises HRVError for anything else, and for more than there are."""
    part = text.strip()
    try:
        heads = heads_of_percent(float(part[:-1]), head_count) if part.endswith("%") else int(part)
    except HRVError:
        raise
    except ValueError:
        raise HRVError(
            f"{quoted(part)} isn't a number of heads: write numbers like 0, 11, 25%, {head_count}."
        ) from None
    if not 0 <= heads <= head_count:
        raise HRVError(f"This model has {head_count} heads, so {short(part)} of them cannot be weakened.")
    return heads


def cell_factors(cell: Cell, hrv: HRV, concept: str, order_seed: int) -> Factors:
    """The factor of every head position in a cell: float32 [H]."""
    line, head_count = cell.line, hrv.layout.head_count
    factors = np.ones(head_count, dtype=np.float32)
    if line.order == UNIFORM:
        factors[:] = _of_every_head(line.factor, cell.heads, head_count)
    elif line.order in (UNWEAKENED.line.order, _EVERY_HEAD):
        factors[:] = line.factor
    else:
        order = head_order(hrv, concept, line.order, order_seed + line.draw)
        factors[(order[::-1] if line.backwards else order)[: cell.heads]] = line.factor
    return factors


def _of_every_head(factor: float, heads: int, head_count: int) -> float:
    """The factor of every head that is, as a mean, ``factor`` in so many of them."""
    return 1 + heads / head_count * (factor - 1)


@dataclass(frozen=True, eq=False)
class Weakening:
    """What the analysis of one concept measured.

    ``scores``      float64 [cells, cases, seeds], cells in the plan's order; NaN where the scorer failed.
    ``provenance``  what it was measured with, a JSON object.
    """

    concept: str
    cases: tuple[Case, ...]
    seeds: tuple[int, ...]
    plan: Plan
    scores: Scores
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def _rows(self) -> dict[Cell, int]:
        return {cell: row for row, cell in enumerate(self.plan.cells)}

    def of(self, cell: Cell) -> Scores:
        """The scores [cases, seeds] of a cell."""
        return self.scores[self._rows[cell]]

    def along(self, line: Line) -> Scores:
        """The scores [head counts, cases, seeds] of a line."""
        return np.stack([self.of(self.plan.cell(line, heads)) for heads in self.plan.head_counts])

    @property
    def failed(self) -> int:
        """How many images could not be scored."""
        return int(np.isnan(self.scores).sum())


def concepts_to_analyse(hrv: HRV, there: Sequence[str], asked: Sequence[str]) -> list[str]:
    """The HRV's names of the concepts asked for, or of all that the HRV and an experiment have in common.

    Raises HRVError for a concept that the HRV does not have, and if the two have none in common.
    """
    if asked:
        return [hrv.concepts[hrv.index(concept)] for concept in asked]
    known = {name.casefold(): name for name in hrv.concepts}
    common = [known[name.casefold()] for name in there if name.casefold() in known]
    if not common:
        raise HRVError(
            f"The HRV and the experiment have no concept in common. HRV: {listed(hrv.concepts)}; experiment: "
            f"{listed(there)}."
        )
    return common


def sheet_lines(result_lines: Sequence[Line]) -> list[Line]:
    """The lines of a plan that a contact sheet shows, in its order: both of the HRV, one random, and the baseline."""
    factor = result_lines[0].factor
    shown = [Line(order, factor) for order in (MOST_RELEVANT_FIRST, LEAST_RELEVANT_FIRST, RANDOM, UNIFORM)]
    return [line for line in shown if line in result_lines]
