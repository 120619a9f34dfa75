"""Edits in whole runs: one noise for all rows, what else is on the model, what is refused, and what is left behind."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import (
    BasicGuider,
    DisableNoise,
    FlipSigmas,
    Noise_RandomNoise,
    SamplerCustomAdvanced,
)
from hrv_pack.host.editing.run import EditingRun
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.models.older_hosts import is_out_of_memory
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.nodes.controls import ConceptStrengthen
from hrv_pack.nodes.editing import PromptEdit
from hrv_pack.nodes.text_encode import TextEncode
from hrv_pack.tests.host.controls.test_composition import with_controlnet, with_lora
from hrv_pack.tests.support.explicit_edits import empty_latent, prompt_edit, with_explicit_edits, words_edit
from hrv_pack.tests.support.small_host import (
    encoded,
    picture,
    picture_of_model,
    relative_error,
)

from nodes import ConditioningCombine, ConditioningSetMask, KSampler

TOLERANCE = 1e-4
SOURCE, TARGET = "a red car and a tree", "a blue car and a tree"
OPEN = {"cross_end": 0.6, "self_end": 0.6, "self_size": 1.0}


@pytest.fixture(scope="module")
def source(clip: Any) -> Any:
    return encoded(clip, SOURCE)


@pytest.fixture(scope="module")
def target(clip: Any) -> Any:
    return encoded(clip, TARGET)


@pytest.fixture(scope="module")
def negative(clip: Any) -> Any:
    return encoded(clip, "ugly, blurry")


def sample(model: Any, positive: Any, negative: Any, latent: Any, **settings: Any) -> torch.Tensor:
    """What the host's KSampler makes."""
    defaults = {"seed": 3, "steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    (found,) = KSampler().sample(
        model, **{**defaults, **settings}, positive=positive, negative=negative, latent_image=latent
    )
    return found["samples"]


def run(edited: tuple[Any, ...], negative: Any, model: Any = None, **settings: Any) -> torch.Tensor:
    """The samples [rows, C, h, w] of an edit."""
    own, positive, latent, _ = edited
    return sample(model or own, positive, negative, latent, **settings)


EMPTY = empty_latent()


@pytest.mark.filterwarnings("ignore:Should have tb:UserWarning")
@pytest.mark.parametrize("sampler", comfy.samplers.KSampler.SAMPLERS)
def test_every_sampler_gives_all_rows_one_noise(model: Any, source: Any, negative: Any, sampler: str) -> None:
    """So equal prompts give equal images, and the source's is the one that is made without edits."""
    edited = prompt_edit(model, source, source, **OPEN)
    both = run(edited, negative, sampler_name=sampler)
    assert torch.equal(both[0], both[1])
    alone = sample(model, source, negative, EMPTY, sampler_name=sampler)
    # dpm_adaptive chooses its steps by the whole batch.
    if sampler != "dpm_adaptive":
        assert relative_error(both[:1], alone) <= TOLERANCE


def test_two_seeds_stay_two_seeds_with_noise_in_every_step(model: Any, source: Any, negative: Any) -> None:
    pair = {"samples": torch.zeros(2, 4, 8, 8)}
    rows = run(prompt_edit(model, source, source, pair, **OPEN), negative, sampler_name="euler_ancestral")
    assert torch.equal(rows[0], rows[1]) and torch.equal(rows[2], rows[3])
    assert relative_error(rows[:1], rows[2:3]) > 0.1


def test_churn_and_samplers_that_cannot_be_told_are_refused(model: Any, source: Any, target: Any) -> None:
    own, positive, latent, _ = prompt_edit(model, source, target, **OPEN)
    guider = BasicGuider.execute(own, positive).result[0]
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 2)

    def restless(
        model: Any, x: Any, sigmas: Any, extra_args: Any, callback: Any, disable: Any, eta: float = 1.0
    ) -> Any:
        return x

    for sampler, message in (
        (comfy.samplers.ksampler("heun", {"s_churn": 0.5}), "s_churn"),
        (comfy.samplers.KSAMPLER(restless), "cannot add the same noise"),
        (comfy.samplers.ksampler("euler_ancestral", {"noise_sampler": torch.randn}), "cannot add the same noise"),
    ):
        with pytest.raises(HRVError, match=message):
            SamplerCustomAdvanced.execute(Noise_RandomNoise(5), guider, sampler, sigmas, latent)
    calm = comfy.samplers.KSAMPLER(restless, {"eta": 0.0})
    SamplerCustomAdvanced.execute(Noise_RandomNoise(5), guider, calm, sigmas, latent)


