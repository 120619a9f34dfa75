"""Instant HRVs against an oracle of its own: the definition word by word and head by head in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import comfy.hooks
import comfy.model_management
import comfy.sd
import comfy.utils
import numpy as np
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from comfy.quant_ops import QuantizedTensor
from comfy_extras.nodes_hooks import SetClipHooks
from hrv_pack.host.building.value_contrast import ALWAYS, NEVER, WHEN_NEEDED, background_of, instant_hrv
from hrv_pack.host.files.catalog import paper_concepts
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.models.architectures import unet_of
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.prompts.frames import DEFAULT_FRAMES
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.hrv.relevance.vocabulary import Vocabulary, parse_vocabulary
from hrv_pack.tests.support.small_host import (
    picture_of_model,
    small_clip_sd15,
    small_clip_sd20,
    small_clip_sdxl,
    small_sd15,
    small_sd15_inpainting,
    small_sd20,
    small_sdxl,
)

START, END = 49406, 49407
# Different numbers of words, words of one to four tokens, and one that stands for two concepts.
VOCABULARY = parse_vocabulary(
    "Color: red, dark blue, turquoise, orange\nShape: circle, skyscrapers\nFruits: apple, orange, a rose-colored pear"
)
OTHERS = parse_vocabulary("Animals: cat, dog\nshape: wrong, words")
FRAMES = ("{word}", "a photo of a {word}, at night")


@dataclass(frozen=True)
class Pair:
    model: Any
    clip: Any

    def hrv(self, vocabulary: Vocabulary = VOCABULARY, **changes: Any) -> HRV:
        return instant_hrv(self.model, self.clip, vocabulary, **{"frames": FRAMES, **changes})


@pytest.fixture(scope="module")
def sd15() -> Pair:
    return Pair(small_sd15(), small_clip_sd15())


@pytest.fixture(scope="module")
def plain(sd15: Pair) -> HRV:
    return sd15.hrv()


def embedding(clip: Any, word: str, frame: str) -> torch.Tensor:
    """The mean over the own tokens of a word in a sentence: float64 [C]."""

    def content(text: str) -> int:
        ids = [entry[0] for entry in next(iter(clip.tokenize(text).values()))[0]]
        return ids.index(END) - 1

    before = content(frame.partition("{word}")[0])
    context = clip.encode_from_tokens(clip.tokenize(frame.replace("{word}", word)))[0]
    return context[1 + before : 1 + before + content(word)].double().mean(dim=0)


def expected(pair: Pair, vocabulary: Vocabulary, own: int) -> np.ndarray:
    """Values [own, H] by the definition, for the first ``own`` concepts of all that are compared."""
    words = {
        word: torch.stack([embedding(pair.clip, word, frame) for frame in FRAMES]).mean(dim=0)
        for _, listed in vocabulary
        for word in listed
    }
    columns = []
    for attention in unet_of(pair.model).cross_attention.values():
        parts: Any = attention
        to_v, to_out = parts.to_v.weight.double(), parts.to_out[0].weight.double()
        for head in range(attention.heads):
            part = slice(head * attention.dim_head, (head + 1) * attention.dim_head)
            of_head = []
            for _, listed in vocabulary:
                written = torch.stack([to_out[:, part] @ (to_v[part] @ words[word]) for word in listed])
                of_head.append((written - written.mean(dim=0)).square().sum(dim=1).mean().sqrt())
            columns.append(torch.stack(of_head) / torch.stack(of_head).sum())
    shares = torch.stack(columns, dim=1)[:own]
    return (shares / shares.sum(dim=1, keepdim=True) * shares.shape[1]).numpy()


PAIRS = {
    "sd15": (small_sd15, small_clip_sd15),
    "sd15 for inpainting": (small_sd15_inpainting, small_clip_sd15),
    "sd20": (small_sd20, small_clip_sd20),
    "sdxl": (small_sdxl, small_clip_sdxl),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_values_are_those_of_the_definition(kind: str) -> None:
    pair = Pair(*(make() for make in PAIRS[kind]))
    found = pair.hrv()
    np.testing.assert_allclose(found.values, expected(pair, VOCABULARY, 3), rtol=1e-4)
    assert found.layout == head_layout(pair.model) and found.evidence is None
    assert found.concepts == ("Color", "Shape", "Fruits")
    np.testing.assert_allclose(found.values.sum(axis=1), found.layout.head_count, rtol=1e-5)


def test_a_background_is_compared_and_left_out(sd15: Pair, plain: HRV) -> None:
    found = sd15.hrv(background=OTHERS)
    compared = Vocabulary((*VOCABULARY, OTHERS.concepts[0]))
    np.testing.assert_allclose(found.values, expected(sd15, compared, 3), rtol=1e-4)
    assert found.concepts == plain.concepts and not np.allclose(found.values, plain.values, rtol=1e-3)


def test_one_concept_has_a_row_of_its_own_against_a_background(sd15: Pair) -> None:
    one = parse_vocabulary("Fruits: apple, pear, plum")
    found = sd15.hrv(one, background=OTHERS)
    np.testing.assert_allclose(found.values, expected(sd15, Vocabulary((*one, *OTHERS)), 1), rtol=1e-4)
    assert found.concepts == ("Fruits",)


def test_half_precision_is_computed_in_float32() -> None:
    """The oracle has the same rounded weights; half precision would be off by more than a thousandth."""
    pair = Pair(small_sd15(torch.float16), small_clip_sd15())
    for cast in (False, True):
        for module in pair.model.model.modules():
            if hasattr(module, "comfy_cast_weights"):
                module.comfy_cast_weights = cast
        np.testing.assert_allclose(pair.hrv().values, expected(pair, VOCABULARY, 3), rtol=2e-4)


def test_quantised_weights_count_as_what_they_stand_for(sd15: Pair) -> None:
    """Nothing here needs a gradient, so what a causal build refuses is read."""
    quantised, plain = small_sd15(), small_sd15()
    for model in (quantised, plain):
        for attention in unet_of(model).cross_attention.values():
            parts: Any = attention
            for linear in (parts.to_v, parts.to_out[0]):
                stored = QuantizedTensor.from_float(linear.weight.data, "TensorCoreFP8Layout")
                linear.weight = torch.nn.Parameter(
                    stored if model is quantised else stored.dequantize(), requires_grad=False
                )
    found = replace(sd15, model=quantised).hrv()
    np.testing.assert_allclose(found.values, replace(sd15, model=plain).hrv().values, rtol=2e-3)
    assert not np.allclose(found.values, sd15.hrv().values, rtol=2e-3)


def test_the_order_of_concepts_and_words_does_not_matter(sd15: Pair, plain: HRV) -> None:
    turned = Vocabulary(tuple((name, listed[::-1]) for name, listed in reversed(VOCABULARY.concepts)))
    found = sd15.hrv(turned, frames=FRAMES[::-1])
    assert found.concepts == plain.concepts[::-1]
    np.testing.assert_allclose(found.values[::-1], plain.values, rtol=1e-4)


def test_how_many_words_are_encoded_together_does_not_matter(
    sd15: Pair, plain: HRV, monkeypatch: pytest.MonkeyPatch
) -> None:
    for together in (1, 3):
        monkeypatch.setattr("hrv_pack.host.building.value_contrast._TOGETHER", together)
        np.testing.assert_allclose(sd15.hrv().values, plain.values, rtol=1e-4)


def test_what_stands_behind_the_word_does_not_matter(sd15: Pair, plain: HRV) -> None:
    found = sd15.hrv(frames=("{word} on a table", "a photo of a {word}"))
    np.testing.assert_allclose(found.values, plain.values, rtol=1e-4)
    assert not np.allclose(sd15.hrv(frames=FRAMES[:1]).values, plain.values, rtol=1e-3)


def test_twice_is_the_same_and_the_model_stays_as_it_is(sd15: Pair, plain: HRV) -> None:
    before = picture_of_model(sd15.model)
    assert sd15.hrv().same_as(plain)
    comfy.model_management.unload_all_models()
    with torch.inference_mode():
        assert sd15.hrv().same_as(plain)
    assert picture_of_model(sd15.model) == before


def lora_of(model: Any) -> dict[str, torch.Tensor]:
    """A LoRA of rank 2 for all values and output projections of cross-attention."""
    lora = {}
    generator = torch.Generator().manual_seed(0)
    weights = model.model_state_dict()
    for name in [name for name in weights if name.endswith(("attn2.to_v.weight", "attn2.to_out.0.weight"))]:
        height, width = weights[name].shape
        lora[name.replace(".weight", ".lora_up.weight")] = torch.randn(height, 2, generator=generator)
        lora[name.replace(".weight", ".lora_down.weight")] = torch.randn(2, width, generator=generator) / 4
    return lora


def test_a_lora_counts_as_patch_and_as_hook(sd15: Pair, plain: HRV) -> None:
    lora = lora_of(sd15.model)
    loaded = replace(sd15, model=comfy.sd.load_lora_for_models(sd15.model, None, lora, 0.7, 0.0)[0])
    found = loaded.hrv()
    loaded.model.patch_model(torch.device("cpu"))
    try:
        np.testing.assert_allclose(found.values, expected(loaded, VOCABULARY, 3), rtol=1e-4)
    finally:
        loaded.model.unpatch_model()
    (clip,) = SetClipHooks().apply_hooks(sd15.clip, False, True, comfy.hooks.create_hook_lora(lora, 0.7, 0.0))
    np.testing.assert_allclose(replace(sd15, clip=clip).hrv().values, found.values, rtol=1e-4)
    assert not np.allclose(found.values, plain.values, rtol=1e-2)
    assert found.provenance["model_digest"] != plain.provenance["model_digest"]
    assert sd15.hrv().same_as(plain)


def test_a_lora_of_the_text_encoder_counts(sd15: Pair, plain: HRV) -> None:
    clip = sd15.clip.clone()
    weights = clip.patcher.model_state_dict()
    (name,) = [name for name in weights if name.endswith("layers.0.self_attn.out_proj.weight")]
    clip.add_patches({name: ("diff", (torch.randn(weights[name].shape, generator=torch.Generator().manual_seed(1)),))})
    assert not np.allclose(replace(sd15, clip=clip).hrv().values, plain.values, rtol=1e-2)


def test_a_text_encoder_whose_strength_changes_is_refused(sd15: Pair) -> None:
    hooks = comfy.hooks.create_hook_lora(lora_of(sd15.model), 0.7, 0.0)
    keyframes = comfy.hooks.HookKeyframeGroup()
    for strength, start in ((1.0, 0.0), (0.0, 0.5)):
        keyframes.add(comfy.hooks.HookKeyframe(strength, start_percent=start))
    hooks.set_keyframes_on_hooks(keyframes)
    (clip,) = SetClipHooks().apply_hooks(sd15.clip, True, True, hooks)
    with pytest.raises(HRVError, match="Turn 'schedule_clip' off at Set CLIP Hooks"):
        replace(sd15, clip=clip).hrv()


class ProgressReports:
    """The host's progress hook; the user may cancel at a report."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, int]] = []
        self.cancel_at: int | None = None

    def __call__(self, value: int, total: int, preview: Any, node_id: Any = None) -> None:
        self.reports.append((value, total))
        if self.cancel_at is not None and value >= self.cancel_at:
            comfy.model_management.interrupt_current_processing()


