"""Heads that read another prompt, on real UNets against explicit float64 maps of both, and whom they leave alone."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.hooks
import comfy.sd
import numpy as np
import pytest
import torch
from comfy.ldm.modules.attention import optimized_attention
from hrv_pack.host.attend_and_excite.subjects import excite
from hrv_pack.host.controls.reading import ReadingRun
from hrv_pack.host.editing.prompts import add_row, edit_prompt
from hrv_pack.host.models.architectures import unet_of
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.prompts.carried import READINGS_KEY
from hrv_pack.host.prompts.joining import concatenate
from hrv_pack.hrv.attend_and_excite.settings import ExcitementSettings
from hrv_pack.hrv.editing.edit import EditWindows
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.progress import Window
from hrv_pack.hrv.relevance.orders import MOST_RELEVANT_FIRST, head_order
from hrv_pack.nodes.controls import ConceptStrengthen
from hrv_pack.nodes.reading import ReadByConcept
from hrv_pack.tests.support.compiling import compiled_and_counted
from hrv_pack.tests.support.explicit_readings import ExplicitReading, with_explicit_readings
from hrv_pack.tests.support.small_host import (
    Setup,
    UNetRow,
    encoded,
    latents,
    picture,
    picture_of_model,
    relative_error,
    shallow_sd15,
    small_clip_sd15,
    small_sd15,
    unet_rows,
)

from nodes import ConditioningConcat, ConditioningSetArea, ConditioningSetTimestepRange

PROMPT = "a red car and a skyscrapers view"
OTHER = "a blue square"
LONG = "a red tree " + "and a large tree of many leaves " * 12
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Ask:
    """One reading, as the node takes it and as its definition says it."""

    other: str = OTHER
    concept: str = "Shape"
    heads: int = 5
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    by: str = "top heads"

    def apply(self, setup: Setup, model: Any, conditioning: Any, other: Any = None) -> tuple[Any, Any]:
        other = other or encoded(setup.clip, self.other)
        return ReadByConcept.execute(
            model=model,
            conditioning=conditioning,
            other=other,
            hrv=setup.hrv,
            concept=self.concept,
            heads=self.heads,
            strength=self.strength,
            start=self.start,
            end=self.end,
            gates=self.by,
        ).result

    def gates(self, setup: Setup) -> np.ndarray:
        gates = np.zeros(setup.hrv.layout.head_count)
        if self.by == "by relevance":
            row = setup.hrv.row(self.concept).astype(np.float64)
            gates = (row / np.sort(row)[-self.heads]).clip(max=1.0)
            return np.where(gates < 0.05, 0.0, gates) * self.strength
        gates[head_order(setup.hrv, self.concept, MOST_RELEVANT_FIRST)[: self.heads]] = self.strength
        return gates

    def explicit(self, setup: Setup, context: Any, **more: Any) -> ExplicitReading:
        other = encoded(setup.clip, self.other)[0][0][0]
        return ExplicitReading(context[0][0][0], other, self.gates(setup), (self.start, self.end), **more)


def reading(setup: Setup, *asks: Ask, model: Any = None, conditioning: Any = None) -> tuple[Any, Any]:
    model, conditioning = model or setup.model, conditioning or setup.prompt
    for ask in asks:
        model, conditioning = ask.apply(setup, model, conditioning)
    return model, conditioning


def all_heads(setup: Setup, other: Any, model: Any = None, conditioning: Any = None) -> tuple[Any, Any]:
    """Every head of the prompt reads the other one, so that nothing of the prompt is left but the pooled output."""
    return Ask(heads=setup.hrv.layout.head_count).apply(
        setup, model or setup.model, conditioning or setup.prompt, other
    )


def assert_rows_close(found: Sequence[UNetRow], expected: Sequence[UNetRow], plain: Sequence[UNetRow]) -> None:
    """Positive rows are the expected ones and not the plain ones; negative ones are bit-equal to the plain ones."""
    assert len(found) == len(expected) == len(plain) > 0
    for one, other, without in zip(found, expected, plain, strict=True):
        assert relative_error(one.output, other.output) <= TOLERANCE
        if one.negative:
            assert torch.equal(one.output, without.output)


ASKS = {
    "one": [Ask()],
    "one head": [Ask(heads=1)],
    "half": [Ask(strength=0.5)],
    "backwards": [Ask(strength=-0.7)],
    "beyond": [Ask(strength=1.5)],
    "a longer prompt": [Ask(LONG)],
    "by relevance": [Ask(by="by relevance")],
    "by relevance over the highest, half": [Ask(heads=1, strength=0.5, by="by relevance")],
    "two by relevance": [Ask(by="by relevance", strength=0.8), Ask("a green tree", "Color", 2, by="by relevance")],
    "the middle": [Ask(start=0.25, end=0.75)],
    "the end": [Ask(start=0.5)],
    "two": [Ask(), Ask("a green tree", "Color")],
    "two that share all heads": [Ask(), Ask("a green tree", strength=0.6)],
    "three in windows": [Ask(end=0.75), Ask(LONG, "Color", 4, start=0.25), Ask("a house", "Size", 9, 0.4)],
}


@pytest.mark.parametrize(
    ("kind", "asks"),
    [
        pytest.param(kind, asks, id=f"{kind}: {name}")
        for name, asks in ASKS.items()
        for kind in ("sd15", "sd20", "sdxl")
        if kind == "sd15" or name in ("one", "three in windows")
    ],
)
def test_heads_mix_what_they_find_in_both_prompts(request: pytest.FixtureRequest, kind: str, asks: list[Ask]) -> None:
    setup: Setup = request.getfixturevalue(kind)
    plain = unet_rows(setup.model, setup.prompt, setup.negative, steps=4)
    found = unet_rows(*reading(setup, *asks), setup.negative, steps=4)
    exact = with_explicit_readings(setup.model, [ask.explicit(setup, setup.prompt) for ask in asks])
    assert_rows_close(found, unet_rows(exact, setup.prompt, setup.negative, steps=4), plain)
    for one, without in zip(found, plain, strict=True):
        progress = one.step / 3
        if any(ask.start <= progress < ask.end or progress == ask.end == 1.0 for ask in asks) and not one.negative:
            assert relative_error(one.output, without.output) > 100 * TOLERANCE
        else:
            assert torch.equal(one.output, without.output)


def test_a_longer_prompt_reads_a_shorter_one(sd15: Setup) -> None:
    long = encoded(sd15.clip, LONG)
    plain = unet_rows(sd15.model, long, sd15.negative)
    exact = with_explicit_readings(sd15.model, [Ask().explicit(sd15, long)])
    found = unet_rows(*reading(sd15, Ask(), conditioning=long), sd15.negative)
    assert_rows_close(found, unet_rows(exact, long, sd15.negative), plain)


IDENTITIES = {
    "strength 0": [Ask(strength=0.0)],
    "an empty window at the beginning": [Ask(end=0.0)],
    "an empty window inside": [Ask(start=0.5, end=0.5)],
    "an empty window at the end": [Ask(start=1.0)],
    "two of them": [Ask(strength=0.0), Ask(LONG, start=0.3, end=0.3)],
}


@pytest.fixture(scope="module")
def plain(sd15: Setup) -> torch.Tensor:
    return latents(sd15.model, sd15.prompt, sd15.negative)


@pytest.mark.parametrize("asks", IDENTITIES.values(), ids=IDENTITIES.keys())
def test_what_reads_nothing_is_bit_equal_to_no_node(sd15: Setup, plain: torch.Tensor, asks: list[Ask]) -> None:
    assert torch.equal(latents(*reading(sd15, *asks), sd15.negative), plain)


def test_a_prompt_that_reads_itself_is_itself_up_to_rounding(sd15: Setup, plain: torch.Tensor) -> None:
    assert relative_error(latents(*reading(sd15, Ask(PROMPT)), sd15.negative), plain) <= TOLERANCE


@pytest.mark.parametrize("kind", ["sd15", "sd20"])
def test_where_every_head_reads_the_other_prompt_it_is_as_if_that_were_sampled(
    request: pytest.FixtureRequest, kind: str
) -> None:
    setup: Setup = request.getfixturevalue(kind)
    other = encoded(setup.clip, OTHER)
    expected = latents(setup.model, other, setup.negative)
    assert relative_error(latents(*all_heads(setup, other), setup.negative), expected) <= TOLERANCE


def test_the_pooled_output_stays_the_prompts_own(sdxl: Setup) -> None:
    other = encoded(sdxl.clip, OTHER)
    pooled = [[other[0][0], {**other[0][1], "pooled_output": sdxl.prompt[0][1]["pooled_output"]}]]
    expected = latents(sdxl.model, pooled, sdxl.negative)
    assert relative_error(latents(*all_heads(sdxl, other), sdxl.negative), expected) <= TOLERANCE
    assert relative_error(latents(sdxl.model, other, sdxl.negative), expected) > 100 * TOLERANCE


def test_of_two_readings_in_one_head_the_later_one_acts(sd15: Setup) -> None:
    last = Ask("a green tree")
    both = latents(*reading(sd15, Ask(), last), sd15.negative)
    assert torch.equal(both, latents(*reading(sd15, last), sd15.negative))
    assert not torch.equal(both, latents(*reading(sd15, last, Ask()), sd15.negative))


def strengthened(setup: Setup, model: Any, conditioning: Any, words: str, strength: float = 1.0) -> tuple[Any, Any]:
    return ConceptStrengthen.execute(
        model=model,
        conditioning=conditioning,
        hrv=setup.hrv,
        words=words,
        concept="Color",
        strength=strength,
        start=0.0,
        end=1.0,
        clamp=0.0,
    ).result


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_each_prompt_is_read_with_its_own_controls(request: pytest.FixtureRequest, kind: str) -> None:
    setup: Setup = request.getfixturevalue(kind)
    heads = setup.hrv.layout.head_count
    own, others = np.ones((77, heads)), np.ones((77, heads))
    own[2] = setup.hrv.row("Color")
    others[2] = 1 + 2 * (setup.hrv.row("Color").astype(float) - 1)
    exact = with_explicit_readings(
        setup.model, [Ask(strength=0.8).explicit(setup, setup.prompt, weights=others, own_weights=own)]
    )
    expected = unet_rows(exact, setup.prompt, setup.negative)
    plain = unet_rows(setup.model, setup.prompt, setup.negative)
    other = strengthened(setup, setup.model, encoded(setup.clip, OTHER), "blue", 2.0)[1]
    model, conditioning = strengthened(setup, setup.model, setup.prompt, "red")
    before = Ask(strength=0.8).apply(setup, model, conditioning, other)
    after = strengthened(setup, *Ask(strength=0.8).apply(setup, setup.model, setup.prompt, other), "red")
    found = unet_rows(*before, setup.negative)
    assert_rows_close(found, expected, plain)
    for one, two in zip(found, unet_rows(*after, setup.negative), strict=True):
        assert torch.equal(one.output, two.output)


def rows_of(rows: Sequence[UNetRow], conditioning: Any) -> list[torch.Tensor]:
    context = conditioning[0][0][0]
    return [row.output for row in rows if torch.equal(row.context[: len(context)], context)]


def test_conditionings_of_one_run_stay_apart(sd15: Setup) -> None:
    """Of two areas, one a schedule's, and a negative prompt each reads what it was given, or nothing."""
    tree = encoded(sd15.clip, "a tree")
    model, first = Ask().apply(sd15, sd15.model, sd15.prompt)
    model, negative = Ask("pretty", "Color", 7).apply(sd15, model, sd15.negative)

    def placed(conditioning: Any, x: int) -> Any:
        return ConditioningSetArea().append(conditioning, 64, 128, x, 0, 1.0)[0]

    def run(model: Any, first: Any, negative: Any) -> list[UNetRow]:
        (early,) = ConditioningSetTimestepRange().set_range(tree, 0.0, 0.6)
        return unet_rows(model, [*placed(first, 0), *placed(early, 64)], negative, size=16, steps=3)

    found, without = run(model, first, negative), run(sd15.model, sd15.prompt, sd15.negative)
    exact = with_explicit_readings(
        sd15.model,
        [Ask().explicit(sd15, sd15.prompt), Ask("pretty", "Color", 7).explicit(sd15, sd15.negative)],
    )
    for one, other in zip(found, run(exact, sd15.prompt, sd15.negative), strict=True):
        assert relative_error(one.output, other.output) <= TOLERANCE
    pairs = {
        name: list(zip(rows_of(found, prompt), rows_of(without, prompt), strict=True))
        for name, prompt in (("tree", tree), ("prompt", sd15.prompt), ("negative", sd15.negative))
    }
    assert all(pairs.values()) and all(torch.equal(one, other) for one, other in pairs.pop("tree"))
    assert all(relative_error(one, other) > 100 * TOLERANCE for both in pairs.values() for one, other in both)