def test_a_picture_is_edited_from_its_own_latent(model: Any, source: Any, target: Any, negative: Any) -> None:
    """Denoise below 1, with a mask: as the same rows are sampled plainly where windows are closed."""
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randn(2, 4, 8, 8, generator=generator)
    mask = torch.zeros(2, 1, 64, 64)
    mask[0, ..., :32] = 1
    mask[1, ..., 32:] = 1
    start = {"samples": pictures, "noise_mask": mask, "batch_index": [4, 7]}
    edited = prompt_edit(model, source, target, start, **OPEN)
    rows = edited[2]
    assert rows["batch_index"] == [4, 4, 7, 7]
    assert torch.equal(rows["samples"], pictures[[0, 0, 1, 1]]) and torch.equal(rows["noise_mask"], mask[[0, 0, 1, 1]])
    found = run(edited, negative, denoise=0.6)
    alone = sample(model, source, negative, start, denoise=0.6)
    assert relative_error(found[::2], alone) <= TOLERANCE
    assert relative_error(found[1::2], alone) > 0.01
    # What the mask keeps is kept in both rows.
    assert relative_error(found[:2, ..., 5:], pictures[[0, 0], ..., 5:]) <= TOLERANCE
    assert start["samples"] is pictures and len(pictures) == 2


def test_what_a_mask_keeps_has_one_noise_too(model: Any, source: Any, negative: Any) -> None:
    """From ddim, which draws noise of its own for it; and the sources' is the one that they get alone."""
    pictures = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1
    start = {"samples": pictures, "noise_mask": mask}
    rows = run(prompt_edit(model, source, source, start, **OPEN), negative, sampler_name="ddim")
    assert torch.equal(rows[::2], rows[1::2])
    assert relative_error(rows[::2], sample(model, source, negative, start, sampler_name="ddim")) <= TOLERANCE


def test_an_inverted_picture_is_edited_without_noise(model: Any, source: Any, target: Any) -> None:
    """To noise along flipped sigmas, and back: the source's row is what it is without an edit."""
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 4)
    sampler = comfy.samplers.sampler_object("euler")

    def along(model: Any, conditioning: Any, sigmas: torch.Tensor, latent: Any) -> dict[str, Any]:
        guider = BasicGuider.execute(model, conditioning).result[0]
        (still,) = DisableNoise.execute().result
        return SamplerCustomAdvanced.execute(still, guider, sampler, sigmas, latent).result[0]

    picture = {"samples": torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))}
    inverted = along(model, source, FlipSigmas.execute(sigmas.clone()).result[0], picture)
    own, positive, rows, _ = prompt_edit(model, source, target, inverted, **OPEN)
    both = along(own, positive, sigmas, rows)["samples"]
    alone = along(model, source, sigmas, inverted)["samples"]
    assert relative_error(both[:1], alone) <= TOLERANCE
    assert relative_error(both[1:], alone) > 0.01


OTHERS: dict[str, Callable[[Any], Any]] = {"LoRA": with_lora, "ControlNet": with_controlnet}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_what_else_is_in_the_graph_stays_in_effect(
    model: Any, source: Any, target: Any, negative: Any, hrv: HRV, other: Callable[[Any], Any]
) -> None:
    edited = prompt_edit(model, source, target, **OPEN)
    changed = other((edited[0], edited[1], negative))
    exact_model = with_explicit_edits(
        model, {1: lambda source, own, _, progress: source if progress < 0.6 else own}, self_end=0.6, self_positions=64
    )
    exact = other((exact_model, edited[1], negative))
    found, expected = (sample(graph[0], graph[1], graph[2], edited[2]) for graph in (changed, exact))
    assert relative_error(found, expected) <= TOLERANCE
    assert relative_error(run(edited, negative), expected) > 100 * TOLERANCE


def delta(q: torch.Tensor) -> torch.Tensor:
    return 0.3 * torch.tanh(q)


