"""The grid of an ordered weakening analysis: batches of images that are made together."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import NamedTuple

from ...hrv.errors import HRVError, listed, quoted
from ...hrv.prompts.tokens import TokenMap
from ...hrv.weakening.plan import Cell, Plan

MOST_IMAGES = 1_000_000
"""Images of an analysis at most; at ten a second they take a day."""


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
            raise HRVError(
                f"An analysis needs at least one seed, each only once, not {listed(list(map(str, self.seeds)))}."
            )


class Batch(NamedTuple):
    """Images of one concept and cell, made together: (case, seed) numbers and their words' positions."""

    concept: int
    cell: Cell
    units: tuple[tuple[int, int], ...]
    positions: tuple[int, ...]


class _Group(NamedTuple):
    """The images of cases whose words are at the same positions: (case, seed) numbers."""

    units: list[tuple[int, int]]
    positions: tuple[int, ...]


class Grid:
    """The batches of an analysis in order: concept by concept, cell by cell. Each is made when it is asked for.

    ``maps`` are the token maps of every concept's cases. Raises HRVError for a prompt without words, and for more than
    :data:`MOST_IMAGES`.
    """

    def __init__(self, maps: Sequence[Sequence[TokenMap]], plan: Plan, settings: WeakeningSettings):
        self.images = len(plan.cells) * len(settings.seeds) * sum(map(len, maps))
        if self.images > MOST_IMAGES:
            raise HRVError(
                f"This analysis has {self.images:,} images ({len(plan.cells)} numbers and orders of heads, "
                f"{len(settings.seeds)} seeds, {sum(map(len, maps))} prompts); at most {MOST_IMAGES:,} are allowed. "
                "Take fewer seeds, prompts, random orders or numbers of heads."
            )
        self._plan, self._size = plan, settings.batch_size
        self._groups = [_groups(those, len(settings.seeds)) for those in maps]
        # Of every concept: how many batches and images each group has in a cell, and how many come before it.
        self._batches = [[-(-len(group.units) // self._size) for group in groups] for groups in self._groups]
        cells = len(plan.cells)
        self._first_batch = list(accumulate((sum(batches) * cells for batches in self._batches), initial=0))
        self._first_image = list(
            accumulate((sum(len(group.units) for group in groups) * cells for groups in self._groups), initial=0)
        )

    def __len__(self) -> int:
        """How many batches there are."""
        return self._first_batch[-1]

    def __iter__(self) -> Iterator[Batch]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Batch:
        concept, cell, group, start, _ = self._place(number)
        units, positions = self._groups[concept][group]
        return Batch(concept, self._plan.cells[cell], tuple(units[start : start + self._size]), positions)

    def rows(self, number: int) -> slice:
        """Which of all images in order a batch has."""
        concept, _, group, start, before = self._place(number)
        of_group = len(self._groups[concept][group].units)
        return slice(before + start, before + min(start + self._size, of_group))

    def _place(self, number: int) -> tuple[int, int, int, int, int]:
        """Concept, cell, group and the first unit in it; and how many images come before those of the group."""
        concept = bisect_right(self._first_batch, number) - 1
        batches = self._batches[concept]
        cell, rest = divmod(number - self._first_batch[concept], sum(batches))
        before = self._first_image[concept] + cell * sum(len(group.units) for group in self._groups[concept])
        group = 0
        while rest >= batches[group]:
            rest -= batches[group]
            before += len(self._groups[concept][group].units)
            group += 1
        return concept, cell, group, rest * self._size, before


def _groups(maps: Sequence[TokenMap], seeds: int) -> list[_Group]:
    """The cases of a concept that can be made together."""
    for tokens in maps:
        if not tokens.words:
            raise HRVError(f"The prompt {quoted(tokens.text)} has no words that could be weakened.")

    def places(case: int) -> tuple[int, tuple[int, ...]]:
        return maps[case].length, maps[case].content_positions

    return [
        _Group([(case, seed) for case in those for seed in range(seeds)], positions)
        for (_, positions), those in groupby(sorted(range(len(maps)), key=places), key=places)
    ]
