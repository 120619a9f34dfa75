"""Heads of transformers that read another prompt, against explicit float64 maps of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from hrv_pack.host.mechanism import add_control, add_reading
from hrv_pack.host.models.architectures import architecture_of
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.prompts.carried import TOKEN_MAP_KEY, Conditioning
from hrv_pack.hrv.controls.control import Control
from hrv_pack.hrv.controls.reading import Reading
from hrv_pack.hrv.progress import WHOLE, Window
from hrv_pack.tests.support.explicit_transformer_readings import ExplicitReading, explicitly_reading
from hrv_pack.tests.support.small_host import TOLERANCE, encoded, picture_of_model, relative_error
from hrv_pack.tests.support.small_transformers import (
    ANIMA,
    FLUX,
    QWEN_IMAGE,
    Kind,
    Row,
    each_kind,
    one_of_each,
    prompt,
    rows_of,
    small,
    small_clip_anima,
    with_backend,
    with_changed_weight,
)

WORDS = ("a", "red", "car")


def gates_of(model: Any, seed: int = 0) -> np.ndarray:
    """Gates [H] of some heads: half of them 0, some 1, others between."""
    random = np.random.default_rng(seed)
    count = head_layout(model).head_count
    return np.where(random.random(count) < 0.5, 0.0, np.minimum(random.uniform(0.2, 1.5, count), 1.0)).astype(
        np.float32
    )


def reading(
    model: Any, own: Conditioning, other: Conditioning, gates: np.ndarray, **settings: Any
) -> tuple[Any, Conditioning]:
    """A MODEL and a conditioning that reads another one."""
    layout = head_layout(model)
    return add_reading(model, own, other, lambda _: Reading(gates, layout, **settings))


def controlled(model: Any, own: Conditioning, factors: np.ndarray) -> tuple[Any, Conditioning]:
    """A MODEL and a conditioning whose word "red" has these factors [H]."""
    layout = head_layout(model)
    return add_control(model, own, ["red"], lambda positions: Control(factors, positions, layout))


def context_of(model: Any, kind: Kind, conditioning: Conditioning) -> torch.Tensor:
    """A conditioning of one row as the model gets it."""
    return rows_of(model, conditioning, conditioning, kind.latent, cfg=1.0, steps=1)[0].context


def assert_close(found: Sequence[Row], expected: Sequence[Row], plain: Sequence[Row]) -> None:
    """Positive rows are the expected ones and not the plain ones; negative ones are bit-equal to the plain ones."""
    assert len(found) == len(expected) == len(plain) > 0
    for one, other, without in zip(found, expected, plain, strict=True):
        assert (one.step, one.negative) == (other.step, other.negative) == (without.step, without.negative)
        assert torch.equal(one.context, without.context)
        if one.negative:
            assert torch.equal(one.output, without.output)
        else:
            assert relative_error(one.output, other.output) <= TOLERANCE
            assert relative_error(one.output, without.output) > 10 * TOLERANCE


def main_rows(rows: Sequence[Row], *prompts: torch.Tensor) -> list[Row]:
    """Without the rows of passes with other prompts."""
    return [row for row in rows if not any(torch.equal(row.context, other) for other in prompts)]


@each_kind
def test_heads_mix_what_they_find_in_both_prompts(kind: Kind) -> None:
    """Of a longer prompt and of a shorter one, the words of both controlled, and two readings over each other."""
    model, own, negative = small(kind), prompt(WORDS, seed=1), prompt(("ugly",), seed=2)
    longer, shorter = prompt(WORDS, seed=3, tokens=40), prompt(WORDS, seed=4, tokens=7)
    layout, random = head_layout(model), np.random.default_rng(5)
    own_factors, factors = (random.uniform(0, 3, layout.head_count).astype(np.float32) for _ in range(2))
    before, seeds = picture_of_model(model), (5, 6) if kind in (FLUX, ANIMA) else (5,)
    read = reading(*controlled(model, own, own_factors), controlled(model, longer, factors)[1], gates_of(model))
    found = rows_of(*reading(*read, shorter, gates_of(model, seed=1), strength=0.7), negative, kind.latent, seeds=seeds)
    plain = rows_of(model, own, negative, kind.latent, seeds=seeds)
    a, b, c = (context_of(model, kind, one) for one in (own, longer, shorter))
    padding, of_other = (max(0, kind.padded_to - one[0][0].shape[1]) for one in (own, longer))
    shall = [
        ExplicitReading(
            a, b, gates_of(model), (of_other + 2,), factors.astype(float), (padding + 2,), own_factors.astype(float)
        ),
        ExplicitReading(a, c, 0.7 * gates_of(model, seed=1).astype(float)),
    ]
    with explicitly_reading(model, kind, shall) as explicit:
        expected = rows_of(explicit, own, negative, kind.latent, seeds=seeds)
    assert_close(main_rows(found, b, c), main_rows(expected, b, c), plain)
    assert picture_of_model(model) == before


@each_kind
def test_where_every_head_reads_the_other_prompt_it_is_as_if_that_were_sampled(kind: Kind) -> None:
    """Up to pooled vectors, and where the image's place doesn't depend on the length of the text."""
    model, own, negative = small(kind), prompt(WORDS, seed=1), prompt(("ugly",), seed=2)
    other = prompt(WORDS, seed=3)
    other[0][1]["pooled_output"] = own[0][1]["pooled_output"]
    expected = rows_of(model, other, negative, kind.latent)
    gates = np.ones(head_layout(model).head_count, np.float32)
    found = main_rows(
        rows_of(*reading(model, own, other, gates), negative, kind.latent), context_of(model, kind, other)
    )
    assert len(found) == len(expected)
    for one, as_other in zip(found, expected, strict=True):
        assert relative_error(one.output, as_other.output) <= TOLERANCE


@each_kind
def test_what_reads_nothing_is_bit_equal_to_no_node(kind: Kind) -> None:
    model, own, negative = small(kind), prompt(WORDS, seed=1), prompt(("ugly",), seed=2)
    other, gates = prompt(WORDS, seed=3), gates_of(model)
    plain = rows_of(model, own, negative, kind.latent)
    for settings in ({"strength": 0.0}, {"window": Window(0.4, 0.6)}):
        found = rows_of(*reading(model, own, other, gates, **settings), negative, kind.latent)
        # No pass with the other prompt either.
        assert len(found) == len(plain)
        assert all(torch.equal(one.output, without.output) for one, without in zip(found, plain, strict=True))


@each_kind
def test_of_several_prompts_each_reads_its_own_and_in_its_window(kind: Kind) -> None:
    """Where a text is the same at every latent, one pass of the run is for all of it."""
    model, negative = small(kind), prompt(("ugly",), seed=2)
    first, second, third = (prompt(WORDS, seed=seed) for seed in (1, 6, 7))
    b, c = prompt(WORDS, seed=3), prompt(WORDS, seed=4)
    with_one, reads_b = reading(model, first, b, gates_of(model))
    with_both, reads_c = reading(with_one, second, c, gates_of(model, seed=1), window=Window(0.0, 0.3))
    with_all, negative_reads = reading(with_both, negative, b, gates_of(model))
    run: dict[str, Any] = {"latent": kind.latent}
    plain = rows_of(model, [*first, *second, *third], negative, **run)
    every = rows_of(with_all, [*reads_b, *reads_c, *third], negative_reads, **run)
    contexts = [context_of(model, kind, one) for one in (b, c)]
    found = main_rows(every, *contexts)
    passes = len(every) - len(found)
    # b for two prompts at both steps, c for one at the first.
    assert passes == (3 if architecture_of(model).text_is_fixed else 5)
    a, d, without, n = (context_of(model, kind, one) for one in (first, second, third, negative))
    shall = [
        ExplicitReading(context, of, gates_of(model, seed=seed))
        for context, of, seed in ((a, contexts[0], 0), (n, contexts[0], 0), (d, contexts[1], 1))
    ]
    with explicitly_reading(model, kind, shall) as explicit:
        expected = main_rows(rows_of(explicit, [*first, *second, *third], negative, **run), *contexts)
    assert len(found) == len(expected) == len(plain)
    for one, other, before in zip(found, expected, plain, strict=True):
        if torch.equal(one.context, without) or (one.step == 1 and torch.equal(one.context, d)):
            assert torch.equal(one.output, before.output)
        else:
            assert relative_error(one.output, other.output) <= TOLERANCE
            assert relative_error(one.output, before.output) > 10 * TOLERANCE


@one_of_each
def test_a_run_leaves_nothing_behind_and_ends_as_if_nothing_had_happened(kind: Kind) -> None:
    model, own, negative = small(kind), prompt(WORDS, seed=1), prompt(("ugly",), seed=2)
    graph = reading(model, own, prompt(WORDS, seed=3), gates_of(model), window=WHOLE)
    found, before = rows_of(*graph, negative, kind.latent), picture_of_model(graph[0])

    def broken(executor: Any, *args: Any, **kwargs: Any) -> Any:
        executor(*args, **kwargs)
        raise RuntimeError("cancelled")

    stopped = graph[0].clone()
    stopped.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "stop", broken)
    with pytest.raises(RuntimeError, match="cancelled"):
        rows_of(stopped, graph[1], negative, kind.latent)
    again = rows_of(*graph, negative, kind.latent)
    assert all(torch.equal(one.output, other.output) for one, other in zip(again, found, strict=True))
    assert picture_of_model(graph[0]) == before


def test_prompts_of_anima_are_read_as_its_adapter_makes_them() -> None:
    """The tokens beside the tensor belong to the text."""
    model, own, other = small(ANIMA), encoded(small_clip_anima(), "a red car"), encoded(small_clip_anima(), "two trees")
    negative = encoded(small_clip_anima(), "")
    gates = np.ones(head_layout(model).head_count, np.float32)
    expected = rows_of(model, other, negative, ANIMA.latent, cfg=1.0)
    every = rows_of(*reading(model, own, other, gates), negative, ANIMA.latent, cfg=1.0)
    found = main_rows(every, expected[0].context)
    assert len(found) == len(expected) == len(every) - 1
    for one, as_other in zip(found, expected, strict=True):
        assert not torch.equal(one.context, as_other.context)
        assert relative_error(one.output, as_other.output) <= TOLERANCE


def test_masked_tokens_of_both_prompts_are_as_if_they_were_not_there() -> None:
    kind = QWEN_IMAGE
    model, negative = small(kind), prompt(("ugly",), seed=2)
    own, other = prompt(WORDS, seed=1), prompt(WORDS, seed=3, tokens=12)
    gates = gates_of(model)

    def masked(conditioning: Conditioning, tokens: int) -> Conditioning:
        ((tensor, extras),) = conditioning
        mask = (torch.arange(tensor.shape[1]) < tokens).long()[None]
        return [[tensor, {**extras, "attention_mask": mask}]]

    def cut(conditioning: Conditioning, tokens: int) -> Conditioning:
        ((tensor, extras),) = conditioning
        words = replace(extras[TOKEN_MAP_KEY], length=tokens)
        return [[tensor[:, :tokens], {**extras, TOKEN_MAP_KEY: words}]]

    shorter = rows_of(*reading(model, cut(own, 6), cut(other, 7), gates), negative, kind.latent, cfg=1.0)
    pairs = ((masked, masked), (masked, cut), (cut, masked))
    for mine, of_other in ((one(own, 6), another(other, 7)) for one, another in pairs):
        found = rows_of(*reading(model, mine, of_other, gates), negative, kind.latent, cfg=1.0)
        assert len(found) == len(shorter) == 4
        for one, without in zip(found, shorter, strict=True):
            assert relative_error(one.output, without.output) <= TOLERANCE


def read_explicitly(model: Any, kind: Kind, own: Conditioning, other: Conditioning, gates: np.ndarray) -> list[Row]:
    """The rows of a run at CFG 1 whose heads read another prompt, and of its passes, by explicit maps."""
    context, of_other = (context_of(model, kind, one) for one in (own, other))
    with explicitly_reading(model, kind, [ExplicitReading(context, of_other, gates.astype(float))]) as explicit:
        return main_rows(rows_of(explicit, own, own, kind.latent, cfg=1.0, steps=1), of_other)


@each_kind
def test_readings_beside_loras_and_other_backends(kind: Kind) -> None:
    """The pass with the other prompt has the LoRA too, and the backend gets all that attends."""
    model, own, other = small(kind), prompt(WORDS, seed=1), prompt(WORDS, seed=3)
    patched, gates = with_changed_weight(model), gates_of(model)
    run: dict[str, Any] = {"latent": kind.latent, "cfg": 1.0, "steps": 1}
    plain = rows_of(patched, own, own, **run)
    graph = reading(patched, own, other, gates)
    every = rows_of(*graph, own, **run)
    assert_close(
        main_rows(every, context_of(model, kind, other)), read_explicitly(patched, kind, own, other, gates), plain
    )
    beside, calls = with_backend(patched)
    for made in (reading(beside, own, other, gates), (with_backend(graph[0])[0], graph[1])):
        again = rows_of(*made, own, **run)
        assert all(torch.equal(one.output, also.output) for one, also in zip(again, every, strict=True))
    # Of the prompt, of the pass, and of the heads that read.
    assert len(calls) >= 2 * len(head_layout(model).layers)


@each_kind
def test_readings_in_half_precision_are_as_exact_as_a_run_without_them(kind: Kind) -> None:
    model, own, other = small(kind, torch.bfloat16), prompt(WORDS, seed=1), prompt(WORDS, seed=3)
    gates = gates_of(model)
    run: dict[str, Any] = {"latent": kind.latent, "cfg": 1.0, "steps": 1}
    (plain,) = rows_of(model, own, own, **run)
    (found,) = main_rows(rows_of(*reading(model, own, other, gates), own, **run), context_of(model, kind, other))
    (expected,) = read_explicitly(model, kind, own, other, gates)
    (exact,) = read_explicitly(model, kind, own, other, np.zeros_like(gates))
    limit = 2.0 * relative_error(plain.output, exact.output) + 8 * torch.finfo(torch.bfloat16).eps
    assert relative_error(found.output, expected.output) <= limit
