"""The grid of an ordered weakening analysis: batches of images that are made together."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, groupby
from typing import NamedTuple

from ...hrv.errors import HRVError, listed, quoted
from ...hrv.prompts.tokens import TokenMap
from ...hrv.weakening.plan import Cell

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
    """The images of cases whose words are at the same positions: (case, seed) numbers.

    ``ends`` has how many scores there are before each image, and behind the last.
    """

    units: list[tuple[int, int]]
    positions: tuple[int, ...]
    ends: list[int]


class Grid:
    """The batches of an analysis in order: concept by concept, cell by cell. Each is made when it is asked for.

    ``maps`` are the token maps of every concept's cases, ``numbers`` how many scores an image of each case has, and
    ``cells`` what is done to each concept's cases. Raises HRVError for a prompt without words, and for more than
    :data:`MOST_IMAGES`.
    """

    def __init__(
        self,
        maps: Sequence[Sequence[TokenMap]],
        numbers: Sequence[Sequence[int]],
        cells: Sequence[Sequence[Cell]],
        settings: WeakeningSettings,
    ):
        seeds = len(settings.seeds)
        self.images = seeds * sum(len(its) * len(those) for its, those in zip(cells, maps, strict=True))
        if self.images > MOST_IMAGES:
            raise HRVError(
                f"This analysis has {self.images:,} images ({len({*chain(*cells)})} numbers and orders of heads, "
                f"{seeds} seeds, {sum(map(len, maps))} prompts); at most {MOST_IMAGES:,} are allowed. "
                "Take fewer seeds, prompts, random orders or numbers of heads."
            )
        self._cells, self._size = cells, settings.batch_size
        self._groups = [_groups(*those, seeds) for those in zip(maps, numbers, strict=True)]
        # Of every concept: how many batches each group has in a cell, and how many batches and scores come before it.
        self._batches = [[-(-len(group.units) // self._size) for group in groups] for groups in self._groups]
        self._first_batch = _starts(sum(batches) * len(its) for batches, its in zip(self._batches, cells, strict=True))
        self._first_score = _starts(_scores(groups) * len(its) for groups, its in zip(self._groups, cells, strict=True))

    @property
    def scores(self) -> int:
        """How many scores all images have."""
        return self._first_score[-1]

    def __len__(self) -> int:
        """How many batches there are."""
        return self._first_batch[-1]

    def __iter__(self) -> Iterator[Batch]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Batch:
        concept, cell, group, start, _ = self._place(number)
        units, positions, _ = self._groups[concept][group]
        return Batch(concept, self._cells[concept][cell], tuple(units[start : start + self._size]), positions)

    def of_concept(self, concept: int) -> range:
        """The numbers of a concept's batches."""
        return range(*self._first_batch[concept : concept + 2])

    def rows(self, number: int) -> slice:
        """Which of all scores in order are those of a batch."""
        concept, _, group, start, before = self._place(number)
        ends = self._groups[concept][group].ends
        return slice(before + ends[start], before + ends[min(start + self._size, len(ends) - 1)])

    def _place(self, number: int) -> tuple[int, int, int, int, int]:
        """Concept, cell, group and the first unit in it; and how many scores come before those of the group."""
        concept = bisect_right(self._first_batch, number) - 1
        batches, groups = self._batches[concept], self._groups[concept]
        cell, rest = divmod(number - self._first_batch[concept], sum(batches))
        before = self._first_score[concept] + cell * _scores(groups)
        group = 0
        while rest >= batches[group]:
            rest -= batches[group]
            before += groups[group].ends[-1]
            group += 1
        return concept, cell, group, rest * self._size, before


def _starts(numbers: Iterable[int]) -> list[int]:
    """How much comes before each of some numbers of things, and how much there is."""
    return list(accumulate(numbers, initial=0))


def _scores(groups: Sequence[_Group]) -> int:
    """How many scores the images of a cell have."""
    return sum(group.ends[-1] for group in groups)


def _groups(maps: Sequence[TokenMap], numbers: Sequence[int], seeds: int) -> list[_Group]:
    """The cases of a concept that can be made together."""
    for tokens in maps:
        if not tokens.words:
            raise HRVError(f"The prompt {quoted(tokens.text)} has no words that could be weakened.")

    def places(case: int) -> tuple[int, tuple[int, ...]]:
        return maps[case].length, maps[case].content_positions

    found = []
    for (_, positions), those in groupby(sorted(range(len(maps)), key=places), key=places):
        units = [(case, seed) for case in those for seed in range(seeds)]
        found.append(_Group(units, positions, _starts(numbers[case] for case, _ in units)))
    return found
