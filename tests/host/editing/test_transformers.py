"""Edits of transformers, against explicit float64 maps of the host's own layers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from comfy_extras.nodes_video_model import ConditioningSetAreaPercentageVideo
from hrv_pack.host.mechanism import add_control
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.prompts.carried import ROWS_KEY, TOKEN_MAP_KEY, Conditioning
from hrv_pack.hrv.controls.control import Control
from hrv_pack.hrv.errors import HRVError
from hrv_pack.nodes.local_blend import LocalBlend
from hrv_pack.tests.host.controls.test_transformers import controlled, rescaling
from hrv_pack.tests.support.compiling import compiled_and_counted
from hrv_pack.tests.support.explicit_edits import prompt_edit, words_edit
from hrv_pack.tests.support.explicit_transformer_edits import ChangeText, edit_of, explicitly_edited
from hrv_pack.tests.support.full_size_transformers import FULL_SIZE, of_full_width
from hrv_pack.tests.support.small_host import TOLERANCE, encoded, picture_of_model, random_hrv, relative_error
from hrv_pack.tests.support.small_transformers import (
    ANIMA,
    COSMOS,
    FLUX,
    FLUX_2,
    QWEN_IMAGE,
    SHALLOW_ANIMA,
    WAN,
    Z_IMAGE,
    Kind,
    Row,
    each_kind,
    explicitly,
    one_of_each,
    prompt,
    rows_of,
    small,
    small_clip_anima,
    with_backend,
    with_changed_weight,
)

from nodes import ConditioningSetArea, ConditioningSetMask

SOURCE, TARGET = ("a", "red", "car"), ("a", "shiny", "blue", "car")
TOKENS = 9
WHOLE = {"cross_end": 1.0, "self_size": 1.0}
# Behind a first token: "shiny" and "blue" share the token of "red"; of what fills up, the last takes what is left over.
MOVED = {0: {0: 1.0}, 1: {1: 1.0}, 2: {2: 0.5}, 3: {2: 0.5}, 4: {3: 1.0}, 5: {4: 1.0}, 6: {5: 1.0}, 7: {6: 1.0}}
MOVED[8] = {7: 1.0, 8: 1.0}
BLUE = 3


def by_words(model: Any, kind: Kind, concept: str = "") -> ChangeText:
    """What becomes of the text's columns: the source's by :data:`MOVED`, "blue" scaled by heads if it has a concept."""
    first = max(0, kind.padded_to - TOKENS)
    factors = torch.from_numpy(random_hrv(head_layout(model)).row("Color").astype("float64"))

    def change(source: torch.Tensor, own: torch.Tensor, heads: slice) -> torch.Tensor:
        made = source.clone()
        for target, shares in MOVED.items():
            made[..., first + target] = sum(share * source[..., first + place] for place, share in shares.items())
        if concept:
            made[..., first + BLUE] = own[..., first + BLUE] * factors[heads, None]
        return made

    return change


def run(graph: tuple[Any, Any], negative: Conditioning, kind: Kind, seeds: Sequence[int] = (5,), **how: Any) -> Any:
    """The rows of a run whose pairs of a source and its target begin from one noise."""
    return rows_of(*graph, negative, kind.latent, seeds=[seed for seed in seeds for _ in range(2)], **how)


def plainly(conditioning: Conditioning) -> Conditioning:
    """The same prompts without an edit."""
    return [
        [tensor, {name: value for name, value in extras.items() if name != ROWS_KEY}] for tensor, extras in conditioning
    ]


def assert_edited(found: Sequence[Row], expected: Sequence[Row], plain: Sequence[Row], target: torch.Tensor) -> None:
    """Edits are as expected and not as without them; all other rows are bit-equal to those without."""
    assert len(found) == len(expected) == len(plain) > 0
    for one, other, without in zip(found, expected, plain, strict=True):
        assert torch.equal(one.context, without.context)
        if torch.equal(one.context, target):
            assert relative_error(one.output, other.output) <= TOLERANCE
            assert relative_error(one.output, without.output) > 10 * TOLERANCE
        else:
            assert torch.equal(one.output, without.output)


@each_kind
def test_a_target_has_the_columns_of_its_source(kind: Kind) -> None:
    """Those of the text with a word by a concept's heads, and with those of the image too; of two images and of one."""
    model, source, target, negative = small(kind), *prompts()
    before, seeds = picture_of_model(model), (5, 6) if kind in (FLUX, ANIMA) else (5,)
    hrv = random_hrv(head_layout(model))
    deciding = words_edit(target, "blue", hrv=hrv, concept="Color")
    settings: list[tuple[Conditioning, str, bool, float]] = [(target, "", True, 1.0), (deciding, "Color", False, 4.0)]
    for its, concept, itself, cfg in settings:
        edited = edit_of(model, kind, source, its, **WHOLE, self_end=float(itself))
        how: dict[str, Any] = {"seeds": seeds, "cfg": cfg, "steps": 1}
        plain = run((model, plainly(edited[1])), negative, kind, **how)
        own = [one.context for one in plain if not one.negative][1]
        found = run(edited, negative, kind, **how)
        with explicitly_edited(model, kind, own, by_words(model, kind, concept), itself) as explicit:
            assert_edited(found, run((explicit, plainly(edited[1])), negative, kind, **how), plain, own)
    assert picture_of_model(model) == before


