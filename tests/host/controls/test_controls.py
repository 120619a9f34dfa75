"""Controls on real UNets against explicit float64 maps, and whom they must leave alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.hooks
import comfy.sd
import numpy as np
import pytest
import torch
from comfy.samplers import calculate_sigmas, sampler_object
from comfy_extras.nodes_custom_sampler import BasicGuider, DualCFGGuider, Noise_RandomNoise, SamplerCustomAdvanced
from comfy_extras.nodes_perpneg import PerpNegGuider
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.nodes.controls import ConceptAdjust, ConceptStrengthen
from hrv_pack.tests.support.small_host import (
    TOLERANCE,
    Rescaling,
    Setup,
    UNetRow,
    assert_rows_close,
    encoded,
    latents,
    relative_error,
    unet_rows,
    with_explicit_maps,
)

from nodes import (
    ConditioningCombine,
    ConditioningConcat,
    ConditioningSetArea,
    ConditioningSetMask,
    ConditioningSetTimestepRange,
)

PROMPT = "a red car and a skyscrapers view"
# Where its words lie behind the start token; CLIP has three tokens for "skyscrapers".
POSITIONS = {"red": (2,), "car": (3,), "skyscrapers": (6, 7, 8), "a": (1, 5), "red car": (2, 3)}


@dataclass(frozen=True)
class Ask:
    """One control, as the node takes it and as the paper says it."""

    words: str = "red"
    concept: str = "Color"
    undesired: str | None = None
    strength: float = 1.0
    start: float = 0.0
    end: float = 1.0
    clamp: float = 0.0
    weights: tuple[float, float] = (2.0, -1.0)

    def apply(self, setup: Setup, model: Any, conditioning: Any) -> tuple[Any, Any]:
        common: dict[str, Any] = {
            "model": model,
            "conditioning": conditioning,
            "hrv": setup.hrv,
            "words": self.words,
            "strength": self.strength,
            "start": self.start,
            "end": self.end,
            "clamp": self.clamp,
        }
        if self.undesired is None:
            node = ConceptStrengthen.execute(concept=self.concept, **common)
        else:
            desired_weight, undesired_weight = self.weights
            node = ConceptAdjust.execute(
                desired=self.concept,
                undesired=self.undesired,
                desired_weight=desired_weight,
                undesired_weight=undesired_weight,
                **common,
            )
        return node.result

    def row(self, hrv: HRV, concept: str) -> np.ndarray:
        row = hrv.values[hrv.concepts.index(concept)].astype(np.float64)
        return np.minimum(row, self.clamp) if self.clamp else row

    def rescalings(self, hrv: HRV, context: torch.Tensor) -> list[Rescaling]:
        factors = self.row(hrv, self.concept)
        if self.undesired is not None:
            factors = self.weights[0] * factors + self.weights[1] * self.row(hrv, self.undesired)
        factors = 1 + self.strength * (factors - 1)
        return [
            Rescaling(context, POSITIONS[word.strip()], factors, (self.start, self.end))
            for word in self.words.split(",")
        ]


def controlled(setup: Setup, *asks: Ask, conditioning: Any = None) -> tuple[Any, Any]:
    """The setup's model with the mechanism, and its prompt (or another conditioning) with controls."""
    model, conditioning = setup.model, conditioning or setup.prompt
    for ask in asks:
        model, conditioning = ask.apply(setup, model, conditioning)
    return model, conditioning


def explicit(setup: Setup, *asks: Ask, context: torch.Tensor | None = None) -> Any:
    """The setup's model with the same controls on explicit maps of rows with a context [T, C]."""
    where = setup.prompt[0][0][0] if context is None else context
    return with_explicit_maps(setup.model, [one for ask in asks for one in ask.rescalings(setup.hrv, where)])


def assert_rows_equal(found: Sequence[UNetRow], expected: Sequence[UNetRow]) -> None:
    assert_rows_close(found, expected)
    assert all(torch.equal(one.output, other.output) for one, other in zip(found, expected, strict=True))


def assert_rows_differ(found: Sequence[UNetRow], expected: Sequence[UNetRow]) -> None:
    """Every row is another by far more than any tolerance here."""
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one.output, other.output) > 100 * TOLERANCE


def rows_of(rows: Sequence[UNetRow], conditioning: Any) -> list[UNetRow]:
    """The rows that were asked for this conditioning's context."""
    context = conditioning[0][0][0]
    return [row for row in rows if torch.equal(row.context[: len(context)], context)]


