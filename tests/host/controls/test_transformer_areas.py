"""Prompts for areas and masks of latents with frames, as the host's nodes place them, in models for videos and images.

Of an area the model gets a part of the latent [B, C, T, h, w], of a mask all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from comfy.samplers import KSAMPLER, CFGGuider, calculate_sigmas
from comfy_extras.nodes_video_model import ConditioningSetAreaPercentageVideo
from hrv_pack.host.prompts.carried import Conditioning
from hrv_pack.tests.host.controls.test_transformer_readings import context_of, gates_of, main_rows, reading
from hrv_pack.tests.host.controls.test_transformers import assert_close, controlled, rescaling
from hrv_pack.tests.support.explicit_transformer_readings import ExplicitReading, explicitly_reading
from hrv_pack.tests.support.small_host import TOLERANCE, relative_error
from hrv_pack.tests.support.small_transformers import (
    ANIMA,
    QWEN_IMAGE,
    WAN,
    Kind,
    explicitly,
    prompt,
    rows_of,
    small,
)

from nodes import ConditioningSetArea, ConditioningSetMask

FRAMES, SIDE = 4, 8
WORDS = ("a", "red", "car", "and", "tree")
Place = Callable[[Conditioning], Conditioning]


def of_pixels(*rectangle: int) -> Place:
    """The same in all frames: width, height, x and y in pixels."""
    return lambda conditioning: ConditioningSetArea().append(conditioning, *rectangle, 1.0)[0]


def of_video(*shares: float) -> Place:
    """Shares of width, height and time, and where they begin."""
    return lambda conditioning: ConditioningSetAreaPercentageVideo().append(conditioning, *shares, 0.8)[0]


def of_mask(conditioning: Conditioning) -> Conditioning:
    """The left half of all frames."""
    mask = torch.zeros(1, 8 * SIDE, 8 * SIDE)
    mask[..., : 4 * SIDE] = 1.0
    placed: Conditioning = ConditioningSetMask().append(conditioning, mask, "default", 0.9)[0]
    return placed


# What the model gets of a latent, and where a prompt is used.
PLACES: dict[str, tuple[Place, tuple[int, ...], tuple[slice, slice, slice]]] = {
    "area": (of_pixels(48, 32, 0, 16), (FRAMES, 4, 6), (slice(None), slice(2, 6), slice(0, 6))),
    "area of a video": (of_video(0.5, 0.5, 0.75, 0.5, 0.5, 0.25), (3, 4, 4), (slice(1, 4), slice(4, 8), slice(4, 8))),
    "mask": (of_mask, (FRAMES, SIDE, SIDE), (slice(None), slice(None), slice(0, 4))),
}


# The host takes areas of pixels and of videos in different runs. Two of three have one size, so they share a call.
RUNS: dict[str, tuple[tuple[Place, Place, Place], set[tuple[int, ...]]]] = {
    "areas": (
        (of_pixels(48, 32, 0, 16), of_pixels(48, 32, 16, 32), of_pixels(24, 64, 40, 0)),
        {(FRAMES, 4, 6), (FRAMES, 8, 3)},
    ),
    "areas of a video": (
        (
            of_video(0.5, 0.5, 0.75, 0.5, 0.5, 0.25),
            of_video(0.5, 0.5, 0.75, 0.0, 0.25, 0.0),
            of_video(1.0, 0.75, 0.25, 0.0, 0.0, 0.5),
        ),
        {(3, 4, 4), (1, 6, 8)},
    ),
}


def prompts_of(name: str) -> tuple[Conditioning, list[Conditioning]]:
    """A prompt for the whole latent, and those for the three areas of a run and for a mask, of unlike lengths."""
    tokens = (9, 9, 12, 9)
    own = [
        place(prompt(WORDS, seed=10 + number, tokens=length))
        for number, (place, length) in enumerate(zip((*RUNS[name][0], of_mask), tokens, strict=True))
    ]
    return prompt(WORDS, seed=1, tokens=12), own


def joined(conditionings: Sequence[Conditioning]) -> Conditioning:
    return [entry for conditioning in conditionings for entry in conditioning]


def with_frames(kind: Kind) -> Kind:
    return replace(kind, latent=(kind.latent[0], FRAMES, SIDE, SIDE))


each_kind = pytest.mark.parametrize("kind", list(map(with_frames, (WAN, ANIMA, QWEN_IMAGE))), ids=str)
each_run = pytest.mark.parametrize("name", RUNS)
each_place = pytest.mark.parametrize("name", PLACES)


def prediction(model: Any, positive: Conditioning, negative: Conditioning, kind: Kind) -> torch.Tensor:
    """What a sampler gets of a run's first evaluation, two rows [B, C, T, h, w]."""
    found: list[torch.Tensor] = []

    def evaluate(model_k: Any, x: Any, sigmas: Any, extra_args: Any, callback: Any, disable: Any) -> Any:
        found.append(model_k(x, sigmas[:1].expand(len(x)), **extra_args))
        return x

    guider = CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(4.0)
    noise = torch.randn(2, *kind.latent, generator=torch.Generator().manual_seed(5))
    sigmas = calculate_sigmas(model.get_model_object("model_sampling"), "normal", 2)
    with torch.inference_mode():
        guider.sample(noise, torch.zeros_like(noise), KSAMPLER(evaluate), sigmas, disable_pbar=True, seed=5)
    return found[0]


