"""Edits that keep to a place: against masks made from explicit float64 maps."""

from __future__ import annotations

from typing import Any

import comfy.latent_formats
import pytest
import torch
import torch.nn.functional as F
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.hrv.errors import HRVError
from hrv_pack.nodes.local_blend import EditMask, LocalBlend
from hrv_pack.tests.host.editing.test_run import EMPTY, OPEN, SOURCE, sample
from hrv_pack.tests.support.explicit_edits import prompt_edit
from hrv_pack.tests.support.small_host import (
    encoded,
    explicit_maps,
    relative_error,
)

from nodes import KSampler, LatentFromBatch

TARGET = "a red skyscrapers and a tree"
# Where the changed word is in both prompts; CLIP has three tokens for "skyscrapers".
CAR, SKYSCRAPERS, TREE, TARGETS_TREE = (3,), (3, 4, 5), (6,), (8,)


@pytest.fixture(scope="module")
def source(clip: Any) -> Any:
    return encoded(clip, SOURCE)


@pytest.fixture(scope="module")
def edited(model: Any, clip: Any, source: Any) -> tuple[Any, ...]:
    return prompt_edit(model, source, encoded(clip, TARGET), **OPEN)


@pytest.fixture(scope="module")
def negative(clip: Any) -> Any:
    return encoded(clip, "ugly, blurry")


def blended(edited: tuple[Any, ...], words: str = "", **settings: Any) -> tuple[Any, Any]:
    """What Local Blend gives."""
    defaults = {"threshold": 0.3, "start": 0.2, "end": 1.0, "size": 1.0}
    return LocalBlend.execute(edited[1], edited[2], words, **{**defaults, **settings}).result


def made(model: Any, positive: Any, negative: Any, latent: Any, **settings: Any) -> Any:
    """The LATENT that the host's KSampler gives."""
    defaults = {"seed": 3, "steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal"}
    return KSampler().sample(
        model, **{**defaults, **settings}, positive=positive, negative=negative, latent_image=latent
    )[0]