ASKS = {
    "strengthen": [Ask()],
    "a word of three tokens": [Ask("skyscrapers")],
    "a phrase": [Ask("red car")],
    "two words and every occurrence": [Ask("car, a")],
    "half": [Ask(strength=0.5)],
    "negative": [Ask(strength=-0.7)],
    "beyond": [Ask(strength=2.5)],
    "clamped": [Ask(clamp=1.25)],
    "adjust": [Ask(concept="Shape", undesired="Color")],
    "adjust with other weights": [Ask(concept="Shape", undesired="Color", weights=(0.5, 1.5), strength=0.8)],
    "adjust clamped": [Ask(concept="Shape", undesired="Size", clamp=0.75)],
    "two on one word": [Ask(strength=0.5), Ask(concept="Shape", undesired="Size")],
    "two on overlapping words": [Ask("red car"), Ask("car", concept="Size", strength=-0.5)],
    "the middle": [Ask(start=0.25, end=0.75)],
    "the beginning": [Ask(end=0.5)],
    "the end": [Ask(start=0.5)],
    "windows that overlap": [Ask(end=0.75), Ask(concept="Shape", start=0.25), Ask("car", concept="Size")],
}


SDXL_TOO = {"a word of three tokens", "adjust clamped", "windows that overlap"}


@pytest.mark.parametrize(
    ("kind", "asks"),
    [
        pytest.param(kind, asks, id=f"{kind}: {name}")
        for name, asks in ASKS.items()
        for kind in ("sd15", "sdxl")
        if kind == "sd15" or name in SDXL_TOO
    ],
)
def test_controls_multiply_the_columns_of_the_maps(request: pytest.FixtureRequest, kind: str, asks: list[Ask]) -> None:
    setup = request.getfixturevalue(kind)
    found = unet_rows(*controlled(setup, *asks), setup.negative, steps=4)
    assert_rows_close(found, unet_rows(explicit(setup, *asks), setup.prompt, setup.negative, steps=4))
    plain = unet_rows(setup.model, setup.prompt, setup.negative, steps=4)
    assert_rows_equal([row for row in found if row.negative], [row for row in plain if row.negative])
    whole = any((ask.start, ask.end) == (0.0, 1.0) for ask in asks)
    active = [
        whole or any(ask.start <= row.step / 3 < ask.end or ask.end == 1.0 == row.step / 3 for ask in asks)
        for row in found
    ]
    pairs = [(one, other, on) for one, other, on in zip(found, plain, active, strict=True) if not one.negative]
    assert_rows_differ([one for one, _, on in pairs if on], [other for _, other, on in pairs if on])
    assert all(torch.equal(one.output, other.output) for one, other, on in pairs if not on)


IDENTITIES = {
    "strength 0": [Ask(strength=0.0)],
    "no words": [Ask(words="")],
    "only commas": [Ask(words=" , ,")],
    "an empty window at the beginning": [Ask(start=0.0, end=0.0)],
    "an empty window inside": [Ask(start=0.5, end=0.5)],
    "an empty window at the end": [Ask(start=1.0, end=1.0)],
    "two of them": [Ask(strength=0.0), Ask("car", start=0.3, end=0.3)],
}


@pytest.fixture(scope="module")
def plain(sd15: Setup) -> torch.Tensor:
    """Latents without any control."""
    return latents(sd15.model, sd15.prompt, sd15.negative)


@pytest.mark.parametrize("asks", IDENTITIES.values(), ids=IDENTITIES.keys())
def test_controls_that_change_nothing_are_bit_equal_to_none(sd15: Setup, plain: torch.Tensor, asks: list[Ask]) -> None:
    assert torch.equal(latents(*controlled(sd15, *asks), sd15.negative), plain)


def test_the_mechanism_alone_is_bit_equal_to_none(sd15: Setup, plain: torch.Tensor) -> None:
    model, positive = controlled(sd15, Ask())
    assert torch.equal(latents(model, sd15.prompt, sd15.negative), plain)
    assert not torch.equal(latents(model, positive, sd15.negative), plain)