def prompts() -> tuple[Conditioning, Conditioning, Conditioning]:
    """Source, target and negative."""
    return prompt(SOURCE, seed=1), prompt(TARGET, seed=3), prompt(("ugly",), seed=2)


@one_of_each
def test_edits_without_a_window_change_no_bit(kind: Kind) -> None:
    """Windows that are closed, or that no step of the run is in."""
    model, source, target, negative = small(kind), *prompts()
    for windows in ({}, {"cross_start": 0.4, "cross_end": 0.6, "self_start": 0.4, "self_end": 0.6, "self_size": 1.0}):
        edited = edit_of(model, kind, source, target, **windows)
        found, plain = run(edited, negative, kind), run((model, plainly(edited[1])), negative, kind)
        assert len(found) == len(plain)
        assert all(torch.equal(one.output, other.output) for one, other in zip(found, plain, strict=True))


@one_of_each
def test_both_windows_act_in_their_steps_alone(kind: Kind) -> None:
    """Together they give the whole map of the source, one alone a part of it."""
    model, source, target, negative = small(kind), *prompts()
    edited = edit_of(model, kind, source, target, cross_end=1.0, self_end=0.3, self_size=1.0)
    early, late = (
        edit_of(model, kind, source, target, cross_end=1.0, self_end=end, self_size=1.0) for end in (1.0, 0.0)
    )
    found, expected = (run(one, negative, kind, cfg=1.0) for one in (edited, early))
    assert [torch.equal(one.output, other.output) for one, other in zip(found, expected, strict=True)][:2] == [True] * 2
    expected = run(late, negative, kind, cfg=1.0)
    assert [torch.equal(one.output, other.output) for one, other in zip(found, expected, strict=True)] == [
        True, False, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [WAN, QWEN_IMAGE], ids=str)