@pytest.mark.parametrize("split", [(1, 1, 1), (2, 1)], ids=str)
def test_any_split_of_a_batch_gives_the_same(sd15: Setup, split: tuple[int, ...]) -> None:
    graph = reading(sd15, Ask(), Ask("a green tree", "Color", end=0.5))
    whole = latents(*graph, sd15.negative, seeds=(5, 6, 7))
    parts, first = [], 5
    for size in split:
        parts.append(latents(*graph, sd15.negative, seeds=range(first, first + size)))
        first += size
    assert relative_error(torch.cat(parts), whole) <= TOLERANCE


@pytest.mark.parametrize("change", [lambda model: model, lambda model: with_token_patch(model)], ids=["plain", "patch"])
def test_the_other_prompt_may_be_one_a_row(sd15: Setup, change: Any) -> None:
    """As the host has it for conditionings: a row for each of the latent's."""
    model = change(sd15.model)
    first, second = encoded(sd15.clip, OTHER), encoded(sd15.clip, "a green tree")
    both = [[torch.cat([first[0][0], second[0][0]]), {}]]
    found = latents(*Ask().apply(sd15, model, sd15.prompt, both), sd15.negative, seeds=(5, 6))
    for row, (other, seed) in enumerate(((first, 5), (second, 6))):
        alone = latents(*Ask().apply(sd15, model, sd15.prompt, other), sd15.negative, seeds=(seed,))
        assert relative_error(found[row : row + 1], alone) <= TOLERANCE