@pytest.mark.filterwarnings("ignore:Should have tb:UserWarning")
@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "dpm_2", "euler_ancestral", "dpmpp_sde", "uni_pc"])
def test_any_sampler_gives_what_explicit_maps_give(sd15: Setup, sampler: str) -> None:
    asks = [Ask(), Ask("car", concept="Shape", undesired="Size", start=0.15, end=0.6)]
    found = latents(*controlled(sd15, *asks), sd15.negative, sampler=sampler, steps=4)
    expected = latents(explicit(sd15, *asks), sd15.prompt, sd15.negative, sampler=sampler, steps=4)
    # Steps carry the rounding of the steps before.
    assert relative_error(found, expected) <= 10 * TOLERANCE
    plain = latents(sd15.model, sd15.prompt, sd15.negative, sampler=sampler, steps=4)
    assert relative_error(plain, expected) > 1000 * TOLERANCE


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_cfg_1_evaluates_the_prompt_alone(request: pytest.FixtureRequest, kind: str) -> None:
    setup = request.getfixturevalue(kind)
    found = unet_rows(*controlled(setup, Ask()), setup.negative, cfg=1.0)
    assert not any(row.negative for row in found) and len(found) == 3
    assert_rows_close(found, unet_rows(explicit(setup, Ask()), setup.prompt, setup.negative, cfg=1.0))


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_a_batch_of_two_is_two_runs_of_one(request: pytest.FixtureRequest, kind: str) -> None:
    setup = request.getfixturevalue(kind)
    model, positive = controlled(setup, Ask(), Ask("skyscrapers", concept="Shape", undesired="Size", end=0.5))
    both = latents(model, positive, setup.negative, seeds=(5, 6))
    for row, seed in enumerate((5, 6)):
        alone = latents(model, positive, setup.negative, seeds=(seed,))
        assert relative_error(both[row : row + 1], alone) <= 10 * TOLERANCE


def in_area(conditioning: Any, x: int, width: int = 64, height: int = 128) -> Any:
    return ConditioningSetArea().append(conditioning, width, height, x, 0, 1.0)[0]


def combined(*conditionings: Any) -> Any:
    return [entry for conditioning in conditionings for entry in conditioning]


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_of_two_prompts_combined_by_area_only_the_controlled_one_changes(
    request: pytest.FixtureRequest, kind: str
) -> None:
    setup = request.getfixturevalue(kind)
    other = encoded(setup.clip, "a red car and a tree")
    model, positive = controlled(setup, Ask("red"), Ask("car", concept="Shape", start=0.2, end=0.6))
    regions = in_area(other, 64)
    found = unet_rows(model, combined(in_area(positive, 0), regions), setup.negative, size=16)
    plain = unet_rows(setup.model, combined(in_area(setup.prompt, 0), regions), setup.negative, size=16)
    # Each area has a row of its own and one of the negative prompt, which the host cuts out alike.
    assert sum(row.negative for row in found) == 3 * 3
    assert_rows_equal(rows_of(found, other), rows_of(plain, other))
    assert_rows_equal(rows_of(found, setup.negative), rows_of(plain, setup.negative))
    assert_rows_differ(rows_of(found, setup.prompt), rows_of(plain, setup.prompt))
    exact = explicit(setup, Ask("red"), Ask("car", concept="Shape", start=0.2, end=0.6))
    assert_rows_close(found, unet_rows(exact, combined(in_area(setup.prompt, 0), regions), setup.negative, size=16))


def test_a_prompt_keeps_its_control_where_the_host_cuts_it_to_an_area_of_the_negative(sd15: Setup) -> None:
    model, positive = controlled(sd15, Ask())
    negative = combined(sd15.negative, in_area(encoded(sd15.clip, "green"), 64))
    found = unet_rows(model, positive, negative, size=16)
    expected = unet_rows(explicit(sd15, Ask()), sd15.prompt, negative, size=16)
    assert len(rows_of(found, sd15.prompt)) == 2 * 3
    assert_rows_close(found, expected)


def test_each_of_two_combined_prompts_follows_its_own_controls(sd15: Setup) -> None:
    tree = encoded(sd15.clip, "a red tree")
    model, positive = controlled(sd15, Ask(strength=2.0))
    model, second = Ask("red", concept="Size").apply(sd15, model, tree)
    (both,) = ConditioningCombine().combine(positive, second)
    (plain,) = ConditioningCombine().combine(sd15.prompt, tree)
    rescalings = [
        *Ask(strength=2.0).rescalings(sd15.hrv, sd15.prompt[0][0][0]),
        *Ask("red", concept="Size").rescalings(sd15.hrv, tree[0][0][0]),
    ]
    expected = unet_rows(with_explicit_maps(sd15.model, rescalings), plain, sd15.negative)
    assert_rows_close(unet_rows(model, both, sd15.negative), expected)


def test_masked_prompts_follow_their_own_controls(sd15: Setup) -> None:
    mask = torch.zeros(1, 8, 8)
    mask[:, :, :4] = 1
    other = encoded(sd15.clip, "a red car and a tree")
    model, positive = controlled(sd15, Ask())

    def masked(conditioning: Any) -> Any:
        (left,) = ConditioningSetMask().append(conditioning, mask, "default", 1.0)
        (right,) = ConditioningSetMask().append(other, 1 - mask, "mask bounds", 1.0)
        return combined(left, right)

    found = latents(model, masked(positive), sd15.negative)
    expected = latents(explicit(sd15, Ask()), masked(sd15.prompt), sd15.negative)
    assert relative_error(found, expected) <= 10 * TOLERANCE