def test_edits_of_areas_and_masks_of_videos(kind: Kind) -> None:
    """Placed behind Prompt Edit, beside a prompt for all of it; of an area the model gets a part of the latent."""
    kind = replace(kind, latent=(kind.latent[0], 3, 8, 8))
    model, source, target, negative = small(kind), *prompts()
    mask = torch.zeros(1, 64, 64)
    mask[..., :32] = 1.0
    background = prompt(("a", "street"), seed=4, tokens=12)
    how: dict[str, Any] = {"seeds": (5, 6), "steps": 1}
    own, edited = edit_of(model, kind, source, target, **WHOLE, self_end=1.0)
    for placed, sides in (
        (ConditioningSetArea().append(edited, 48, 32, 16, 16, 1.0)[0], (3, 4, 6)),
        (ConditioningSetAreaPercentageVideo().append(edited, 0.75, 0.5, 0.7, 0.0, 0.5, 0.3, 1.0)[0], (2, 4, 6)),
        (ConditioningSetMask().append(edited, mask, "default", 1.0)[0], (3, 8, 8)),
    ):
        positive = [*placed, *background]
        plain = run((model, plainly(positive)), negative, kind, **how)
        its = edited[0][0][1]
        assert {tuple(row.output.shape[1:]) for row in plain if torch.equal(row.context, its)} == {sides}
        with explicitly_edited(model, kind, its, by_words(model, kind), itself=True) as explicit:
            expected = run((explicit, plainly(positive)), negative, kind, **how)
        assert_edited(run((own, positive), negative, kind, **how), expected, plain, its)


def test_prompts_of_unequal_lengths_are_repeated_where_that_changes_nothing() -> None:
    """Copies of a source's tokens share its attention."""
    kind = COSMOS
    model, source, negative = small(kind), prompt(SOURCE, seed=1), prompt(("ugly",), seed=2)
    longer = prompt(TARGET, seed=3, tokens=12)
    edited = edit_of(model, kind, source, longer, cross_end=1.0)
    plain = run((model, plainly(edited[1])), negative, kind, cfg=1.0, steps=1)
    alone = rows_of(model, longer, negative, kind.latent, cfg=1.0, steps=1)
    assert relative_error(plain[1].output, alone[0].output) <= TOLERANCE

    def change(source: torch.Tensor, own: torch.Tensor, heads: slice) -> torch.Tensor:
        once = source.unflatten(-1, (-1, TOKENS)).sum(-2)
        made = torch.zeros_like(own)
        moved = {**MOVED, 8: {7: 1.0}, 9: {8: 1 / 3}, 10: {8: 1 / 3}, 11: {8: 1 / 3}}
        for place, shares in moved.items():
            made[..., place] = sum(share * once[..., column] for column, share in shares.items())
        return made

    found = run(edited, negative, kind, cfg=1.0, steps=1)
    with explicitly_edited(model, kind, plain[1].context, change) as explicit:
        expected = run((explicit, plainly(edited[1])), negative, kind, cfg=1.0, steps=1)
    assert_edited(found, expected, plain, plain[1].context)


def test_prompts_of_unequal_lengths_are_refused_where_they_would_count_twice() -> None:
    source, target = prompt(SOURCE, seed=1), prompt(TARGET, seed=3, tokens=12)
    with pytest.raises(HRVError, match=r"^Qwen-Image sees source and target in one batch.*the source has 9 and the ta"):
        edit_of(small(QWEN_IMAGE), QWEN_IMAGE, source, target)
    # The host brings both to 512.
    edit_of(small(FLUX_2), FLUX_2, source, target)


def test_reference_images_of_z_image_are_refused() -> None:
    source = prompt(SOURCE, seed=1, reference_latents=[torch.randn(1, 16, 8, 8)])
    edited = edit_of(small(Z_IMAGE), Z_IMAGE, source, prompt(TARGET, seed=3), **WHOLE)
    with pytest.raises(HRVError, match=r"^Z-Image puts the texts of reference images in front of the prompt's"):
        run(edited, prompt(("ugly",), seed=2), Z_IMAGE, cfg=1.0, steps=1)


