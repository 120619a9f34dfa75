"""The grid of an ordered weakening analysis: batches of images that are made together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np

from ...hrv.errors import HRVError
from ...hrv.prompts.tokens import TokenMap
from ...hrv.weakening.plan import Cell, Plan


@dataclass(frozen=True)
class WeakeningSettings:
    """How the images of an analysis are made; ``width`` and ``height`` are pixels.

    The image of a seed is the one that the host's KSampler makes of it alone, but for samplers that draw noise on the
    way.
    """

    seeds: tuple[int, ...]
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    width: int
    height: int
    batch_size: int = 1
    negative: str = ""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise HRVError(f"An analysis needs at least one seed, each only once, not {list(self.seeds)}.")


class Batch(NamedTuple):
    """Images of one concept and cell, made together: (case, seed) numbers and their words' positions."""

    concept: int
    cell: Cell
    units: tuple[tuple[int, int], ...]
    positions: tuple[int, ...]


def batches_of(concept: int, maps: Sequence[TokenMap], plan: Plan, settings: WeakeningSettings) -> Iterator[Batch]:
    """The grid of one concept whose cases have these token maps."""
    for tokens in maps:
        if not tokens.words:
            raise HRVError(f"The prompt {tokens.text!r} has no words that could be weakened.")

    def places(case: int) -> tuple[int, tuple[int, ...]]:
        return maps[case].length, maps[case].content_positions

    groups = [list(those) for _, those in groupby(sorted(range(len(maps)), key=places), key=places)]
    for cell in plan.cells:
        for those in groups:
            units = [(case, seed) for case in those for seed in range(len(settings.seeds))]
            for start in range(0, len(units), settings.batch_size):
                some = tuple(units[start : start + settings.batch_size])
                yield Batch(concept, cell, some, maps[those[0]].content_positions)


def rows_of(batches: Sequence[Batch]) -> list[slice]:
    """Which of all images in order each batch has."""
    ends = np.cumsum([len(batch.units) for batch in batches]).tolist()
    return [slice(end - len(batch.units), end) for end, batch in zip(ends, batches, strict=True)]