def test_the_same_prompt_without_the_control_is_another_conditioning(sd15: Setup) -> None:
    """The tensors are shared; what the negative side asks for is still its own."""
    model, positive = controlled(sd15, Ask())
    found = unet_rows(model, positive, sd15.prompt)
    plain = unet_rows(sd15.model, sd15.prompt, sd15.prompt)
    expected = unet_rows(explicit(sd15, Ask()), sd15.prompt, sd15.negative)
    assert_rows_equal([row for row in found if row.negative], [row for row in plain if row.negative])
    assert_rows_close([row for row in found if not row.negative], [row for row in expected if not row.negative])


def test_a_control_on_the_negative_acts_there_alone(sd15: Setup) -> None:
    model, negative = controlled(sd15, Ask())
    found = unet_rows(model, sd15.negative, negative)
    assert_rows_close(found, unet_rows(explicit(sd15, Ask()), sd15.negative, sd15.prompt))
    plain = unet_rows(sd15.model, sd15.negative, sd15.prompt)
    assert_rows_equal(rows_of(found, sd15.negative), rows_of(plain, sd15.negative))
    assert_rows_differ(rows_of(found, negative), rows_of(plain, negative))


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_concatenated_prompts_keep_the_positions_of_the_first(request: pytest.FixtureRequest, kind: str) -> None:
    setup = request.getfixturevalue(kind)
    behind = encoded(setup.clip, "a red boat")
    model, positive = controlled(setup, Ask())
    (concatenated,) = ConditioningConcat().concat(positive, behind)
    (plain,) = ConditioningConcat().concat(setup.prompt, behind)
    assert concatenated[0][0].shape[1] == 154
    exact = explicit(setup, Ask(), context=plain[0][0][0])
    assert_rows_close(unet_rows(model, concatenated, setup.negative), unet_rows(exact, plain, setup.negative))


@pytest.mark.parametrize("chunks", [2, 3])
def test_a_prompt_that_the_host_repeats_keeps_its_control(sd15: Setup, chunks: int) -> None:
    """Rows of different lengths share a call: the shorter is repeated, and all its copies are scaled."""
    long = encoded(sd15.clip, "ugly " * (75 * chunks - 10))
    assert long[0][0].shape[1] == 77 * chunks
    model, positive = controlled(sd15, Ask(), Ask("skyscrapers", concept="Size"))
    found = unet_rows(model, positive, long)
    assert all(len(row.context) == 77 * chunks for row in found)
    expected = unet_rows(explicit(sd15, Ask(), Ask("skyscrapers", concept="Size")), sd15.prompt, long)
    assert_rows_close(found, expected)


def test_a_long_controlled_prompt_beside_a_short_negative(sd15: Setup) -> None:
    long = encoded(sd15.clip, "a red car, " + "very " * 80 + "shiny")
    model, positive = controlled(sd15, Ask("red"), conditioning=long)
    found = unet_rows(model, positive, sd15.negative)
    exact = explicit(sd15, Ask("red"), context=long[0][0][0])
    assert_rows_close(found, unet_rows(exact, long, sd15.negative))


def test_timestep_ranges_switch_between_controlled_and_plain_prompts(sd15: Setup) -> None:
    model, positive = controlled(sd15, Ask())

    def scheduled(first: Any, second: Any) -> Any:
        (early,) = ConditioningSetTimestepRange().set_range(first, 0.0, 0.5)
        (late,) = ConditioningSetTimestepRange().set_range(second, 0.5, 1.0)
        return combined(early, late)

    tree = encoded(sd15.clip, "a red tree")
    for order in (0, 1):
        pair, plain = ((positive, tree), (sd15.prompt, tree))
        found = unet_rows(model, scheduled(*(pair[::-1] if order else pair)), sd15.negative, steps=4)
        expected = unet_rows(
            explicit(sd15, Ask()), scheduled(*(plain[::-1] if order else plain)), sd15.negative, steps=4
        )
        assert len(rows_of(found, positive)) == len(rows_of(found, tree)) == 2
        assert_rows_close(found, expected)


LORA_LAYER = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_v"


def lora(model: Any) -> dict[str, torch.Tensor]:
    """A LoRA of rank 2 for the values of one layer, under the names of its file."""
    outputs, inputs = model.model.state_dict()[f"{LORA_LAYER}.weight"].shape
    name = "lora_unet_" + LORA_LAYER.removeprefix("diffusion_model.").replace(".", "_")
    generator = torch.Generator().manual_seed(4)
    return {
        f"{name}.lora_up.weight": torch.randn(outputs, 2, generator=generator),
        f"{name}.lora_down.weight": torch.randn(2, inputs, generator=generator),
    }