def test_calls_that_the_host_splits_for_lack_of_memory_give_the_same(
    sd15: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = reading(sd15, Ask())
    together = latents(*graph, sd15.negative)
    monkeypatch.setattr(sd15.model.__class__, "get_free_memory", lambda *_: 0)
    assert relative_error(latents(*graph, sd15.negative), together) <= TOLERANCE


def test_cfg_1_evaluates_the_prompt_alone(sd15: Setup) -> None:
    exact = with_explicit_readings(sd15.model, [Ask().explicit(sd15, sd15.prompt)])
    found = unet_rows(*reading(sd15, Ask()), sd15.negative, cfg=1.0)
    expected = unet_rows(exact, sd15.prompt, sd15.negative, cfg=1.0)
    assert len(found) == 3
    assert_rows_close(found, expected, expected)


def test_only_the_heads_concerned_attend_again(sd15: Setup) -> None:
    calls: list[tuple[int, int, int]] = []

    def override(backend: Any, q: torch.Tensor, k: torch.Tensor, v: Any, heads: int, *args: Any, **more: Any) -> Any:
        calls.append((len(q), k.shape[1], heads))
        return backend(q, k, v, heads, *args, **more)

    chosen = sd15.model.clone()
    chosen.model_options["transformer_options"]["optimized_attention_override"] = override
    layout = sd15.hrv.layout
    latents(chosen, sd15.prompt, sd15.negative, steps=2)
    once, calls[:] = list(calls), []
    latents(*reading(sd15, Ask(LONG), model=chosen), sd15.negative, steps=2)
    read = np.flatnonzero(Ask().gates(sd15))
    by_layer = [int(((layout.head_slice(layer.key).start <= read) & (read < layout.head_slice(layer.key).stop)).sum())
                for layer in layout.layers]  # fmt: skip
    again = [(1, 154, heads) for heads in by_layer if heads] * 2
    assert len(again) < 2 * len(layout.layers)
    assert sorted(calls) == sorted([*once, *again])


def foreign(seen: list[torch.Tensor], added: float) -> Callable[..., torch.Tensor]:
    """Another pack's replacer, which adds something of its own to the attention."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
        seen.append(v)
        return optimized_attention(q, k, v, extra["n_heads"]) + added * q

    return attend


@pytest.mark.parametrize("ours_first", [False, True])
def test_a_replacer_that_is_there_is_called_once_and_adds_what_it_adds(sd15: Setup, ours_first: bool) -> None:
    other = encoded(sd15.clip, OTHER)
    seen: list[torch.Tensor] = []

    def adapted(model: Any) -> Any:
        clone = model.clone()
        for key in unet_of(model).cross_attention:
            clone.set_model_attn2_replace(foreign(seen, 0.3), *key[:2])
        return clone

    expected = latents(adapted(sd15.model), other, sd15.negative, steps=2)
    once = len(seen)
    seen.clear()
    if ours_first:
        model, positive = all_heads(sd15, other)
        model = adapted(model)
    else:
        model, positive = all_heads(sd15, other, adapted(sd15.model))
    assert relative_error(latents(model, positive, sd15.negative, steps=2), expected) <= TOLERANCE
    assert len(seen) == once == 2 * len(sd15.hrv.layout.layers)


def with_lora(model: Any) -> Any:
    patches = {
        f"diffusion_model.{name}": (torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)) * 0.05,)
        for name, weight in model.model.diffusion_model.named_parameters()
        if name.endswith(("to_k.weight", "to_v.weight"))
    }
    clone = model.clone()
    clone.add_patches({name: ("diff", patch) for name, patch in patches.items()}, 1.0)
    return clone


def with_token_patch(model: Any) -> Any:
    """As a hypernetwork: what keys and values are made of is changed token by token."""
    clone = model.clone()
    clone.set_model_attn2_patch(lambda n, context, value, extra: (n, 1.3 * context, value.tanh()))
    return clone


@pytest.mark.parametrize("change", [with_lora, with_token_patch])
def test_the_other_prompt_goes_into_the_layers_as_the_rows_do(sd15: Setup, change: Any) -> None:
    other = encoded(sd15.clip, OTHER)
    expected = latents(change(sd15.model), other, sd15.negative)
    for model, positive in (
        all_heads(sd15, other, change(sd15.model)),
        (change(all_heads(sd15, other)[0]), all_heads(sd15, other)[1]),
    ):
        assert relative_error(latents(model, positive, sd15.negative), expected) <= TOLERANCE
    assert relative_error(latents(sd15.model, other, sd15.negative), expected) > 100 * TOLERANCE


def test_hooks_of_the_prompt_change_how_the_other_one_is_read(sd15: Setup) -> None:
    """Weights are whatever they are when a layer runs, a schedule's keyframes included."""
    other = encoded(sd15.clip, OTHER)
    weights = {
        f"diffusion_model.{name}": torch.randn(weight.shape, generator=torch.Generator().manual_seed(4)) * 0.05
        for name, weight in sd15.model.model.diffusion_model.named_parameters()
        if name.endswith(("to_k.weight", "to_v.weight"))
    }
    hook = comfy.hooks.WeightHook(strength_model=1.0, strength_clip=0.0)
    hook.weights = {name: ("diff", (weight,)) for name, weight in weights.items()}
    hook.need_weight_init = False
    group = comfy.hooks.HookGroup()
    group.add(hook)
    keyframes = comfy.hooks.HookKeyframeGroup()
    keyframes.add(comfy.hooks.HookKeyframe(strength=1.0, start_percent=0.0))
    keyframes.add(comfy.hooks.HookKeyframe(strength=0.2, start_percent=0.5))
    group.set_keyframes_on_hooks(keyframes)

    def hooked(conditioning: Any) -> Any:
        return comfy.hooks.set_hooks_for_conditioning(conditioning, group)

    model, positive = all_heads(sd15, other)
    expected = latents(model, hooked(other), sd15.negative)
    assert relative_error(latents(model, hooked(positive), sd15.negative), expected) <= TOLERANCE
    assert relative_error(latents(model, other, sd15.negative), expected) > 100 * TOLERANCE


@pytest.mark.parametrize("marked", [False, True])
def test_negpips_doubled_context_is_split_for_the_other_prompt_too(sd15: Setup, marked: bool) -> None:
    patched, doubled = sd15.model.clone(), sd15.clip.clone()
    encoder = sd15.clip.cond_stage_model.clip_l

    def encode(token_weights: Any) -> Any:
        out, pooled, *rest = type(encoder).encode_token_weights(encoder, token_weights)
        return torch.stack([out, out], dim=2).flatten(1, 2), pooled, *rest

    doubled.patcher.add_object_patch("clip_l.encode_token_weights", encode)
    patched.set_model_attn2_patch(lambda q, k, v, extra: (q, k[:, 0::2], v[:, 1::2]))
    if marked:
        patched.model_options["ppm_negpip"] = True

    def run(model: Any, clip: Any) -> torch.Tensor:
        prompt, other, negative = (encoded(clip, text) for text in (PROMPT, OTHER, "ugly, blurry"))
        other = strengthened(sd15, model, other, "blue")[1]
        return latents(*Ask().apply(sd15, model, prompt, other), negative)

    # With values of its own sign NegPip changes nothing.
    assert relative_error(run(patched, doubled), run(sd15.model, sd15.clip)) <= TOLERANCE


def with_couple(model: Any, region: torch.Tensor) -> Any:
    """Attention couple's protocol: each positive chunk's rows, then those of the region; they weigh the same."""

    def before(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> Any:
        layout, queries, context = [], [], []
        chunks = len(extra["cond_or_uncond"])
        for number, rows, own in zip(extra["cond_or_uncond"], q.chunk(chunks), k.chunk(chunks), strict=True):
            prompts = [own] if number == 1 else [own, region.expand(len(rows), -1, -1)]
            layout += [number] * len(prompts)
            queries += [rows] * len(prompts)
            context += prompts
        extra["cond_or_uncond_couple"] = layout
        return torch.cat(queries), torch.cat(context), torch.cat(context)

    def after(out: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
        groups, chunks = list(out.chunk(len(extra["cond_or_uncond_couple"]))), []
        for number in extra["cond_or_uncond"]:
            own = groups[: 2 - number]
            groups = groups[2 - number :]
            chunks.append(torch.stack(own).mean(0))
        return torch.cat(chunks)

    clone = model.clone()
    clone.set_model_attn2_patch(before)
    clone.set_model_attn2_output_patch(after)
    return clone


def test_the_base_prompt_of_attention_couple_reads_the_other_one(sd15: Setup) -> None:
    other, region = encoded(sd15.clip, OTHER), encoded(sd15.clip, "a tree")[0][0]
    expected = latents(with_couple(sd15.model, region), other, sd15.negative, seeds=(5, 6))
    model, positive = all_heads(sd15, other)
    found = latents(with_couple(model, region), positive, sd15.negative, seeds=(5, 6))
    assert relative_error(found, expected) <= TOLERANCE
    apart = latents(with_couple(sd15.model, region), sd15.prompt, sd15.negative, seeds=(5, 6))
    assert relative_error(apart, expected) > 100 * TOLERANCE


Shown = list[tuple[str, str, str]]


def said(shown: Shown, run: Callable[[], Any]) -> list[str]:
    from comfy_execution.utils import CurrentNodeContext

    shown.clear()
    with CurrentNodeContext("a prompt", "7"):
        run()
    return [text for text, *_ in shown]


def test_what_cannot_be_read_is_said_once(sd15: Setup, shown: Shown) -> None:
    model, positive = reading(sd15, Ask())

    def unknown(q: Any, k: Any, v: Any, extra: dict[str, Any]) -> Any:
        extra["cond_or_uncond_couple"] = [0] * len(extra["cond_or_uncond"])
        return q, k, v

    rearranged = model.clone()
    rearranged.set_model_attn2_patch(unknown)
    found: list[torch.Tensor] = []
    texts = said(shown, lambda: found.append(latents(rearranged, positive, sd15.negative)))
    assert texts == [
        "HRV: Another node changed how prompts share the rows of the batch; Read by Concept is left out there."
    ]
    assert torch.equal(found[0], latents(sd15.model, sd15.prompt, sd15.negative))

    (lost,) = ConditioningConcat().concat(sd15.prompt, positive)
    (text,) = said(shown, lambda: latents(model, lost, sd15.negative))
    assert text.startswith('HRV: read Shape (5 heads) from "a blue square": on no prompt of this run.')
    kept = concatenate(sd15.prompt, positive)
    assert said(shown, lambda: latents(model, kept, sd15.negative)) == []
    assert [one.reading.label for one in kept[0][1][READINGS_KEY]] == ['read Shape (5 heads) from "a blue square"']


def test_controls_that_the_other_prompt_carries_are_not_missed(sd15: Setup, shown: Shown) -> None:
    model, other = strengthened(sd15, sd15.model, encoded(sd15.clip, OTHER), "blue")
    (joined,) = ConditioningConcat().concat(sd15.prompt, sd15.prompt)
    model, positive = Ask().apply(sd15, model, joined, other)
    assert said(shown, lambda: latents(model, positive, sd15.negative)) == []


def test_a_target_of_an_edit_reads_its_own_other_prompt(sd15: Setup) -> None:
    other = encoded(sd15.clip, OTHER)
    model, target = all_heads(sd15, other, conditioning=encoded(sd15.clip, "a green car and a skyscrapers view"))
    closed = EditWindows(Window(0.0, 0.0), Window(0.0, 0.0))
    rows, _ = edit_prompt(sd15.prompt, target, closed)
    latent = add_row({"samples": torch.zeros(1, 4, 8, 8)}, 2)
    assert len(latent["samples"]) == 2
    found = latents(model, rows, sd15.negative, seeds=(5, 5))
    assert relative_error(found[:1], latents(sd15.model, sd15.prompt, sd15.negative)) <= TOLERANCE
    assert relative_error(found[1:], latents(sd15.model, other, sd15.negative)) <= TOLERANCE


def test_gradients_go_through_both_prompts(sd15: Setup) -> None:
    """What Attend and Excite moves the latent by is what explicit maps of both prompts give."""
    settings = ExcitementSettings(step_size=0.5, thresholds=())
    exact = with_explicit_readings(sd15.model, [Ask().explicit(sd15, sd15.prompt)])

    def moved(model: Any, positive: Any) -> torch.Tensor:
        model, positive, _ = excite(model, positive, [("car", "Color")], sd15.hrv, settings)
        return latents(model, positive, sd15.negative, size=16)

    found = moved(*reading(sd15, Ask()))
    assert relative_error(found, moved(exact, sd15.prompt)) <= 100 * TOLERANCE
    assert relative_error(found, moved(sd15.model, sd15.prompt)) > 1000 * TOLERANCE


def test_a_compiled_model_is_compiled_once() -> None:
    shallow = Setup.of(shallow_sd15(), small_clip_sd15(), PROMPT)
    model, positive = reading(shallow, Ask(start=0.2, end=0.8))
    expected = latents(model, positive, shallow.negative)
    model, count = compiled_and_counted(model)
    assert relative_error(latents(model, positive, shallow.negative), expected) <= TOLERANCE
    first = count.graphs
    latents(model, positive, shallow.negative, steps=6)
    assert first > 0 and count.graphs == first


def test_half_precision_loses_no_more_than_sampling_the_other_prompt_does(sd15: Setup) -> None:
    other = encoded(sd15.clip, OTHER)
    exact = latents(sd15.model, other, sd15.negative)
    half = Setup(small_sd15(torch.bfloat16), sd15.clip, sd15.hrv, sd15.prompt, sd15.negative)
    plain = relative_error(latents(half.model, other, sd15.negative), exact)
    assert relative_error(latents(*all_heads(half, other), sd15.negative), exact) <= 2 * plain


def test_nothing_that_a_user_has_changes_and_a_run_leaves_nothing_behind(sd15: Setup) -> None:
    other = encoded(sd15.clip, OTHER)
    given = (sd15.model, sd15.prompt, other, sd15.negative)
    before = [picture_of_model(sd15.model), *map(picture, given[1:])]
    model, positive = Ask(start=0.1).apply(sd15, sd15.model, sd15.prompt, other)
    made = picture_of_model(model), picture(positive)
    expected = latents(model, positive, sd15.negative)
    alive: list[int] = []

    def stop(step: int, *_: Any) -> None:
        gc.collect()
        alive.append(sum(type(thing) is ReadingRun for thing in gc.get_objects()))
        if step == 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        latents(model, positive, sd15.negative, callback=stop)
    gc.collect()
    assert alive == [1, 1] and not any(type(thing) is ReadingRun for thing in gc.get_objects())
    assert [picture_of_model(sd15.model), *map(picture, given[1:])] == before
    assert (picture_of_model(model), picture(positive)) == made
    assert torch.equal(latents(model, positive, sd15.negative), expected)


def test_what_does_not_fit_is_said(sd15: Setup, sdxl: Setup) -> None:
    other = encoded(sd15.clip, OTHER)
    _, positive = reading(sd15, Ask())
    foreign_heads = [[sdxl.prompt[0][0], {**sdxl.prompt[0][1], READINGS_KEY: positive[0][1][READINGS_KEY]}]]
    rows, _ = edit_prompt(sd15.prompt, other, EditWindows(Window(), Window()))
    for call, sentence in (
        (lambda: latents(reading(sdxl, Ask())[0], foreign_heads, sdxl.negative),
         "The control 'read Shape .* was made for .* but this model has"),
        (lambda: Ask().apply(sd15, sdxl.model, sdxl.prompt, other), "56 heads .* 19 heads"),
        (lambda: Ask().apply(sd15, sd15.model, sd15.prompt, encoded(sdxl.clip, OTHER)), "features per token"),
        (lambda: Ask().apply(sd15, sd15.model, sd15.prompt, [*other, *other]), "several prompts in one"),
        (lambda: Ask().apply(sd15, sd15.model, sd15.prompt, rows), "several prompts in one"),
        (lambda: Ask().apply(sd15, sd15.model, rows, other), "in front of Prompt Edit"),
        (lambda: Ask().apply(sd15, sd15.model, other, positive), "comes from Read by Concept itself"),
        (lambda: reading(sd15, Ask(concept="Weather")), "Weather"),
        (lambda: reading(sd15, Ask(heads=57)), "0 to 56 can read another prompt, not 57"),
    ):  # fmt: skip
        with pytest.raises(HRVError, match=sentence):
            call()


def test_settings_of_the_other_prompt_that_do_not_count_are_said(sd15: Setup, caplog: pytest.LogCaptureFixture) -> None:
    (placed,) = ConditioningSetArea().append(encoded(sd15.clip, OTHER), 64, 64, 0, 0, 1.0)
    Ask().apply(sd15, sd15.model, sd15.prompt, placed)
    assert "Read by Concept: Only the words of the other prompt are read; its settings are ignored: area" in caplog.text


def test_zero_heads_is_the_default_share(sd15: Setup) -> None:
    _, positive = reading(sd15, Ask(heads=0))
    assert int(positive[0][1][READINGS_KEY][0].reading.gates.sum()) == round(0.06 * head_layout(sd15.model).head_count)


def test_another_prompt_of_numbers_that_are_not_finite_is_refused(sd15: Setup) -> None:
    ((tensor, extras),) = encoded(sd15.clip, OTHER)
    broken = tensor.clone()
    broken[0, 3, 2] = float("nan")
    with pytest.raises(
        HRVError, match=r"^The other prompt has numbers that aren't finite, so the image would be black"
    ):
        Ask().apply(sd15, sd15.model, sd15.prompt, [[broken, extras]])
    # Which is never read at strength 0.
    assert Ask(strength=0.0).apply(sd15, sd15.model, sd15.prompt, [[broken, extras]])
