"""Controls beside packs on the same hooks, by small stand-ins that keep to these packs' protocols.

V is a layer's projection of the prompt and of nothing else, so what reaches a layer can be said exactly: the V of the
same run without controls, with the rows of the controlled words multiplied by the control's factors.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.hooks
import pytest
import torch
from comfy.ldm.modules.attention import optimized_attention
from hrv_pack.host.models.architectures import unet_of
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.prompts.joining import concatenate
from hrv_pack.hrv.controls.control import Control, strengthen
from hrv_pack.hrv.heads.layout import LayerKey
from hrv_pack.hrv.progress import Window
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.nodes.controls import ConceptStrengthen
from hrv_pack.tests.support.small_host import (
    Rescaling,
    encoded,
    latents,
    random_hrv,
    relative_error,
    small_clip_sd15,
    small_sd15,
    with_explicit_maps,
)

from nodes import ConditioningConcat

RED = 2
STEPS = 2
LONG = "a red tree " + "and a large tree of many leaves " * 12


@dataclass(frozen=True)
class Setup:
    model: Any
    clip: Any
    hrv: HRV

    def controlled(self, model: Any, prompt: Any, strength: float = 1.0) -> tuple[Any, Any]:
        return ConceptStrengthen.execute(
            model=model,
            conditioning=prompt,
            hrv=self.hrv,
            words="red",
            concept="Color",
            strength=strength,
            start=0.0,
            end=1.0,
            clamp=0.0,
        ).result

    def control(self, strength: float = 1.0) -> Control:
        return strengthen(self.hrv, "Color", [RED], strength, Window(), None)


@pytest.fixture(scope="module")
def setup() -> Setup:
    model = small_sd15()
    return Setup(model, small_clip_sd15(), random_hrv(head_layout(model)))


@dataclass(frozen=True)
class Layer:
    """V of a layer in one call, with the host's lists of the batch and what attention couple made of them."""

    key: LayerKey
    v: torch.Tensor
    lists: list[int]