@pytest.mark.parametrize("cancel_at", [6, 17])
def test_progress_is_told_and_a_cancel_leaves_the_model_for_the_next(
    sd15: Pair, plain: HRV, monkeypatch: pytest.MonkeyPatch, cancel_at: int
) -> None:
    """Eight words, six and two, in two sentences each, then seven layers; the first cancel is among the sentences."""
    reports = ProgressReports()
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", reports)
    # The host holds back reports that follow each other fast.
    monkeypatch.setattr(comfy.utils.ProgressBar, "update", lambda bar, value: told(bar, value))

    def told(bar: Any, value: int) -> None:
        bar.current += value
        reports(bar.current, bar.total, None)

    monkeypatch.setattr("hrv_pack.host.building.value_contrast._TOGETHER", 6)
    before = picture_of_model(sd15.model)
    reports.cancel_at = cancel_at
    with pytest.raises(InterruptProcessingException):
        sd15.hrv()
    assert reports.reports == [(value, 23) for value in (6, 12, 14, 16, 17) if value <= cancel_at]
    assert picture_of_model(sd15.model) == before
    reports.cancel_at = None
    np.testing.assert_allclose(sd15.hrv().values, plain.values, rtol=1e-4)
    assert reports.reports[-1] == (23, 23)


def test_the_hrv_says_what_it_was_made_from(sd15: Pair) -> None:
    found = sd15.hrv(background=OTHERS)
    known = {
        "estimator": "values",
        "model": "SD15",
        "text_encoder": "SD1ClipModel",
        "frames": FRAMES,
        "background": OTHERS.to_text(),
    }
    assert {name: found.provenance[name] for name in known} == known
    assert parse_vocabulary(found.provenance["vocabulary"]) == VOCABULARY
    assert len(found.provenance["model_digest"]) == len(found.provenance["text_encoder_digest"]) == 64
    assert sd15.hrv().provenance["background"] == ""