def test_texts_that_the_host_makes_more_of_are_each_rows_own() -> None:
    """Anima's adapter makes them of two encoders' tokens, Flux.2 fills them up on the left; controls find words."""
    clip = small_clip_anima()
    both = encoded(clip, "a red car"), encoded(clip, "a blue car on a road")
    short, longer = prompt(SOURCE, seed=1), prompt(TARGET, seed=3, tokens=12)
    longer[0][1]["pooled_output"] = short[0][1]["pooled_output"]
    for kind, (source, target) in ((ANIMA, both), (FLUX_2, (short, longer))):
        model = small(kind)
        control = functools.partial(Control, random_hrv(head_layout(model)).row("Shape").copy())
        controlled, target = add_control(model, target, ["blue"], functools.partial(control, layout=head_layout(model)))
        graph = edit_of(controlled, kind, source, target)
        found = run(graph, prompt(("ugly",), seed=2), kind, cfg=1.0, steps=1)
        for row, own in enumerate((source, target)):
            (alone,) = rows_of(controlled, own, own, kind.latent, cfg=1.0, steps=1)
            assert torch.equal(found[row].context, alone.context)
            assert relative_error(found[row].output, alone.output) <= TOLERANCE
        (without,) = rows_of(model, target, target, kind.latent, cfg=1.0, steps=1)
        assert relative_error(found[1].output, without.output) > 10 * TOLERANCE


@each_kind
def test_edits_beside_loras_and_other_backends(kind: Kind) -> None:
    model, source, target, negative = small(kind), *prompts()
    patched = with_changed_weight(model)
    how: dict[str, Any] = {"cfg": 1.0, "steps": 1}
    edited = edit_of(patched, kind, source, target, **WHOLE, self_end=1.0)
    found, plain = run(edited, negative, kind, **how), run((patched, plainly(edited[1])), negative, kind, **how)
    with explicitly_edited(patched, kind, plain[1].context, by_words(patched, kind), itself=True) as explicit:
        expected = run((explicit, plainly(edited[1])), negative, kind, **how)
    assert_edited(found, expected, plain, plain[1].context)
    beside, calls = with_backend(edited[0])
    again = run((beside, edited[1]), negative, kind, **how)
    assert all(torch.equal(one.output, other.output) for one, other in zip(again, found, strict=True))
    assert len(calls) >= 2 * len(head_layout(model).layers)


@each_kind
def test_half_precision_is_as_exact_as_it_is_without_edits(kind: Kind) -> None:
    model, source, target, negative = small(kind, torch.bfloat16), *prompts()
    how: dict[str, Any] = {"cfg": 1.0, "steps": 1}
    edited = edit_of(model, kind, source, target, **WHOLE)
    found, plain = run(edited, negative, kind, **how), run((model, plainly(edited[1])), negative, kind, **how)
    own = plain[1].context
    with explicitly_edited(model, kind, own, by_words(model, kind)) as explicit:
        expected = run((explicit, plainly(edited[1])), negative, kind, **how)
    with explicitly_edited(model, kind, own, lambda source, own, heads: own) as explicit:
        exact = run((explicit, plainly(edited[1])), negative, kind, **how)
    limit = 2.0 * relative_error(plain[1].output, exact[1].output) + 8 * torch.finfo(torch.bfloat16).eps
    assert relative_error(found[1].output, expected[1].output) <= limit


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        (SHALLOW_ANIMA, "diffusion_model"),
        (FLUX, "diffusion_model.single_blocks.1"),
        (Z_IMAGE, "diffusion_model.layers.1"),
    ],
    ids=str,
)
def test_a_compiled_model_edits_as_it_does_without(kind: Kind, part: str) -> None:
    """With a word by a concept's heads, and a window that closes on the way."""
    model, source, target, negative = small(kind), *prompts()
    deciding = words_edit(target, "blue", hrv=random_hrv(head_layout(model)), concept="Color")
    edited = edit_of(model, kind, source, deciding, **WHOLE, self_end=0.3)
    expected = run(edited, negative, kind)
    compiled, count = compiled_and_counted(edited[0], part)
    found = run((compiled, edited[1]), negative, kind)
    assert count.graphs > 0
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one.output, other.output) <= TOLERANCE