def with_lora(model: Any) -> Any:
    return comfy.sd.load_lora_for_models(model, None, lora(model), 1.0, 0.0)[0]


def with_hypernetwork(model: Any) -> Any:
    """Keys and values from other contexts than the prompt's own, as hypernetworks do it."""

    def patch(n: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        return n, k + 0.1 * k.roll(1, dims=-1), v * 0.9 - 0.1 * v.flip(-1)

    clone = model.clone()
    clone.set_model_attn2_patch(patch)
    return clone


@pytest.mark.parametrize("with_other", [with_lora, with_hypernetwork])
def test_what_else_is_on_the_model_stays_in_effect(sd15: Setup, with_other: Any) -> None:
    model, positive = controlled(sd15, Ask())
    found = unet_rows(with_other(model), positive, sd15.negative)
    assert_rows_close(found, unet_rows(with_other(explicit(sd15, Ask())), sd15.prompt, sd15.negative))
    assert_rows_differ(found, unet_rows(model, positive, sd15.negative))


def test_a_prompt_with_a_lora_hook_keeps_its_control(sd15: Setup) -> None:
    model, positive = controlled(sd15, Ask())

    def hooked(conditioning: Any) -> Any:
        hooks = comfy.hooks.create_hook_lora(lora(sd15.model), 1.0, 0.0)
        return comfy.hooks.set_hooks_for_conditioning(conditioning, hooks)

    found = latents(model, hooked(positive), sd15.negative)
    expected = latents(explicit(sd15, Ask()), hooked(sd15.prompt), sd15.negative)
    assert relative_error(found, expected) <= 10 * TOLERANCE
    assert relative_error(latents(model, positive, sd15.negative), expected) > 1000 * TOLERANCE


def custom_advanced(guider: Any, steps: int = 3) -> torch.Tensor:
    """What SamplerCustomAdvanced makes with a guider."""
    model = guider.model_patcher
    sigmas = calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    node = SamplerCustomAdvanced.execute(Noise_RandomNoise(5), guider, sampler_object("euler"), sigmas, latent)
    return node.result[0]["samples"]


def test_every_guider_of_the_host_honours_controls(sd15: Setup) -> None:
    model, positive = controlled(sd15, Ask(), Ask("car", concept="Shape", start=0.2, end=0.8))
    exact = explicit(sd15, Ask(), Ask("car", concept="Shape", start=0.2, end=0.8))
    other, empty = encoded(sd15.clip, "a tree"), encoded(sd15.clip, "")

    def guiders(model: Any, prompt: Any) -> list[Any]:
        nodes = [
            BasicGuider.execute(model, prompt),
            DualCFGGuider.execute(model, other, prompt, sd15.negative, 4.0, 2.0, "regular"),
            DualCFGGuider.execute(model, prompt, other, sd15.negative, 4.0, 2.0, "nested"),
            PerpNegGuider.execute(model, prompt, sd15.negative, empty, 4.0, 1.0),
        ]
        return [node.result[0] for node in nodes]

    for one, oracle, without in zip(
        guiders(model, positive), guiders(exact, sd15.prompt), guiders(sd15.model, sd15.prompt), strict=True
    ):
        found, expected = custom_advanced(one), custom_advanced(oracle)
        assert relative_error(found, expected) <= 10 * TOLERANCE
        assert relative_error(custom_advanced(without), expected) > 1000 * TOLERANCE
        assert torch.equal(custom_advanced(one), found)


def test_an_hrv_of_another_layout_is_refused_before_anything_runs(sd15: Setup, sdxl: Setup) -> None:
    with pytest.raises(HRVError, match=r"another kind of model\. HRV: 19 heads in 11.*model: 56 heads in 7"):
        ConceptStrengthen.execute(
            model=sd15.model,
            conditioning=sd15.prompt,
            hrv=sdxl.hrv,
            words="red",
            concept="Color",
            strength=1.0,
            start=0.0,
            end=1.0,
            clamp=0.0,
        )


def test_a_controlled_prompt_on_another_model_is_refused_when_it_samples(sd15: Setup, sdxl: Setup) -> None:
    _, positive = controlled(sdxl, Ask())
    model, _ = controlled(sd15, Ask())
    with pytest.raises(HRVError, match=r"'strengthen Color' was made for 19 heads .* this model has 56 heads"):
        latents(model, positive, sd15.negative)