def test_what_an_image_prompt_adds_comes_once_and_from_the_rows_own_queries(
    model: Any, source: Any, target: Any, negative: Any, hrv: HRV
) -> None:
    """A replacer of another pack that gives attention plus something of its own, as IPAdapter does."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
        plain = torch.nn.functional.scaled_dot_product_attention(
            *(part.unflatten(-1, (extra["n_heads"], -1)).transpose(1, 2) for part in (q, k, v))
        )
        return plain.transpose(1, 2).flatten(2) + delta(q)

    with_image = model.clone()
    for layer in head_layout(model).layers:
        with_image.set_model_attn2_replace(attend, *layer.key)
    row = torch.from_numpy(hrv.row("Color").astype("float64"))
    for concept in (None, "Color"):
        extra = {} if concept is None else {"hrv": hrv, "concept": concept}
        edited = prompt_edit(with_image, source, target, cross_end=0.6, **extra)

        def change(
            maps: torch.Tensor, own: torch.Tensor, heads: slice, progress: float, by_concept: bool = concept is not None
        ) -> torch.Tensor:
            if progress >= 0.6:
                return own
            changed = maps.clone()
            if by_concept:
                changed[..., 2] = own[..., 2] * row[heads, None]
            return changed

        exact = with_explicit_edits(model, {1: change}, added=delta)
        found, expected = run(edited, negative), run(edited, negative, exact)
        assert relative_error(found, expected) <= TOLERANCE


@pytest.mark.parametrize("control_first", [True, False])
def test_controls_on_the_prompts_of_an_edit(
    model: Any, source: Any, target: Any, negative: Any, hrv: HRV, control_first: bool
) -> None:
    """They rescale what their own prompt's words give; an edit takes the source's maps without its controls."""

    def controlled(model: Any, conditioning: Any, words: str, concept: str) -> tuple[Any, Any]:
        return ConceptStrengthen.execute(
            model=model,
            conditioning=conditioning,
            hrv=hrv,
            words=words,
            concept=concept,
            strength=1.0,
            start=0.0,
            end=0.5,
            clamp=0.0,
        ).result

    strengthened, source = controlled(model, source, "red", "Shape")
    strengthened, target = controlled(strengthened, target, "car", "Size")
    edited = prompt_edit(strengthened if control_first else model, source, target, **OPEN)
    if not control_first:
        edited = (controlled(edited[0], source, "tree", "Size")[0], *edited[1:])
    shape, size = (torch.from_numpy(hrv.row(concept).astype("float64")) for concept in ("Shape", "Size"))

    def scaled(maps: torch.Tensor, column: int, factors: torch.Tensor, heads: slice, progress: float) -> torch.Tensor:
        maps = maps.clone()
        if progress < 0.5:
            maps[..., column] *= factors[heads, None]
        return maps

    exact = with_explicit_edits(
        model,
        {
            0: lambda source, own, heads, progress: scaled(own, 2, shape, heads, progress),
            1: lambda source, own, heads, progress: scaled(source if progress < 0.6 else own, 3, size, heads, progress),
        },
        self_end=0.6,
        self_positions=64,
    )
    found = run(edited, negative)
    assert relative_error(found, run(edited, negative, exact)) <= TOLERANCE


def test_an_edit_in_a_mask_beside_another_prompt(
    model: Any, clip: Any, source: Any, target: Any, negative: Any
) -> None:
    mask = torch.zeros(1, 8, 8)
    mask[:, :, :4] = 1
    edited = prompt_edit(model, source, target, **OPEN)

    def beside(positive: Any) -> Any:
        (left,) = ConditioningSetMask().append(positive, mask, "default", 1.0)
        (right,) = ConditioningSetMask().append(encoded(clip, "a tree"), 1 - mask, "default", 1.0)
        return ConditioningCombine().combine(left, right)[0]

    found = sample(edited[0], beside(edited[1]), negative, edited[2])
    alone = sample(model, beside(source), negative, EMPTY)
    assert relative_error(found[:1], alone) <= TOLERANCE
    assert relative_error(found[1:], alone) > 0.01


class StopError(Exception):
    """Raised in the middle of sampling."""


def test_nothing_changes_and_nothing_is_left_behind(
    model: Any, source: Any, target: Any, negative: Any, hrv: HRV, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = picture_of_model(model), picture([source, target, negative])
    edited = prompt_edit(model, source, words_edit(target, "car", weight=2.0), hrv=hrv, concept="Color", **OPEN)
    between = picture_of_model(edited[0]), picture(edited[1]), picture(edited[2])
    first = run(edited, negative)
    alive = []

    def stop(*_: Any) -> None:
        gc.collect()
        alive.append(sum(type(thing) is EditingRun for thing in gc.get_objects()))
        raise StopError

    with monkeypatch.context() as patched:
        patched.setattr("latent_preview.prepare_callback", lambda *_: stop)
        with pytest.raises(StopError):
            run(edited, negative)
    gc.collect()
    assert alive == [1] and not any(type(thing) is EditingRun for thing in gc.get_objects())
    assert torch.equal(run(edited, negative), first)
    assert (picture_of_model(edited[0]), picture(edited[1]), picture(edited[2])) == between
    assert (picture_of_model(model), picture([source, target, negative])) == before


def test_rows_that_do_not_belong_together_are_refused(model: Any, source: Any, target: Any, negative: Any) -> None:
    own, positive, latent, _ = prompt_edit(model, source, target, **OPEN)
    with pytest.raises(HRVError, match=r"source and its edits are 2 rows, but the latent has 1\. Connect the LATENT"):
        sample(own, positive, negative, EMPTY)
    with pytest.raises(HRVError, match="don't start from the same noise"):
        sample(own, positive, negative, {"samples": latent["samples"]})
    _, three, _, _ = prompt_edit(own, positive, target, latent, **OPEN)
    (both,) = ConditioningCombine().combine(positive, three)
    with pytest.raises(HRVError, match="different numbers of edits"):
        sample(own, both, negative, latent)


def test_too_little_memory_says_how_to_split(
    model: Any, source: Any, target: Any, negative: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = prompt_edit(model, source, target, **OPEN)

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("latent_preview.prepare_callback", lambda *_: full)
    with pytest.raises(HRVError, match=r"A source and 1 edit don't fit .* in several runs") as raised:
        run(edited, negative)
    assert is_out_of_memory(raised.value)


@pytest.mark.parametrize(
    ("texts", "pairs", "message"),
    [
        (("", TARGET), "", "The source prompt has no words"),
        ((SOURCE, ""), "", "The target prompt has no words"),
        (("red car", "blue boat"), "", "no word in common"),
        ((SOURCE, TARGET), "red car -> blue cat", 'does not contain "blue cat"'),
        ((SOURCE, TARGET), "red car -> blue car, red -> blue", "in two of the pairs"),
    ],
)
def test_prompts_that_cannot_be_edited_are_refused(
    model: Any, clip: Any, texts: tuple[str, str], pairs: str, message: str
) -> None:
    with pytest.raises(HRVError, match=message):
        prompt_edit(model, *(encoded(clip, text) for text in texts), pairs=pairs)


def test_conditionings_that_cannot_be_edited_are_refused(model: Any, clip: Any, source: Any, target: Any) -> None:
    untagged = [[target[0][0], {}]]
    with pytest.raises(HRVError, match="The target does not say which token belongs to which word"):
        prompt_edit(model, source, untagged)
    with pytest.raises(HRVError, match="The source does not say which token belongs to which word"):
        prompt_edit(model, untagged, target)
    with pytest.raises(HRVError, match=r"target is several prompts in one.* after Prompt Edit"):
        prompt_edit(model, source, [*target, *source])
    wide = [[target[0][0].repeat(1, 1, 2), target[0][1]]]
    with pytest.raises(HRVError, match="16 features per token and the target 32"):
        prompt_edit(model, source, wide)
    own, positive, latent, _ = prompt_edit(model, source, target)
    for one_more in (EMPTY, {"samples": latent["samples"]}):
        with pytest.raises(HRVError, match="The source already has 1 edits"):
            prompt_edit(own, positive, target, one_more)
    with pytest.raises(HRVError, match="holds several prompts"):
        words_edit(positive, "car", weight=2.0)
    with pytest.raises(HRVError, match="holds several prompts"):
        prompt_edit(model, source, positive)


def test_settings_of_the_target_that_do_not_count_are_said(model: Any, source: Any, target: Any) -> None:
    (masked,) = ConditioningSetMask().append(target, torch.ones(1, 8, 8), "default", 1.0)
    *_, text = prompt_edit(model, source, masked)
    assert text.splitlines()[:2] == ["a = a", "red -> blue"]
    assert "only its words count, not: mask, mask_strength, set_area_to_bounds" in text
    assert "only its words" not in prompt_edit(model, source, target)[-1]


def test_defaults_are_the_published_windows(model: Any, clip: Any, hrv: HRV, negative: Any) -> None:
    one, other = (TextEncode.execute(clip, text).result[0] for text in (SOURCE, TARGET))
    settings: dict[str, Any] = {
        given.id: given.default
        for given in PromptEdit.GET_SCHEMA().inputs
        if getattr(given, "default", None) is not None and not given.optional
    }
    with_hrv: dict[str, Any] = {"hrv": hrv, "concept": "Color"}
    for given, self_end in (({}, 0.4), (with_hrv, 0.9)):
        published = prompt_edit(model, one, other, cross_end=0.8, self_end=self_end, **given)
        found = PromptEdit.execute(model=model, source=one, target=other, latent=EMPTY, **settings, **given).result
        assert torch.equal(run(found, negative), run(published, negative))


@pytest.mark.parametrize(("height", "width", "positions"), [(8, 12, 24), (9, 7, 20)])
def test_images_of_any_shape(
    model: Any, source: Any, target: Any, negative: Any, height: int, width: int, positions: int
) -> None:
    """A quarter of the latent's positions is the lower of two levels, also where its sides are rounded up."""
    picture = {"samples": torch.zeros(1, 4, height, width)}
    edited = prompt_edit(model, source, target, picture, cross_end=0.6, self_end=0.6, self_size=0.25)
    exact = with_explicit_edits(
        model,
        {1: lambda source, own, _, progress: source if progress < 0.6 else own},
        self_end=0.6,
        self_positions=positions,
    )
    found, expected = run(edited, negative), run(edited, negative, exact)
    assert relative_error(found, expected) <= TOLERANCE
    assert relative_error(found[1:], run(edited, negative, model)[1:]) > 0.01
