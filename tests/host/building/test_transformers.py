"""What heads of transformers do: integrated attribution, true patching, and a whole causal build."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.samplers
import numpy as np
import pytest
import torch
from hrv_pack.host.building.attribution import Attribution, Pairs
from hrv_pack.host.building.causal import CausalSettings, build_causal_hrv
from hrv_pack.host.building.one_level import OTHER, AtOneLevel, Level
from hrv_pack.host.building.patching import Patch, gated
from hrv_pack.host.models.architectures import architecture_of
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.hrv.building.pairs import examples_of
from hrv_pack.hrv.relevance.files import load_hrv, save_hrv
from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
from hrv_pack.tests.support.small_host import explicit_maps, picture_of_model
from hrv_pack.tests.support.small_transformers import (
    ANIMA,
    FLUX,
    Kind,
    attending,
    each_kind,
    one_of_each,
    prompt,
    small,
    small_clip_anima,
    small_clip_flux,
    with_backend,
    with_changed_weight,
)

SIGMA = 0.7
PAIRS = 2
TOKENS = 9
SHORTEST = CausalSettings(
    pairs=1,
    seed=3,
    steps=1,
    cfg=1.0,
    sampler_name="euler",
    scheduler="normal",
    width=64,
    height=64,
    levels=(0.2,),
)


def pairs_of(kind: Kind) -> Pairs:
    """Pairs of prompts that differ in all that attention reads, and in nothing else."""
    a, b = (prompt(("a", "red", "car"), seed=seed, rows=PAIRS) for seed in (1, 3))
    b[0][1]["pooled_output"] = a[0][1]["pooled_output"]
    generator = torch.Generator().manual_seed(0)
    return Pairs(["one", "two"], a, b, *(torch.randn(PAIRS, *kind.latent, generator=generator) for _ in range(2)))


@each_kind
def test_the_heads_together_do_what_the_other_prompt_does(kind: Kind) -> None:
    model, pairs = small(kind), pairs_of(kind)
    before = picture_of_model(model)
    found = Attribution(model, alphas=8, room=math.inf).effects(pairs, SIGMA, [Patch()])
    assert found.heads.shape == (PAIRS, head_layout(model).head_count) and (found.squares > 0).all()
    # Patching every head gives the other prompt's prediction, and the integral of the effects is all of it.
    np.testing.assert_allclose(found.patches[:, 0], found.squares, rtol=1e-4)
    np.testing.assert_allclose(found.heads.sum(1), found.squares, rtol=5e-3)
    again = Attribution(model, alphas=8, room=0.0).effects(pairs, SIGMA)
    np.testing.assert_allclose(again.heads, found.heads, rtol=1e-3, atol=1e-5 * np.abs(found.heads).max())
    assert picture_of_model(model) == before


@each_kind
def test_effects_are_the_derivatives_by_the_gates(kind: Kind) -> None:
    model, pairs, alpha, step = small(kind), pairs_of(kind), 0.5, 0.02
    architecture = architecture_of(model)
    heads = range(0, architecture.layout.head_count, 5)
    found: list[torch.Tensor] = []
    expected: list[torch.Tensor] = []

    def measure(guider: Any, x: torch.Tensor, sigmas: torch.Tensor, options: dict[str, Any]) -> None:
        level = Level(architecture, 0.0, guider, pairs.names, x, sigmas, options)
        found.append(level.head_effects(alpha)[:, list(heads)])
        for head in heads:
            sides = []
            for moved in (alpha - step, alpha + step):
                gates = torch.full((PAIRS, architecture.layout.head_count), alpha)
                gates[:, head] = moved
                wrapping = gated(architecture, gates, level.reading_b.readings)
                sides.append(level._along(level._predict(level.model, level.conds, wrapping)))
            expected.append((sides[1] - sides[0]) / (2 * step))

    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": pairs.a, OTHER: pairs.b})
    guider.sample(
        pairs.noise, pairs.latents, AtOneLevel(measure), torch.tensor([SIGMA, 0.0]), disable_pbar=True, seed=0
    )
    by_differences = torch.stack(expected, dim=1)
    limit = 0.01 * float(by_differences.abs().max())
    assert float((found[0] - by_differences).abs().max()) <= limit


@contextmanager
def explicitly_patched(model: Any, kind: Kind, heads: Sequence[int]) -> Iterator[tuple[Any, list[bool]]]:
    """A clone of a MODEL that keeps what its layers read while the list's last entry is True, and else has some heads
    read that instead, by float64 maps; layers are told by the modules that run."""
    layout = head_layout(model)
    keeping = [True]
    kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def found(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
        maps = explicit_maps(q, k, heads)
        values = v.double().unflatten(-1, (heads, -1)).transpose(1, 2)
        return (maps @ values).transpose(1, 2).flatten(2).to(q.dtype)

    def attend(number: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        layer = layout.layers[number]
        start = kind.image_start(max(TOKENS, kind.padded_to)) if kind.image_start else 0
        text = start if kind.image_start else k.shape[1]
        plain = found(q, k, v, layer.heads)
        if keeping[-1]:
            kept[number] = k[:, :text].clone(), v[:, :text].clone()
            return plain
        of_layer = layout.head_slice(layer.key)
        chosen = torch.tensor([of_layer.start + head in heads for head in range(layer.heads)])
        keys, values = kept[number]
        exchanged = found(
            q, torch.cat([keys, k[:, text:]], dim=1), torch.cat([values, v[:, text:]], dim=1), layer.heads
        )
        by_head = chosen.repeat_interleave(plain.shape[-1] // layer.heads)
        mixed = torch.where(by_head, exchanged, plain)
        return torch.cat([plain[:, :start], mixed[:, start:]], dim=1)

    with attending(model, kind, attend) as clone:
        yield clone, keeping


@each_kind
def test_patching_some_heads_is_what_explicit_maps_give(kind: Kind) -> None:
    model, pairs = small(kind), pairs_of(kind)
    heads = range(1, head_layout(model).head_count, 3)
    found = Attribution(model, room=0.0).patched(pairs, SIGMA, [Patch(heads=frozenset(heads))])

    def predicted(model: Any, conditioning: Any) -> torch.Tensor:
        made: list[torch.Tensor] = []

        def measure(guider: Any, x: torch.Tensor, sigmas: torch.Tensor, options: dict[str, Any]) -> None:
            made.append(
                comfy.samplers.calc_cond_batch(guider.inner_model, [guider.conds["positive"]], x, sigmas, options)[0]
            )

        guider = comfy.samplers.CFGGuider(model)
        guider.inner_set_conds({"positive": conditioning})
        sigmas = torch.tensor([SIGMA, 0.0])
        guider.sample(pairs.noise, pairs.latents, AtOneLevel(measure), sigmas, disable_pbar=True, seed=0)
        return made[0].double()

    with explicitly_patched(model, kind, heads) as (explicit, keeping):
        of_b = predicted(explicit, pairs.b)
        keeping.append(False)
        of_patch = predicted(explicit, pairs.a)
    of_a = predicted(model, pairs.a)
    difference = of_b - of_a
    expected = ((of_patch - of_a) * difference).flatten(1).sum(1).numpy()
    np.testing.assert_allclose(found.patches[:, 0], expected, rtol=1e-3, atol=1e-4 * float(found.squares.max()))


@pytest.mark.parametrize(
    ("kind", "clip", "family"), [(FLUX, small_clip_flux, "flux"), (ANIMA, small_clip_anima, "anima")]
)
def test_a_causal_hrv_is_built_from_words_to_file(kind: Kind, clip: Any, family: str, tmp_path: Path) -> None:
    examples = examples_of(parse_vocabulary("Color: red, blue"), ("a {word} car",))
    with torch.inference_mode():
        built = build_causal_hrv(small(kind), clip(), examples, SHORTEST, states=tmp_path)
    ((found,),) = [built.report.concepts]
    assert built.hrv.layout == head_layout(small(kind)) and built.hrv.layout.family == family
    assert abs(found.complete - 1.0) < 0.02 and found.top_true is not None
    assert abs(sum(share for share in found.groups.values() if share is not None) - 1.0) < 0.25
    assert load_hrv(save_hrv(built.hrv, tmp_path / "causal.safetensors")).layout.family == family


@each_kind
def test_effects_beside_loras_and_other_backends(kind: Kind) -> None:
    """Those of the model with the LoRA; passes with a gradient have PyTorch's attention, whatever else is chosen."""
    model, pairs = small(kind), pairs_of(kind)
    both = model, with_changed_weight(model)
    plain, patched = (Attribution(own, alphas=2, room=0.0).effects(pairs, SIGMA) for own in both)
    assert np.abs(patched.heads - plain.heads).max() > 0.01 * np.abs(plain.heads).max()
    np.testing.assert_allclose(patched.heads.sum(1), patched.squares, rtol=0.1)
    beside, calls = with_backend(model)
    found = Attribution(beside, alphas=2, room=0.0).effects(pairs, SIGMA)
    np.testing.assert_array_equal(found.heads, plain.heads)
    assert not calls


@one_of_each
def test_effects_in_half_precision_are_nearly_complete_and_of_the_same_heads(kind: Kind) -> None:
    """Of numbers of three digits."""
    pairs = pairs_of(kind)
    half, plain = (
        Attribution(small(kind, dtype), alphas=2, room=0.0).effects(pairs, SIGMA)
        for dtype in (torch.bfloat16, torch.float32)
    )
    np.testing.assert_allclose(half.heads.sum(1), half.squares, rtol=0.1)
    assert np.corrcoef(half.heads.ravel(), plain.heads.ravel())[0, 1] > 0.9