def watching(model: Any, places: tuple[tuple[int, ...], tuple[int, ...]], size: int, sums: torch.Tensor) -> Any:
    """A clone that adds up the explicit attention of a pair of rows to tokens in layers of ``size`` x ``size``."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
        maps = explicit_maps(q, k, extra["n_heads"])
        first = extra["cond_or_uncond"].index(0) * 2
        if q.shape[1] == size * size:
            for side, tokens in enumerate(places):
                sums[side] += maps[first + side][..., list(tokens)].sum(-1).mean(0).view(size, size)
        values = v.double().unflatten(-1, (extra["n_heads"], -1)).transpose(1, 2)
        return (maps @ values).transpose(1, 2).flatten(2).to(q.dtype)

    clone = model.clone()
    for layer in head_layout(model).layers:
        clone.set_model_attn2_replace(attend, *layer.key)
    return clone


def mask_of(sums: torch.Tensor, threshold: float) -> torch.Tensor:
    """Neighbours count, each side has its own maximum, and either may say that a place is inside."""
    padded = F.pad(sums, (1, 1, 1, 1), value=-1.0)
    spread = padded.unfold(1, 3, 1).unfold(2, 3, 1).amax((-2, -1))
    there = F.interpolate(spread[None], size=(8, 8), mode="bilinear")[0]
    return (there > threshold * there.amax((-2, -1), keepdim=True)).any(0)


@pytest.mark.parametrize(
    ("words", "places", "size", "side"),
    [
        ("", (CAR, SKYSCRAPERS), 1.0, 8),
        ("tree", (TREE, TARGETS_TREE), 0.25, 4),
        ("red car, tree", ((2, 3, 6), TARGETS_TREE), 1.0, 8),
    ],
)
def test_outside_the_mask_the_edit_is_its_source(
    model: Any, source: Any, edited: tuple[Any, ...], negative: Any, words: str, places: Any, size: float, side: int
) -> None:
    sums = torch.zeros(2, side, side, dtype=torch.float64)
    threshold = 0.8
    positive, rows = blended(edited, words, size=size, threshold=threshold, start=0.0)
    watched = prompt_edit(watching(model, places, side, sums), source, source)[0]
    latent = made(watched, positive, negative, rows)
    inside = mask_of(sums, threshold)
    assert 0 < inside.sum() < 64
    mask = EditMask.execute(latent).result[0]
    assert torch.equal(mask, inside.float()[None].repeat_interleave(8, -1).repeat_interleave(8, -2))
    one, other = latent["samples"]
    assert relative_error(other[:, ~inside], one[:, ~inside]) <= 1e-5
    assert relative_error(other[:, inside], one[:, inside]) > 0.01
    alone = sample(model, source, negative, EMPTY)
    assert relative_error(latent["samples"][:1], alone) <= 1e-4


def test_a_mask_has_the_pixels_that_the_models_latents_show(edited: tuple[Any, ...], negative: Any) -> None:
    class Coarse(comfy.latent_formats.SD15):
        spacial_downscale_ratio = 16

    positive, rows = blended(edited, threshold=0.8)
    fine, coarse = edited[0], edited[0].clone()
    coarse.add_object_patch("latent_format", Coarse())
    masks = [EditMask.execute(made(model, positive, negative, rows)).result[0] for model in (fine, coarse)]
    assert torch.equal(masks[1], masks[0].repeat_interleave(2, -1).repeat_interleave(2, -2))


@pytest.mark.parametrize("settings", [{"threshold": 0.0}, {"start": 1.0}, {"start": 0.5, "end": 0.5}])
def test_a_blend_that_keeps_nothing_is_none(edited: tuple[Any, ...], negative: Any, settings: dict[str, Any]) -> None:
    plain = made(edited[0], edited[1], negative, edited[2])["samples"]
    found = made(edited[0], *blended(edited, **settings)[:1], negative, blended(edited)[1])["samples"]
    assert torch.equal(found, plain)


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "dpmpp_sde", "uni_pc"])
def test_every_kind_of_sampler_ends_with_it(edited: tuple[Any, ...], negative: Any, sampler: str) -> None:
    positive, rows = blended(edited, threshold=0.8)
    latent = made(edited[0], positive, negative, rows, sampler_name=sampler)
    inside = EditMask.execute(latent).result[0][0, ::8, ::8].bool()
    one, other = latent["samples"]
    assert relative_error(other[:, ~inside], one[:, ~inside]) <= 1e-4
    assert relative_error(other, one) > 0.01


def test_a_mask_belongs_to_one_run(edited: tuple[Any, ...], negative: Any) -> None:
    positive, rows = blended(edited, threshold=0.8)
    with pytest.raises(HRVError, match="Nothing has been sampled with this edit yet"):
        EditMask.execute(rows)
    with pytest.raises(HRVError, match="not sampled with Local Blend"):
        EditMask.execute(edited[2])
    first = made(edited[0], positive, negative, rows)
    assert EditMask.execute(first).result[0].shape == (1, 64, 64)
    with pytest.raises(HRVError, match="changed after sampling"):
        EditMask.execute(LatentFromBatch().frombatch(first, 1, 1)[0])
    second = made(edited[0], positive, negative, rows, seed=4)
    with pytest.raises(HRVError, match="another sampler has used the same edit"):
        EditMask.execute(first)
    assert EditMask.execute(second).result[0].shape == (1, 64, 64)


def test_what_has_no_place_is_refused(model: Any, source: Any, edited: tuple[Any, ...]) -> None:
    with pytest.raises(HRVError, match="Neither the source nor a target contains 'cat'"):
        blended(edited, "car, cat")
    with pytest.raises(HRVError, match="no edits to keep to one place"):
        LocalBlend.execute(source, EMPTY, "car", 0.3, 0.2, 1.0, 1.0)
    with pytest.raises(HRVError, match="changed no word"):
        blended(prompt_edit(model, source, source))
    with pytest.raises(HRVError, match="threshold of a mask must be 0 or more"):
        blended(edited, threshold=1.0)