def test_a_block_of_the_published_width_is_controlled_and_edited_in_half_precision() -> None:
    """Z-Image's, with its 30 heads of 128 channels and text states of 2560."""
    kind, model = Z_IMAGE, of_full_width(FULL_SIZE["Z-Image"], torch.bfloat16, n_refiner_layers=0)
    source, target = (prompt(words, seed=seed, width=2560) for words, seed in ((SOURCE, 1), (TARGET, 3)))
    how: dict[str, Any] = {"cfg": 1.0, "steps": 1}
    limit = 4 * torch.finfo(torch.bfloat16).eps
    (plain,) = rows_of(model, source, source, kind.latent, **how)
    (found,) = rows_of(*controlled(model, source, ["car"]), source, kind.latent, **how)
    with explicitly(model, kind, [rescaling(model, plain, (3,))]) as explicit:
        (expected,) = rows_of(explicit, source, source, kind.latent, **how)
    assert relative_error(found.output, expected.output) <= limit < relative_error(found.output, plain.output)
    edited = edit_of(model, kind, source, target, **WHOLE, self_end=1.0)
    _, plain = run((model, plainly(edited[1])), source, kind, **how)
    _, found = run(edited, source, kind, **how)
    with explicitly_edited(model, kind, plain.context, by_words(model, kind), itself=True) as explicit:
        _, expected = run((explicit, plainly(edited[1])), source, kind, **how)
    assert relative_error(found.output, expected.output) <= limit < relative_error(found.output, plain.output)


def test_of_masked_texts_rows_have_their_own_masks_and_that_of_their_source_with_its_map() -> None:
    """Masked tokens are as if they were not there, in one row and in what it takes from the other."""
    kind = QWEN_IMAGE
    model, source, _, negative = small(kind), *prompts()
    target = prompt(("a", "blue", "car"), seed=3)

    def masked(conditioning: Conditioning, tokens: int) -> Conditioning:
        ((tensor, extras),) = conditioning
        return [[tensor, {**extras, "attention_mask": (torch.arange(TOKENS) < tokens).long()[None]}]]

    def cut(conditioning: Conditioning, tokens: int) -> Conditioning:
        ((tensor, extras),) = conditioning
        return [[tensor[:, :tokens], {**extras, TOKEN_MAP_KEY: replace(extras[TOKEN_MAP_KEY], length=tokens)}]]

    how: dict[str, Any] = {"cfg": 1.0, "steps": 1}
    closed = run(edit_of(model, kind, masked(source, 5), masked(target, 7)), negative, kind, **how)
    target[0][1]["pooled_output"] = source[0][1]["pooled_output"]
    for one, its in zip(closed, (cut(source, 5), cut(target, 7)), strict=True):
        (alone,) = rows_of(model, its, negative, kind.latent, **how)
        assert relative_error(one.output, alone.output) <= TOLERANCE
    for self_end in (0.0, 1.0):
        found, expected = (
            run(edit_of(model, kind, of(source, 6), of(target, 6), **WHOLE, self_end=self_end), negative, kind, **how)
            for of in (masked, cut)
        )
        for one, other in zip(found, expected, strict=True):
            assert relative_error(one.output, other.output) <= TOLERANCE


def test_what_a_transformer_lacks_is_refused_and_what_takes_nothing_is_said() -> None:
    model, source, target, negative = small(FLUX), *prompts()
    latent = {"samples": torch.zeros(1, *FLUX.latent)}
    own, positive, rows, text = prompt_edit(model, source, target, latent, cross_end=1.0, self_end=0.4)
    assert text.endswith(
        "Flux.1 has 0.25 of the latent's positions, so self_size 0.0625 takes no self-attention from "
        "the source. 1 takes all."
    )
    blended, _ = LocalBlend.execute(positive, rows, "blue", 0.3, 0.2, 1.0, 1.0).result
    with pytest.raises(HRVError, match=r"^Local Blend isn't available for Flux\.1 yet, only for the UNet of"):
        run((own, blended), negative, FLUX)