def assert_changed_within(found: torch.Tensor, plain: torch.Tensor, place: Sequence[slice]) -> None:
    """Every position of the place and none beside it, in every row."""
    there = torch.zeros(found.shape[2:], dtype=torch.bool)
    there[tuple(place)] = True
    for one, without in zip(found, plain, strict=True):
        assert torch.equal((one != without).any(0), there)


@each_kind
@each_run
def test_controls_of_areas_and_masks_are_what_explicit_maps_give(kind: Kind, name: str) -> None:
    model, negative = small(kind), prompt(("ugly",), seed=2)
    run: dict[str, Any] = {"latent": kind.latent, "seeds": (5, 6)}
    background, own = prompts_of(name)
    plain = rows_of(model, [*background, *joined(own)], negative, **run)
    assert {tuple(row.output.shape[1:]) for row in plain} == {*RUNS[name][1], kind.latent[1:]}
    graph, shall, positive = model, [], [*background]
    for conditioning, word, position, concept in zip(
        own, ("car", "tree", "red", "and"), (3, 5, 2, 4), ("Color", "Shape", "Size", "Color"), strict=True
    ):
        graph, made = controlled(graph, conditioning, [word], concept=concept)
        positive += made
        row = next(row for row in plain if torch.equal(row.context, conditioning[0][0][0]))
        shall.append(rescaling(model, row, (position,), concept))
    found = rows_of(graph, positive, negative, **run)
    with explicitly(model, kind, shall) as explicit:
        assert_close(found, rows_of(explicit, positive, negative, **run))
    of_background = [torch.equal(row.context, background[0][0][0]) for row in plain]
    assert sum(of_background) == 4
    for one, other, is_background in zip(found, plain, of_background, strict=True):
        assert torch.equal(one.output, other.output) == (one.negative or is_background)


@each_kind
@each_place
def test_a_control_changes_its_place_alone(kind: Kind, name: str) -> None:
    place, _, where = PLACES[name]
    model, own, negative = small(kind), place(prompt(WORDS, seed=1)), prompt(("ugly",), seed=2)
    background = prompt(WORDS, seed=3, tokens=12)
    plain = prediction(model, [*own, *background], negative, kind)
    graph, made = controlled(model, own, ["car"])
    assert_changed_within(prediction(graph, [*made, *background], negative, kind), plain, where)
    graph, made = controlled(model, own, ["car"], strength=0.0)
    assert torch.equal(prediction(graph, [*made, *background], negative, kind), plain)


