"""The grid of an analysis: every image once, in an order that saved states rely on, without listing all of it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import pytest
from hrv_pack.host.weakening.grid import Batch, Grid, WeakeningSettings
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.prompts.tokens import PromptWord, TokenMap
from hrv_pack.hrv.weakening.plan import UNWEAKENED, Plan


def prompt(*lengths: int) -> TokenMap:
    """A prompt whose words have so many tokens each."""
    words, place = [], 1
    for length in lengths:
        words.append(PromptWord("word", tuple(range(place, place + length))))
        place += length
    return TokenMap("a prompt", tuple(words), 77)


def settings(seeds: int, batch_size: int) -> WeakeningSettings:
    return WeakeningSettings(tuple(range(5, 5 + seeds)), 2, 4.0, "euler", "normal", 64, 64, batch_size)


def whole_grid(maps: Sequence[Sequence[TokenMap]], plan: Plan, asked: WeakeningSettings) -> Grid:
    """All of a plan for every concept, a score for each image."""
    return Grid(maps, [[1] * len(those) for those in maps], [plan.cells] * len(maps), asked)


PLAN = Plan((0, 3, 8), random_orders=1)
MAPS = [[prompt(1, 2), prompt(2), prompt(3), prompt(1, 1)], [prompt(4)], [prompt(2), prompt(5), prompt(2)]]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 256])
def test_batches_are_those_of_loops_over_concepts_cells_and_places(batch_size: int) -> None:
    expected: list[Batch] = []
    for concept, maps in enumerate(MAPS):
        places = [(one.length, one.content_positions) for one in maps]
        for cell in PLAN.cells:
            for (_, positions), cases in groupby(sorted(range(len(maps)), key=places.__getitem__), places.__getitem__):
                units = [(case, seed) for case in cases for seed in range(3)]
                starts = range(0, len(units), batch_size)
                expected.extend(Batch(concept, cell, tuple(units[at : at + batch_size]), positions) for at in starts)
    grid = whole_grid(MAPS, PLAN, settings(3, batch_size))
    assert list(grid) == expected and len(grid) == len(expected)
    ends = 0
    for number, batch in enumerate(expected):
        assert grid.rows(number) == slice(ends, ends + len(batch.units))
        ends += len(batch.units)
    assert grid.images == grid.scores == ends


@pytest.mark.parametrize("batch_size", [1, 2, 3, 256])
def test_images_with_several_scores_and_concepts_with_cells_of_their_own(batch_size: int) -> None:
    numbers = [[2, 1, 4, 3], [5], [1, 1, 2]]
    cells = [[UNWEAKENED, PLAN.cells[2]], [PLAN.cells[2]], PLAN.cells[1:4]]
    grid = Grid(MAPS, numbers, cells, settings(3, batch_size))
    whole = [batch for batch in whole_grid(MAPS, PLAN, settings(3, batch_size)) if batch.cell in cells[batch.concept]]
    assert list(grid) == whole and len(grid) == len(whole)
    ends = 0
    for number, batch in enumerate(whole):
        scores = sum(numbers[batch.concept][case] for case, _ in batch.units)
        assert grid.rows(number) == slice(ends, ends + scores)
        ends += scores
    assert grid.scores == ends and grid.images == 3 * (2 * 4 + 1 + 3 * 3)


def test_a_thousand_seeds_of_a_hundred_prompts_are_refused_at_once_and_a_million_images_are_not_listed() -> None:
    plan = Plan((0, *range(1, 128, 10), 128), random_orders=3)
    with pytest.raises(HRVError, match=r"This analysis has [\d,]+ images .* at most 1,000,000 are allowed"):
        whole_grid([[prompt(2)] * 100], plan, settings(1000, 1))
    grid = whole_grid([[prompt(2)] * 9], plan, settings(1000, 1))
    assert 900_000 < len(grid) == grid.images <= 1_000_000
    assert grid[len(grid) - 1].units == ((8, 999),) and grid.rows(len(grid) - 1).stop == grid.images


def test_prompts_without_words_are_refused() -> None:
    with pytest.raises(HRVError, match="The prompt 'a prompt' has no words"):
        whole_grid([[prompt()]], PLAN, settings(1, 1))
