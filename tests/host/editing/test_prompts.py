"""Edits on real UNets against explicit float64 maps, and whom they must leave alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.hrv.errors import HRVError
from hrv_pack.tests.support.explicit_edits import (
    ChangeCross,
    empty_latent,
    prompt_edit,
    with_explicit_edits,
    words_edit,
)
from hrv_pack.tests.support.small_host import (
    TOLERANCE,
    Setup,
    UNetRow,
    assert_rows_close,
    encoded,
    relative_error,
    unet_rows,
)

SOURCE = "a red car and a tree"
PROMPT = SOURCE


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


def by_concept(
    setup: Setup, words: dict[int, float], moved: dict[int, dict[int, float]], end: float = 0.6, **how: Any
) -> ChangeCross:
    """Columns ``words`` are the target's own, scaled by a concept's heads and a weight; the others as ``moved``."""
    row = torch.from_numpy(setup.hrv.row(how.get("concept", "Color")).astype("float64"))
    factors = 1 + how.get("strength", 1.0) * (row.clamp_max(how.get("clamp", torch.inf)) - 1)

    def change(source: torch.Tensor, own: torch.Tensor, heads: slice, progress: float) -> torch.Tensor:
        if progress >= end:
            return own
        maps = columns(moved)(source, own)
        for word, weight in words.items():
            maps[..., word] = weight * factors[heads, None] * own[..., word]
        return maps

    return change


@pytest.mark.parametrize("kind", ["sd15", "sd20", "sdxl"])
def test_changed_words_keep_their_own_maps_by_the_heads_of_a_concept(request: pytest.FixtureRequest, kind: str) -> None:
    setup = request.getfixturevalue(kind)
    target = encoded(setup.clip, "a blue car and a house")
    edited = prompt_edit(setup.model, setup.prompt, target, cross_end=0.6, hrv=setup.hrv, concept="Color")
    found = sampled(setup, edited)
    exact = with_explicit_edits(setup.model, {1: by_concept(setup, {2: 1.0, 6: 1.0}, EVERYTHING)})
    assert_rows_close(found, sampled(setup, edited, exact))
    assert_only_edits_change(setup, edited, found)


def test_a_new_word_follows_the_concept_too(sd15: Setup) -> None:
    source, target = (encoded(sd15.clip, text) for text in ("a red tower", "a shiny red tower"))
    how: dict[str, Any] = {"concept": "Shape", "strength": 0.5, "clamp": 1.5}
    edited = prompt_edit(sd15.model, source, target, cross_end=0.6, hrv=sd15.hrv, **how)
    exact = with_explicit_edits(sd15.model, {1: by_concept(sd15, {2: 1.0}, ADDED, **how)})
    assert_rows_close(sampled(sd15, edited), sampled(sd15, edited, exact))


def test_words_may_have_a_concept_a_weight_and_a_window_of_their_own(sd15: Setup) -> None:
    target = encoded(sd15.clip, "a blue car and a house")
    target = words_edit(target, "blue", hrv=sd15.hrv, concept="Color", weight=1.5, end=0.9)
    target = words_edit(target, "house", end=0.3)
    target = words_edit(target, "car", weight=-0.5)
    edited = prompt_edit(sd15.model, sd15.prompt, target, cross_end=0.6)

    def change(source: torch.Tensor, own: torch.Tensor, heads: slice, progress: float) -> torch.Tensor:
        maps = (source if progress < 0.6 else own).clone()
        maps[..., 6] = (source if progress < 0.3 else own)[..., 6]
        if progress < 0.6:
            maps[..., 3] *= -0.5
        row = torch.from_numpy(sd15.hrv.row("Color").astype("float64"))[heads, None]
        maps[..., 2] = own[..., 2] * (1.5 * row if progress < 0.9 else 1.0)
        return maps

    exact = with_explicit_edits(sd15.model, {1: change})
    assert_rows_close(sampled(sd15, edited), sampled(sd15, edited, exact))


@pytest.mark.parametrize("weight", [2.0, 0.0, -1.0])
def test_reweighting_scales_the_columns_of_words(sd15: Setup, weight: float) -> None:
    target = words_edit(encoded(sd15.clip, SOURCE), "red car", weight=weight)
    edited = prompt_edit(sd15.model, sd15.prompt, target, cross_end=0.6)
    moved = {**EVERYTHING, 2: {2: weight}, 3: {3: weight}}
    found = sampled(sd15, edited)
    assert_rows_close(found, sampled(sd15, edited, with_explicit_edits(sd15.model, {1: until(0.6, columns(moved))})))
    assert_only_edits_change(sd15, edited, found)


@pytest.mark.parametrize(
    ("kind", "size", "positions"),
    [("sd15", 0.25, 16), ("sd15", 1.0, 64), ("sd20", 0.25, 16), ("sdxl", 0.25, 16), ("sdxl", 0.0625, 4)],
)
def test_small_self_attention_is_the_sources(
    request: pytest.FixtureRequest, kind: str, size: float, positions: int
) -> None:
    setup = request.getfixturevalue(kind)
    edited = prompt_edit(setup.model, setup.prompt, encoded(setup.clip, "a blue boat"), self_end=0.6, self_size=size)
    found = sampled(setup, edited)
    exact = with_explicit_edits(setup.model, {1: until(0.0, columns({}))}, self_end=0.6, self_positions=positions)
    assert_rows_close(found, sampled(setup, edited, exact))
    assert_only_edits_change(setup, edited, found)


def test_both_at_once_from_a_later_start(sd15: Setup) -> None:
    target = encoded(sd15.clip, "a blue car and a tree")
    edited = prompt_edit(
        sd15.model, sd15.prompt, target, cross_start=0.2, cross_end=0.9, self_end=0.5, self_size=1.0, hrv=sd15.hrv,
        concept="Size",
    )  # fmt: skip
    inside = by_concept(sd15, {2: 1.0}, EVERYTHING, end=0.9, concept="Size")

    def change(source: torch.Tensor, own: torch.Tensor, heads: slice, progress: float) -> torch.Tensor:
        return own if progress < 0.2 else inside(source, own, heads, progress)

    exact = with_explicit_edits(sd15.model, {1: change}, self_end=0.5, self_positions=64)
    assert_rows_close(sampled(sd15, edited), sampled(sd15, edited, exact))


@pytest.mark.parametrize("kind", ["sd15", "sd20", "sdxl"])
def test_the_same_prompt_twice_is_bit_equal(request: pytest.FixtureRequest, kind: str) -> None:
    setup = request.getfixturevalue(kind)
    edited = prompt_edit(setup.model, setup.prompt, setup.prompt, cross_end=0.6, self_end=0.9, self_size=1.0)
    _, sources, edits = parts(sampled(setup, edited))
    assert_equal(edits, sources)


@pytest.mark.parametrize("kind", ["sd15", "sd20", "sdxl"])
def test_closed_windows_are_plain_sampling_of_the_batch(request: pytest.FixtureRequest, kind: str) -> None:
    setup = request.getfixturevalue(kind)
    target = encoded(setup.clip, "a blue car and a house")
    edited = prompt_edit(setup.model, setup.prompt, target, hrv=setup.hrv, concept="Color")
    found = sampled(setup, edited)
    assert_equal(found, sampled(setup, edited, setup.model))
    # And every row is its prompt, sampled alone.
    for rows, prompt in zip(parts(found)[1:], (setup.prompt, target), strict=True):
        alone = [row for row in unet_rows(setup.model, prompt, setup.negative, steps=4) if not row.negative]
        assert_rows_close(rows, alone)


LONG_TARGET = "a red car" + " very" * 80 + " and a tree"


def by_token(change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], own_tokens: int = 77) -> Any:
    """A change for maps whose source's tokens are repeated: their copies count together."""

    def all_copies(source: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        return change(source.unflatten(-1, (-1, own_tokens)).sum(-2), own)

    return all_copies


def test_prompts_of_several_chunks(sd15: Setup) -> None:
    target = encoded(sd15.clip, LONG_TARGET)
    edited = prompt_edit(sd15.model, sd15.prompt, target, cross_end=0.6)
    assert edited[1][0][0].shape[:2] == (2, 154)
    # The second chunk starts at 77 and ends at 89; behind its start are words again.
    moved = {
        **{place: {0: 0.5} for place in (0, 77)},
        **same((1, 2, 3)),
        **same((86, 87, 88), shift=82),
        **{place: {7 + number: 1.0} for number, place in enumerate((76, *range(89, 153)))},
        153: dict.fromkeys(range(72, 77), 1.0),
    }
    found = sampled(sd15, edited)
    exact = with_explicit_edits(sd15.model, {1: until(0.6, by_token(columns(moved)))})
    assert_rows_close(found, sampled(sd15, edited, exact))
    closed = prompt_edit(sd15.model, sd15.prompt, target)
    for rows, prompt in zip(parts(sampled(sd15, closed))[1:], (sd15.prompt, target), strict=True):
        alone = [row for row in unet_rows(sd15.model, prompt, sd15.negative, steps=4) if not row.negative]
        for one, other in zip(rows, alone, strict=True):
            assert relative_error(one.output, other.output) <= TOLERANCE


def test_a_word_by_more_words_than_a_chunk_has_tokens(sd15: Setup) -> None:
    """They share what the word got, in both chunks."""
    source, target = (encoded(sd15.clip, text) for text in ("a car", "a" + " very" * 80 + " big boat"))
    edited = prompt_edit(sd15.model, source, target, cross_end=0.6)
    assert "(1 to 82 tokens)" in edited[-1]
    # 75 tokens to a chunk: one and 74 words of the 82, then start, the other 8, end and padding.
    swapped = [*range(2, 76), *range(78, 86)]
    tail = {place: {3 + number: 1.0} for number, place in enumerate((76, *range(86, 153)))}
    moved = {
        **{place: {0: 0.5} for place in (0, 77)},
        1: {1: 1.0},
        **{place: {2: 1 / 82} for place in swapped},
        **tail,
        153: dict.fromkeys(range(3 + len(tail), 77), 1.0),
    }
    exact = with_explicit_edits(sd15.model, {1: until(0.6, by_token(columns(moved)))})
    assert_rows_close(sampled(sd15, edited), sampled(sd15, edited, exact))


def test_more_edited_words_than_the_prompt_has(sd15: Setup) -> None:
    """Phrases that overlap mean each word once; what is not there is refused with what is."""
    target = encoded(sd15.clip, "a blue car")
    source = encoded(sd15.clip, "a red car")
    once, often = (
        prompt_edit(sd15.model, source, words_edit(target, words, weight=2.0), cross_end=0.6)
        for words in ("a blue car", "a, blue, car, blue car, a blue, a blue car")
    )
    assert_equal(sampled(sd15, often), sampled(sd15, once))
    with pytest.raises(HRVError, match=r'does not contain "blue car and a tree"\. Its words are: "a", "blue", "car"'):
        words_edit(target, "blue car and a tree", weight=2.0)


@pytest.mark.parametrize("concept", [None, "Color"])
def test_attention_is_called_at_most_twice_for_an_edited_row(sd15: Setup, concept: str | None) -> None:
    """Once for the batch, and where words keep their own maps once more for the edited rows alone."""
    calls: list[tuple[Any, bool, int]] = []

    def counting(function: Any, q: Any, k: Any, v: Any, heads: int, *args: Any, **kwargs: Any) -> Any:
        options = kwargs["transformer_options"]
        calls.append(((*options["block"], options["block_index"]), k.shape[1] == 77, len(q)))
        return function(q, k, v, heads, *args, **kwargs)

    extra = {} if concept is None else {"hrv": sd15.hrv, "concept": concept}
    one, other = (encoded(sd15.clip, text) for text in ("a blue car and a tree", "a green car and a tree"))
    settings: dict[str, Any] = {"cross_end": 1.0, "self_end": 1.0, "self_size": 1.0, **extra}
    model, positive, latent, _ = prompt_edit(sd15.model, sd15.prompt, one, **settings)
    edited = prompt_edit(model, positive, other, latent, **settings)
    counted = edited[0].clone()
    counted.model_options["transformer_options"]["optimized_attention_override"] = counting
    rows = sampled(sd15, edited, counted)
    # A source and two edits, and as many negatives.
    evaluations = len(rows) // 6
    for layer in head_layout(sd15.model).layers:
        in_self, in_cross = (
            [count for key, is_cross, count in calls if key == layer.key and is_cross == wanted]
            for wanted in (False, True)
        )
        assert sum(in_self) == 6 * evaluations
        assert sum(in_cross) == (6 if concept is None else 8) * evaluations


def test_a_longer_negative_makes_no_difference(sd15: Setup) -> None:
    """The host repeats the edited prompts; each copy of a column has its share."""
    long = replace(sd15, negative=encoded(sd15.clip, "ugly " * 100))
    edited = prompt_edit(sd15.model, sd15.prompt, encoded(sd15.clip, "a blue car and a tree"), cross_end=0.6)
    found = sampled(long, edited)
    assert all(len(row.context) == 154 for row in found)
    short = parts(sampled(sd15, edited))
    for ours, theirs in zip(parts(found)[1:], short[1:], strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert relative_error(one.output, other.output) <= TOLERANCE
    assert_equal(parts(found)[0], parts(sampled(long, edited, sd15.model))[0])


def test_several_targets_and_several_seeds(sd15: Setup) -> None:
    blue, boat = (encoded(sd15.clip, text) for text in ("a blue car and a tree", "a red boat and a tree"))
    settings = {"cross_end": 0.6, "self_end": 0.4, "self_size": 1.0}
    model, positive, rows, _ = prompt_edit(sd15.model, sd15.prompt, blue, empty_latent(2), **settings)
    both = prompt_edit(model, positive, boat, rows, hrv=sd15.hrv, concept="Shape", **settings)
    assert both[2]["batch_index"] == [0, 0, 0, 1, 1, 1]
    found = sampled(sd15, both)
    exact = with_explicit_edits(
        sd15.model,
        {1: until(0.6, columns(EVERYTHING)), 2: by_concept(sd15, {3: 1.0}, EVERYTHING, concept="Shape")},
        self_end=0.4,
        self_positions=64,
        group=3,
    )
    assert_rows_close(found, sampled(sd15, both, exact))
    # An edit does not depend on the other one.
    alone = parts(sampled(sd15, prompt_edit(sd15.model, sd15.prompt, blue, empty_latent(2), **settings)))[2]
    first = [row for number, row in enumerate(row for row in found if not row.negative) if number % 3 == 1]
    for one, other in zip(first, alone, strict=True):
        assert relative_error(one.output, other.output) <= TOLERANCE


def test_a_target_of_an_edited_source_meets_an_hrv_of_another_model(sd15: Setup, sdxl: Setup) -> None:
    target = encoded(sd15.clip, "a blue car and a tree")
    with pytest.raises(HRVError, match=r"another kind of model"):
        prompt_edit(sd15.model, sd15.prompt, target, hrv=sdxl.hrv, concept="Color")
    with pytest.raises(HRVError, match=r"edit by Color was made for 19 heads .* this model has 56"):
        prompt_edit(sd15.model, sd15.prompt, words_edit(target, "blue", hrv=sdxl.hrv, concept="Color"))