def with_witness(model: Any, seen: list[Layer]) -> Any:
    """A clone that keeps what reaches every layer."""

    def witness(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
        seen.append(Layer((*extra["block"], extra["block_index"]), v.clone(), list(extra["cond_or_uncond"])))
        return optimized_attention(q, k, v, extra["n_heads"])

    clone = model.clone()
    for key in unet_of(model).cross_attention:
        clone.set_model_attn2_replace(witness, *key)
    return clone


# The rows of one prompt in a batch: their number, the tokens of the prompt before repetition, and its control.
Rows = tuple[int, int, Control | None]


def assert_scaled(
    setup: Setup, found: Sequence[Layer], plain: Sequence[Layer], rows_of: Callable[[list[int]], list[Rows]]
) -> None:
    """Every layer's V is the plain one with the factors that ``rows_of`` the call's lists asks for, and not without."""
    assert len(found) == len(plain) > 0
    layout = head_layout(setup.model)
    for one, other in zip(found, plain, strict=True):
        assert (one.key, one.lists) == (other.key, other.lists)
        expected, first = other.v.clone(), 0
        for rows, tokens, control in rows_of(one.lists):
            if control is not None:
                factors = torch.tensor(control.weights[layout.head_slice(one.key)])
                factors = factors.repeat_interleave(one.v.shape[-1] // len(factors))
                for start in range(0, one.v.shape[1], tokens):
                    expected[first : first + rows, start + RED] *= factors
            first += rows
        assert first == len(one.v)
        assert relative_error(one.v, expected) <= 1e-6
        assert torch.equal(one.v, other.v) == torch.equal(expected, other.v)


class Adapter:
    """IPAdapter's protocol: attention plus what each callback adds; whoever comes second is added to the first."""

    def __init__(self, callback: Any, **kwargs: Any):
        self.callbacks = [(callback, kwargs)]

    def add(self, callback: Any, **kwargs: Any) -> None:
        self.callbacks.append((callback, kwargs))

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
        out = optimized_attention(q, k, v, extra["n_heads"])
        sigma = float(extra["sigmas"][0])
        for callback, kwargs in self.callbacks:
            if kwargs["sigma_end"] <= sigma <= kwargs["sigma_start"]:
                out = out + callback(out, q, k, v, extra, **kwargs)
        return out


def image_attention(
    out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any], weight: float, **_: Any
) -> torch.Tensor:
    """What an image adds: attention to four tokens of its own, the same in every call."""
    generator = torch.Generator().manual_seed(q.shape[-1])
    keys, values = torch.randn(2, 4, q.shape[-1], generator=generator)
    return weight * optimized_attention(q, *(part.expand(len(q), -1, -1) for part in (keys, values)), extra["n_heads"])


def with_adapter(model: Any, weight: float, parts: int, sigma_end: float = 0.0) -> Any:
    """A clone with an adapter under two-part keys, as on SD 1.x, or three-part keys, as on SDXL."""
    clone = model.clone()
    for key in unet_of(model).cross_attention:
        place = key[:parts] if parts == 2 else key
        options = clone.model_options["transformer_options"] = clone.model_options["transformer_options"].copy()
        replace = options["patches_replace"] = {**options.get("patches_replace", {})}
        there = replace["attn2"] = {**replace.get("attn2", {})}
        kwargs = {"weight": weight, "sigma_start": 1e9, "sigma_end": sigma_end}
        if hasattr(there.get(place), "add"):
            there[place].add(image_attention, **kwargs)
        else:
            there[place] = Adapter(image_attention, **kwargs)
    return clone


@pytest.mark.parametrize("parts", [2, 3])
def test_image_adapters_and_controls_are_both_in_effect(setup: Setup, parts: int) -> None:
    prompt, negative = encoded(setup.clip, "a red car"), encoded(setup.clip, "ugly")
    rescaling = Rescaling(prompt[0][0][0], (RED,), setup.hrv.row("Color"))

    def adapted(model: Any) -> Any:
        return with_adapter(with_adapter(model, 0.7, parts), 0.4, parts, sigma_end=3.0)

    model, positive = setup.controlled(setup.model, prompt)
    found = latents(adapted(model), positive, negative)
    for other in (
        setup.controlled(adapted(setup.model), prompt),
        setup.controlled(with_adapter(with_adapter(setup.model, 0.7, parts), 0.4, parts, sigma_end=3.0), prompt),
    ):
        assert torch.equal(found, latents(*other, negative))
    assert relative_error(found, latents(adapted(setup.model), prompt, negative)) > 0.01
    assert relative_error(found, latents(model, positive, negative)) > 0.01

    # The oracle: explicit maps with the control, plus what the images add.
    exact = with_explicit_maps(setup.model, [rescaling])
    replacers = exact.model_options["transformer_options"]["patches_replace"]["attn2"]
    for key, maps in list(replacers.items()):

        def both(q: Any, k: Any, v: Any, extra: Any, maps: Any = maps) -> torch.Tensor:
            out = maps(q, k, v, extra) + image_attention(q, q, k, v, extra, 0.7)
            return out + image_attention(q, q, k, v, extra, 0.4) if float(extra["sigmas"][0]) >= 3.0 else out

        exact.set_model_attn2_replace(both, *key)
    assert relative_error(found, latents(exact, prompt, negative)) <= 1e-4


def test_a_replacer_that_a_hook_brings_is_called_with_the_scaled_values(setup: Setup) -> None:
    prompt, negative = encoded(setup.clip, "a red car"), encoded(setup.clip, "ugly")
    seen: list[torch.Tensor] = []

    def hooked(conditioning: Any, key: tuple[Any, ...]) -> Any:
        def replacer(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
            seen.append(v.clone())
            return optimized_attention(q, k, v, extra["n_heads"]) * 0.5

        group = comfy.hooks.HookGroup()
        group.add(
            comfy.hooks.TransformerOptionsHook(
                {"patches_replace": {"attn2": {key: replacer}}}, hook_scope=comfy.hooks.EnumHookScope.HookedOnly
            )
        )
        return comfy.hooks.set_hooks_for_conditioning(conditioning, group)

    model, positive = setup.controlled(setup.model, prompt)
    for key in (("middle", 0), ("middle", 0, 0)):
        seen.clear()
        latents(setup.model, hooked(prompt, key), negative, steps=STEPS)
        plain = list(seen)
        seen.clear()
        found = latents(model, hooked(positive, key), negative, steps=STEPS)
        assert len(seen) == len(plain) == STEPS
        factors = torch.tensor(setup.control().weights[head_layout(model).head_slice(("middle", 0, 0))])
        for one, other in zip(seen, plain, strict=True):
            expected = other.clone()
            expected[:, RED] *= factors.repeat_interleave(expected.shape[-1] // len(factors))
            assert relative_error(one, expected) <= 1e-6
        assert relative_error(latents(model, positive, negative, steps=STEPS), found) > 0.01


def negpip(model: Any, clip: Any, sign: float, marked: bool) -> tuple[Any, Any]:
    """NegPip's protocol: each token of the context followed by another one for its value, split again in the UNet."""
    patched, doubled = model.clone(), clip.clone()
    encoder = clip.cond_stage_model.clip_l

    def encode(token_weights: Any) -> Any:
        out, pooled, *rest = type(encoder).encode_token_weights(encoder, token_weights)
        return torch.stack([out, sign * out], dim=2).flatten(1, 2), pooled, *rest

    doubled.patcher.add_object_patch("clip_l.encode_token_weights", encode)
    patched.set_model_attn2_patch(lambda q, k, v, extra: (q, k[:, 0::2], v[:, 1::2]))
    if marked:
        patched.model_options["ppm_negpip"] = True
    return patched, doubled


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("text", ["a red car", LONG], ids=["short", "long"])
def test_controls_find_their_words_in_the_doubled_context_of_negpip(setup: Setup, text: str, marked: bool) -> None:
    model, clip = negpip(setup.model, setup.clip, 1.0, marked)
    prompt, negative = encoded(clip, text), encoded(clip, "ugly")
    plain_prompt, plain_negative = encoded(setup.clip, text), encoded(setup.clip, "ugly")
    assert prompt[0][0].shape[1] == 2 * plain_prompt[0][0].shape[1]
    # With values of its own sign NegPip changes nothing, so it must not here either.
    expected = latents(*setup.controlled(setup.model, plain_prompt), plain_negative)
    assert torch.equal(latents(*setup.controlled(model, prompt), negative), expected)
    first, positive = setup.controlled(setup.model, prompt)
    assert torch.equal(latents(negpip(first, setup.clip, 1.0, marked)[0], positive, negative), expected)
    assert relative_error(latents(model, prompt, negative), expected) > 0.01

    # With the sign turned everything but the values stays.
    turned, clip = negpip(setup.model, setup.clip, -1.0, marked)
    prompt, negative = encoded(clip, text), encoded(clip, "ugly")
    assert relative_error(latents(*setup.controlled(turned, prompt), negative), expected) > 0.01


Region = tuple[torch.Tensor, dict[str, Any]]


def couple_patches(key: str, regions: Sequence[torch.Tensor]) -> dict[str, list[Any]]:
    """Attention couple's protocol: a positive chunk's rows, then those of each region; one number of tokens for all.

    Regions weigh the same everywhere here.
    """

    def before(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        chunks = len(extra["cond_or_uncond"])
        tokens = math.lcm(k.shape[1], *(region.shape[1] for region in regions))
        layout, queries, context = [], [], []
        for number, rows, own in zip(extra["cond_or_uncond"], q.chunk(chunks), k.chunk(chunks), strict=True):
            prompts = [own] if number == 1 else [own, *(region.repeat(len(rows), 1, 1) for region in regions)]
            layout += [number] * len(prompts)
            queries += [rows] * len(prompts)
            context += [prompt.repeat(1, tokens // prompt.shape[1], 1) for prompt in prompts]
        extra[key] = layout
        return torch.cat(queries), torch.cat(context), torch.cat(context)

    def after(out: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
        groups, chunks = out.chunk(len(extra[key])), []
        for number in extra["cond_or_uncond"]:
            own = 1 if number == 1 else 1 + len(regions)
            chunks.append(torch.stack(groups[:own]).mean(0))
            groups = groups[own:]
        return torch.cat(chunks)

    return {"attn2_patch": [before], "attn2_output_patch": [after]}


def with_couple(model: Any, key: str, *regions: Any) -> Any:
    """On the model, as ComfyUI-ppm and SwarmUI do it."""
    clone = model.clone()
    patches = couple_patches(key, [region[0][0] for region in regions])
    clone.set_model_attn2_patch(patches["attn2_patch"][0])
    clone.set_model_attn2_output_patch(patches["attn2_output_patch"][0])
    return clone


def with_couple_hook(base: Any, *regions: Any) -> Any:
    """On the conditioning, as prompt-control does it, which tells the regional conditionings."""
    entries = [base[0], *(region[0] for region in regions)]
    options = {
        "patches": couple_patches("cond_or_uncond_hook_couple", [region[0][0] for region in regions]),
        "pc_couple": {"conds": entries},
    }
    group = comfy.hooks.HookGroup()
    group.add(comfy.hooks.TransformerOptionsHook(options, hook_scope=comfy.hooks.EnumHookScope.HookedOnly))
    return comfy.hooks.set_hooks_for_conditioning(base, group)


@pytest.mark.parametrize("key", ["cond_or_uncond_couple", "swarm_cond_or_uncond_couple"])
@pytest.mark.parametrize("ours_first", [False, True])
def test_the_base_prompt_of_attention_couple_keeps_its_controls(setup: Setup, key: str, ours_first: bool) -> None:
    base, negative = encoded(setup.clip, "a red car"), encoded(setup.clip, "ugly")
    regions = encoded(setup.clip, LONG), encoded(setup.clip, "a red bird")
    tokens = [entry[0][0].shape[1] for entry in (base, *regions)]
    assert tokens == [77, 154, 77]
    plain: list[Layer] = []
    expected = latents(with_couple(with_witness(setup.model, plain), key, *regions), base, negative, steps=STEPS)
    seen: list[Layer] = []
    witnessed = with_witness(setup.model, seen)
    if ours_first:
        model, positive = setup.controlled(witnessed, base)
        model = with_couple(model, key, *regions)
    else:
        model, positive = setup.controlled(with_couple(witnessed, key, *regions), base)
    found = latents(model, positive, negative, steps=STEPS)
    assert relative_error(found, expected) > 0.01

    def rows(lists: list[int]) -> list[Rows]:
        own: list[Rows] = [(1, 77, setup.control()), (1, 154, None), (1, 77, None)]
        return [row for number in lists for row in ([(1, 77, None)] if number == 1 else own)]

    assert_scaled(setup, seen, plain, rows)


def test_every_prompt_of_a_hooks_attention_couple_keeps_its_own_controls(setup: Setup) -> None:
    base, negative = encoded(setup.clip, "a red car"), encoded(setup.clip, "ugly")
    regions = encoded(setup.clip, LONG), encoded(setup.clip, "a red bird")
    plain: list[Layer] = []
    latents(with_witness(setup.model, plain), with_couple_hook(base, *regions), negative, steps=STEPS, seeds=(1, 2))
    for strengths in ((1.0, None, None), (None, 0.5, None), (1.0, None, -0.5), (0.3, 0.6, 0.9)):
        seen: list[Layer] = []
        model, prompts = with_witness(setup.model, seen), [base, *regions]
        for number, strength in enumerate(strengths):
            if strength is not None:
                model, prompts[number] = setup.controlled(model, prompts[number], strength)
        latents(model, with_couple_hook(*prompts), negative, steps=STEPS, seeds=(1, 2))
        controls = [None if strength is None else setup.control(strength) for strength in strengths]

        def rows(lists: list[int], controls: Any = controls) -> list[Rows]:
            if lists == [1]:
                return [(2, 77, None)]
            assert lists == [0]
            return [(2, tokens, control) for tokens, control in zip((77, 154, 77), controls, strict=True)]

        assert_scaled(setup, seen, plain, rows)


def test_a_control_behind_a_hooks_attention_couple_is_the_base_prompts(setup: Setup) -> None:
    base, negative = encoded(setup.clip, "a red car"), encoded(setup.clip, "ugly")
    region = encoded(setup.clip, LONG)
    model, in_front = setup.controlled(setup.model, base)
    found = latents(model, with_couple_hook(in_front, region), negative)
    model, behind = setup.controlled(setup.model, with_couple_hook(base, region))
    assert torch.equal(latents(model, behind, negative), found)
    assert relative_error(latents(setup.model, with_couple_hook(base, region), negative), found) > 0.01


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The pack's warnings so far."""
    caplog.set_level(logging.WARNING)
    return lambda: [record.message for record in caplog.records if record.message.startswith("[HRV]")]


def test_a_negative_with_attention_couple_keeps_its_controls(setup: Setup, warnings: Any) -> None:
    # The negative's rows alone in a call: none of them is of a region, for attention couple divides positives only.
    prompt, base = encoded(setup.clip, "a red car"), encoded(setup.clip, "a red wall")
    region = encoded(setup.clip, LONG)
    model, negative = setup.controlled(setup.model, base)
    plain = latents(setup.model, prompt, with_couple_hook(base, region))
    found = latents(model, prompt, with_couple_hook(negative, region))
    assert relative_error(found, latents(model, prompt, negative)) <= 1e-4
    assert relative_error(found, plain) > 0.01
    model, positive = setup.controlled(setup.model, prompt)
    assert relative_error(latents(model, positive, with_couple_hook(base, region)), plain) > 0.01
    assert warnings() == []


def test_a_layout_that_is_not_understood_is_left_alone_and_said_once(setup: Setup, warnings: Any) -> None:
    base, negative = encoded(setup.clip, "a red car"), encoded(setup.clip, "ugly")

    def strange(model: Any) -> Any:
        def before(q: Any, k: Any, v: Any, extra: dict[str, Any]) -> Any:
            extra["cond_or_uncond_couple"] = [0] * len(extra["cond_or_uncond"])
            return q, k, v

        clone = model.clone()
        clone.set_model_attn2_patch(before)
        return clone

    expected = latents(strange(setup.model), base, negative)
    assert warnings() == []
    model, positive = setup.controlled(strange(setup.model), base)
    for runs in (1, 2):
        assert torch.equal(latents(model, positive, negative), expected)
        assert len(warnings()) == runs
    assert "changed how prompts share the rows" in warnings()[0]


def test_joined_prompts_that_negpip_doubled_are_left_alone_and_said(setup: Setup, warnings: Any) -> None:
    model, clip = negpip(setup.model, setup.clip, 1.0, marked=True)
    base, negative = encoded(clip, "a car"), encoded(clip, "ugly")
    patched, other = setup.controlled(model, encoded(clip, "a red bird"))
    joined = concatenate(base, other)
    assert torch.equal(latents(patched, joined, negative), latents(model, joined, negative))
    (said,) = warnings()
    assert "acts on token 156 of a prompt that reached attention with 154" in said


@pytest.mark.parametrize("base_too", [False, True])
def test_controls_of_regions_that_nobody_tells_are_said_to_be_missing(
    setup: Setup, warnings: Any, base_too: bool
) -> None:
    base, negative = encoded(setup.clip, "a red car"), encoded(setup.clip, "ugly")
    plain = encoded(setup.clip, "a red bird")
    model, region = setup.controlled(setup.model, plain)
    if base_too:
        model, base = setup.controlled(model, base, 0.5)
    found = latents(with_couple(model, "cond_or_uncond_couple", region), base, negative)
    (said,) = warnings()
    assert "strengthen Color: on no prompt of this run" in said and "attention couple" in said
    expected = latents(with_couple(setup.model, "cond_or_uncond_couple", plain), base, negative)
    assert torch.equal(found, expected) != base_too


def test_controls_that_the_hosts_concat_drops_are_said_to_be_missing(setup: Setup, warnings: Any) -> None:
    base, negative = encoded(setup.clip, "a car"), encoded(setup.clip, "ugly")
    model, other = setup.controlled(setup.model, encoded(setup.clip, "a red bird"))
    (joined,) = ConditioningConcat().concat(base, other)
    plain = latents(setup.model, joined, negative)
    assert torch.equal(latents(model, joined, negative), plain)
    (said,) = warnings()
    assert "strengthen Color: on no prompt of this run" in said and "Conditioning Concat (HRV)" in said
    assert relative_error(latents(model, concatenate(base, other), negative), plain) > 0.01
    assert len(warnings()) == 1


def test_a_model_with_the_mechanism_may_sample_other_prompts_in_silence(setup: Setup, warnings: Any) -> None:
    base, negative = encoded(setup.clip, "a red car"), encoded(setup.clip, "ugly")
    model, _ = setup.controlled(setup.model, base)
    assert torch.equal(latents(model, base, negative), latents(setup.model, base, negative))
    assert warnings() == []