@pytest.mark.parametrize(
    ("vocabulary", "background", "sentence"),
    [
        ("Color: red, blue", None, "Color is the only concept, and with nothing to compare it with"),
        ("Shape: circle, star", "Shape: a, b", "Shape is the only concept"),
        ("Color: red, blue\nShape: circle", None, "The concept Shape has only the word 'circle', but a head shows"),
        ("Color: red, blue", "Animals: dog", "The concept Animals has only the word 'dog'"),
        ("Color: red, <|endoftext|>\nShape: a, b", None, "The concept-word '<|endoftext|>' has no token"),
        (f"Color: red, {'blue ' * 74}\nShape: a, b", None, "more than fit into one chunk of the text encoder"),
    ],
)
def test_what_cannot_be_compared_is_refused(sd15: Pair, vocabulary: str, background: str | None, sentence: str) -> None:
    with pytest.raises(HRVError) as caught:
        sd15.hrv(parse_vocabulary(vocabulary), background=parse_vocabulary(background) if background else None)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("place", ["to_v.weight", "to_out.0.weight", "to_out.0.bias"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_with_their_layer(sd15: Pair, place: str, number: float) -> None:
    model = small_sd15()
    attention = "middle_block.1.transformer_blocks.0.attn2."
    model.model.diffusion_model.get_parameter(attention + place).data[0] = number
    with pytest.raises(HRVError, match=r"weights give numbers that are not finite at mid\.0\. The checkpoint"):
        replace(sd15, model=model).hrv()


def test_a_text_encoder_that_gives_nan_is_refused_with_the_word(sd15: Pair) -> None:
    clip = small_clip_sd15()
    clip.cond_stage_model.clip_l.transformer.text_model.final_layer_norm.weight.data[0] = float("nan")
    with pytest.raises(HRVError, match="text encoder gave numbers that aren't finite for the concept-word 'red'"):
        replace(sd15, clip=clip).hrv()


def test_a_head_that_writes_nothing_is_relevant_for_nothing(sd15: Pair) -> None:
    model = small_sd15()
    model.model.diffusion_model.middle_block[1].transformer_blocks[0].attn2.to_out[0].weight.data.zero_()
    found = replace(sd15, model=model).hrv()
    heads = found.layout.head_slice(("middle", 0, 0))
    assert not found.values[:, heads].any() and (np.delete(found.values, range(*heads.indices(999)), axis=1) > 0).all()


def test_another_architecture_and_no_text_encoder_are_refused(sd15: Pair) -> None:
    class Other(torch.nn.Module):
        """No UNet."""

    bare = sd15.model.clone()
    bare.add_object_patch("diffusion_model", Other())
    with pytest.raises(HRVError, match=r"This model \(Other\) has no cross-attention heads"):
        replace(sd15, model=bare).hrv()
    with pytest.raises(HRVError, match="There is no text encoder"):
        replace(sd15, clip=None).hrv()


def test_a_node_that_skips_the_model_is_found_out(sd15: Pair) -> None:
    model = sd15.model.clone()
    model.set_model_unet_function_wrapper(lambda apply_model, arguments: arguments["input"])
    with pytest.raises(HRVError, match="The model was not evaluated: another node skips it"):
        replace(sd15, model=model).hrv()


def test_the_background_is_the_papers_when_it_is_needed() -> None:
    few, enough = (Vocabulary(tuple((f"Concept {n}", ("a", "b")) for n in range(count))) for count in (4, 5))
    for vocabulary, when in ((few, WHEN_NEEDED), (few, ALWAYS), (enough, ALWAYS)):
        background = background_of(vocabulary, when)
        assert background is not None and background.names == paper_concepts()
    assert background_of(enough) is background_of(few, NEVER) is None
    with pytest.raises(HRVError, match="There is no background 'now'; there are when needed, always, never"):
        background_of(few, "now")


@torch.inference_mode()
def test_hrv_mini_is_read_in_seconds() -> None:
    model, clip, _ = load_mini()
    words = "Color: red, yellow, green, blue\nShape: circle, square, triangle, star\nSize: tiny, small, large, huge"
    found = instant_hrv(model, clip, parse_vocabulary(words))
    assert found.values.shape == (3, 128) and list(found.provenance["frames"]) == list(DEFAULT_FRAMES)
    # Heads are told apart, and no two concepts have the same.
    assert (found.values.max(axis=1) > 1.5).all()
    assert len({found.ranking(name)[:8].tobytes() for name in found.concepts}) == 3
