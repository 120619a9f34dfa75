"""Edits on real UNets against explicit float64 maps, and whom they must leave alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hrv_pack.host.head_layout import head_layout
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.vectors import HRV
from hrv_pack.nodes.editing import EditWords, PromptEdit
from hrv_pack.tests.host.explicit_edits import ChangeCross, with_explicit_edits
from hrv_pack.tests.host.small_host import (
    UNetRow,
    encoded,
    random_hrv,
    relative_error,
    small_clip_sd15,
    small_clip_sdxl,
    small_sd15,
    small_sdxl,
    unet_rows,
)

TOLERANCE = 1e-5
SOURCE = "a red car and a tree"


@dataclass(frozen=True)
class Setup:
    """A kind of model with what is encoded for it."""

    model: Any
    clip: Any
    hrv: HRV
    source: Any = field(init=False)
    negative: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", encoded(self.clip, SOURCE))
        object.__setattr__(self, "negative", encoded(self.clip, "ugly, blurry"))


@pytest.fixture(scope="module")
def sd15() -> Setup:
    model = small_sd15()
    return Setup(model, small_clip_sd15(), random_hrv(head_layout(model)))


@pytest.fixture(scope="module")
def sdxl() -> Setup:
    model = small_sdxl()
    return Setup(model, small_clip_sdxl(), random_hrv(head_layout(model)))


def latent(rows: int = 1, size: int = 8) -> dict[str, Any]:
    return {"samples": torch.zeros(rows, 4, size, size)}


def prompt_edit(model: Any, source: Any, target: Any, picture: Any = None, **settings: Any) -> tuple[Any, ...]:
    """What Prompt Edit gives; windows are closed and lists empty unless said."""
    defaults = {
        "pairs": "",
        "cross_end": 0.0,
        "self_end": 0.0,
        "clamp": 0.0,
        "cross_start": 0.0,
        "self_start": 0.0,
        "self_size": 1 / 16,
    }
    return PromptEdit.execute(model, source, target, picture or latent(), **{**defaults, **settings}).result


def words_edit(target: Any, words: str, **settings: Any) -> Any:
    """What Edit Words gives."""
    defaults = {"weight": 1.0, "start": 0.0, "end": -1.0, "clamp": 0.0}
    return EditWords.execute(target, words, **{**defaults, **settings}).result[0]


def columns(moved: dict[int, dict[int, float]]) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Maps of the target whose column t is the sum of the source's columns in ``moved[t]``; others are its own."""

    def change(source: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        maps = own.clone()
        for target, shares in moved.items():
            maps[..., target] = sum(share * source[..., column] for column, share in shares.items())
        return maps

    return change


def until(end: float, change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> ChangeCross:
    return lambda source, own, heads, progress: change(source, own) if progress < end else own


def same(places: Sequence[int], shift: int = 0) -> dict[int, dict[int, float]]:
    """Target columns at ``places`` that are the source's column ``shift`` before them."""
    return {place: {place - shift: 1.0} for place in places}


# Start, six words, then end and padding.
EVERYTHING = same(range(77))

# a red | skyscrapers, three tokens | end and padding: the last takes what is left over.
LONGER_WORD = {
    **same(range(3)),
    **{place: {3: 1 / 3} for place in (3, 4, 5)},
    **same(range(6, 76), shift=2),
    76: {74: 1.0, 75: 1.0, 76: 1.0},
}
SHORTER_WORD = {
    **same(range(3)),
    3: {3: 1.0, 4: 1.0, 5: 1.0},
    **same(range(4, 74), shift=-2),
    **{place: {76: 1 / 3} for place in (74, 75, 76)},
}
# a | shiny, new | red tower | end and padding.
ADDED = {**same(range(2)), **same(range(3, 76), shift=1), 76: {75: 1.0, 76: 1.0}}
REMOVED = {**same(range(2)), **same(range(2, 75), shift=-1), 75: {76: 0.5}, 76: {76: 0.5}}

REPLACEMENTS = {
    "a word": (SOURCE, "a blue car and a tree", EVERYTHING),
    "every word but one": (SOURCE, "one green boat in the tree", EVERYTHING),
    "the same prompt": (SOURCE, SOURCE, EVERYTHING),
    "a word by one of three tokens": ("a red tower", "a red skyscrapers", LONGER_WORD),
    "a word of three tokens by one": ("a red skyscrapers", "a red tower", SHORTER_WORD),
    "a new word": ("a red tower", "a shiny red tower", ADDED),
    "a word that is gone": ("a shiny red tower", "a red tower", REMOVED),
    "capitals": (SOURCE, "A Red CAR and a house", EVERYTHING),
}


def assert_rows_close(found: Sequence[UNetRow], expected: Sequence[UNetRow]) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert (one.step, one.negative) == (other.step, other.negative)
        assert torch.equal(one.context, other.context)
        assert relative_error(one.output, other.output) <= TOLERANCE


def assert_equal(found: Sequence[UNetRow], expected: Sequence[UNetRow]) -> None:
    assert len(found) == len(expected) > 0
    assert all(torch.equal(one.output, other.output) for one, other in zip(found, expected, strict=True))


def sampled(setup: Setup, edited: tuple[Any, ...], model: Any = None, **settings: Any) -> list[UNetRow]:
    """The rows of a run as the edit's outputs say, or with another model."""
    own, positive, rows, _ = edited
    seeds = [5 + number for number in rows["batch_index"]]
    return unet_rows(model or own, positive, setup.negative, seeds=seeds, steps=4, **settings)


def parts(rows: Sequence[UNetRow], group: int = 2) -> tuple[list[UNetRow], list[UNetRow], list[UNetRow]]:
    """Negative rows, sources and edits."""
    negatives, positives = ([row for row in rows if row.negative is negative] for negative in (True, False))
    places = {id(row): number % group for number, row in enumerate(positives)}
    return (
        negatives,
        [row for row in positives if places[id(row)] == 0],
        [row for row in positives if places[id(row)] > 0],
    )


def assert_only_edits_change(setup: Setup, edited: tuple[Any, ...], found: list[UNetRow], **settings: Any) -> None:
    """Against plain sampling of the same batch, and that edits do change."""
    plain = sampled(setup, edited, setup.model, **settings)
    for ours, theirs in list(zip(parts(found), parts(plain), strict=True))[:2]:
        assert_equal(ours, theirs)
    pairs = zip(parts(found)[2], parts(plain)[2], strict=True)
    assert any(relative_error(one.output, other.output) > 100 * TOLERANCE for one, other in pairs)


@pytest.mark.parametrize("case", REPLACEMENTS.values(), ids=REPLACEMENTS.keys())
def test_a_target_has_the_maps_of_its_source(sd15: Setup, case: tuple[str, str, Any]) -> None:
    source, target, moved = case
    edited = prompt_edit(sd15.model, encoded(sd15.clip, source), encoded(sd15.clip, target), cross_end=0.6)
    found = sampled(sd15, edited)
    exact = with_explicit_edits(sd15.model, {1: until(0.6, columns(moved))})
    assert_rows_close(found, sampled(sd15, edited, exact))
    if source != target:
        assert_only_edits_change(sd15, edited, found)