@each_kind
def test_a_control_of_the_negative_prompt_acts_where_an_area_has_it_too(kind: Kind) -> None:
    """The host adds an entry for the area of the other list, with the negative prompt's text."""
    place, shape, _ = PLACES["area of a video"]
    model, own, negative = small(kind), place(prompt(WORDS, seed=1)), prompt(("ugly", "car"), seed=2)
    background = prompt(WORDS, seed=3)
    plain = rows_of(model, [*own, *background], negative, kind.latent)
    graph, made = controlled(model, negative, ["car"])
    found = rows_of(graph, [*own, *background], made, kind.latent)
    shall = [rescaling(model, next(row for row in plain if row.negative), (2,))]
    with explicitly(model, kind, shall) as explicit:
        assert_close(found, rows_of(explicit, [*own, *background], negative, kind.latent))
    assert {tuple(row.output.shape[1:]) for row in found if row.negative} == {shape, kind.latent[1:]}
    for one, other in zip(found, plain, strict=True):
        assert torch.equal(one.output, other.output) != one.negative


@each_kind
@each_run
def test_prompts_of_areas_and_masks_read_others(kind: Kind, name: str) -> None:
    """Longer ones, a shorter one and one of the same length, and the negative prompt reads one as well."""
    model, negative = small(kind), prompt(("ugly",), seed=2)
    run: dict[str, Any] = {"latent": kind.latent, "seeds": (5, 6)}
    background, own = prompts_of(name)
    others = [prompt(WORDS, seed=20 + number, tokens=tokens) for number, tokens in enumerate((14, 7, 12, 11))]
    contexts = [context_of(model, kind, other) for other in others]
    graph, shall, positive = model, [], [*background]
    for number, (conditioning, other) in enumerate(zip(own, others, strict=True)):
        graph, made = reading(graph, conditioning, other, gates_of(model, seed=number))
        positive += made
        shall.append(ExplicitReading(conditioning[0][0][0], contexts[number], gates_of(model, seed=number)))
    graph, negative_reads = reading(graph, negative, others[0], gates_of(model, seed=4))
    shall.append(ExplicitReading(negative[0][0][0], contexts[0], gates_of(model, seed=4)))
    plain = rows_of(model, [*background, *joined(own)], negative, **run)
    found = main_rows(rows_of(graph, positive, negative_reads, **run), *contexts)
    with explicitly_reading(model, kind, shall) as explicit:
        expected = main_rows(rows_of(explicit, positive, negative, **run), *contexts)
    assert len(found) == len(expected) == len(plain)
    for one, other_one, without in zip(found, expected, plain, strict=True):
        assert (one.step, one.negative) == (other_one.step, other_one.negative) == (without.step, without.negative)
        assert torch.equal(one.context, without.context)
        if torch.equal(one.context, background[0][0][0]):
            assert torch.equal(one.output, without.output)
        else:
            assert relative_error(one.output, other_one.output) <= TOLERANCE
            assert relative_error(one.output, without.output) > 10 * TOLERANCE


@each_kind
@each_place
def test_a_reading_changes_its_place_alone(kind: Kind, name: str) -> None:
    place, _, where = PLACES[name]
    model, own, negative = small(kind), place(prompt(WORDS, seed=1)), prompt(("ugly",), seed=2)
    background, other = prompt(WORDS, seed=3, tokens=12), prompt(WORDS, seed=4, tokens=7)
    plain = prediction(model, [*own, *background], negative, kind)
    graph, made = reading(model, own, other, gates_of(model))
    assert_changed_within(prediction(graph, [*made, *background], negative, kind), plain, where)
    graph, made = reading(model, own, other, gates_of(model), strength=0.0)
    assert torch.equal(prediction(graph, [*made, *background], negative, kind), plain)
