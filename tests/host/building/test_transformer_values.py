"""Instant HRVs of transformers, against the definition sentence by sentence and head by head in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.sample
import comfy.samplers
import numpy as np
import pytest
import torch
from hrv_pack.host.building.one_level import AtOneLevel
from hrv_pack.host.building.text_values import PROGRESS
from hrv_pack.host.building.value_contrast import instant_hrv
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.prompts.carried import Conditioning
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
from hrv_pack.tests.support.compiling import compiled_and_counted
from hrv_pack.tests.support.small_host import encoded, picture_of_model
from hrv_pack.tests.support.small_transformers import (
    ANIMA,
    CHROMA,
    COSMOS,
    FLUX,
    FLUX_2,
    LUMINA_2,
    QWEN_IMAGE,
    WAN,
    Z_IMAGE,
    Kind,
    attending,
    each_kind,
    small,
    small_clip_anima,
    small_clip_flux,
    with_backend,
    with_changed_clip,
    with_changed_weight,
)

VOCABULARY = parse_vocabulary("Color: red, dark blue\nShape: circle, skyscrapers, red")
FRAMES = ("{word}", "a photo of a {word}, at night")


def _of_flux(denoiser: Any) -> list[torch.Tensor]:
    double = [block.img_attn.proj.weight for block in denoiser.double_blocks]
    return [*double, *(block.linear2.weight[:, : denoiser.hidden_size] for block in denoiser.single_blocks)]


OUTPUTS: dict[Kind, Callable[[Any], list[torch.Tensor]]] = {
    ANIMA: lambda denoiser: [block.cross_attn.output_proj.weight for block in denoiser.blocks],
    COSMOS: lambda denoiser: [block.cross_attn.output_proj.weight for block in denoiser.blocks],
    Z_IMAGE: lambda denoiser: [layer.attention.out.weight for layer in denoiser.layers],
    LUMINA_2: lambda denoiser: [layer.attention.out.weight for layer in denoiser.layers],
    FLUX: _of_flux,
    FLUX_2: _of_flux,
    CHROMA: _of_flux,
    WAN: lambda denoiser: [block.cross_attn.o.weight for block in denoiser.blocks],
    QWEN_IMAGE: lambda denoiser: [block.attn.to_out[0].weight for block in denoiser.transformer_blocks],
}


def clip_of(kind: Kind) -> Any:
    """T5 for all: where the words of other encoders are is tests/host/prompts/test_letters.py's."""
    return small_clip_anima() if kind is ANIMA else small_clip_flux()


def values_of(model: Any, kind: Kind, conditioning: Conditioning) -> dict[int, torch.Tensor]:
    """Values [L, heads x d] of every layer, in a pass with this text alone; layers are told by the modules that run."""
    found: dict[int, torch.Tensor] = {}

    def attend(number: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        found[number] = v[0].double()

    def evaluate(guider: Any, x: torch.Tensor, sigmas: torch.Tensor, options: dict[str, Any]) -> None:
        comfy.samplers.calc_cond_batch(guider.inner_model, [guider.conds["positive"]], x, sigmas, options)

    sigma = float(model.get_model_object("model_sampling").percent_to_sigma(PROGRESS))
    empty = torch.zeros(1, *kind.latent)
    noise = comfy.sample.prepare_noise(empty, 0)
    with attending(model, kind, attend) as clone:
        guider = comfy.samplers.CFGGuider(clone)
        guider.inner_set_conds({"positive": conditioning})
        guider.sample(noise, empty, AtOneLevel(evaluate), torch.tensor([sigma, 0.0]), disable_pbar=True, seed=0)
    return found


def places(clip: Any, word: str, sentence: str) -> list[int]:
    """Where T5 has a word of a sentence."""
    ids, own = ([token for token, *_ in clip.tokenize(text)["t5xxl"][0]] for text in (sentence, word))
    own = own[: own.index(1)]
    (first,) = [place for place in range(len(ids)) if ids[place : place + len(own)] == own]
    return list(range(first, first + len(own)))


def expected(model: Any, kind: Kind, clip: Any, outputs: Sequence[torch.Tensor]) -> np.ndarray:
    """Values [N, H] by the definition; ``outputs`` are the weights of :data:`OUTPUTS`."""
    layout = head_layout(model)
    padding = max(0, kind.padded_to - 256)
    of_words: dict[str, list[torch.Tensor]] = {}
    for word in dict.fromkeys(word for _, listed in VOCABULARY for word in listed):
        of_frames = []
        for frame in FRAMES:
            sentence = frame.replace("{word}", word)
            own = [padding + place for place in places(clip, word, sentence)]
            values = values_of(model, kind, encoded(clip, sentence))
            of_frames.append([values[number][own].mean(dim=0) for number in range(len(layout.layers))])
        of_words[word] = [torch.stack(of_layer).mean(dim=0) for of_layer in zip(*of_frames, strict=True)]
    columns = []
    for number, layer in enumerate(layout.layers):
        width = len(of_words["red"][number]) // layer.heads
        for head in range(layer.heads):
            part = slice(head * width, (head + 1) * width)
            of_head = []
            for _, listed in VOCABULARY:
                written = torch.stack(
                    [outputs[number].double()[:, part] @ of_words[word][number][part] for word in listed]
                )
                of_head.append((written - written.mean(dim=0)).square().sum(dim=1).mean().sqrt())
            columns.append(torch.stack(of_head) / torch.stack(of_head).sum())
    shares = torch.stack(columns, dim=1)
    return (shares / shares.sum(dim=1, keepdim=True) * shares.shape[1]).detach().numpy()


@each_kind
def test_values_are_those_of_the_definition(kind: Kind) -> None:
    model, clip = small(kind), clip_of(kind)
    before = picture_of_model(model)
    with torch.inference_mode():
        found = instant_hrv(model, clip, VOCABULARY, frames=FRAMES)
        outputs = OUTPUTS[kind](model.model.diffusion_model)
        np.testing.assert_allclose(found.values, expected(model, kind, clip, outputs), rtol=1e-3)
    assert found.layout == head_layout(model) and found.provenance["level"] == PROGRESS
    assert picture_of_model(model) == before


@each_kind
def test_values_beside_loras_of_both_models_and_other_backends(kind: Kind) -> None:
    """Of the weights that read the text, of those that write what heads found, and of the text encoder."""
    model, clip = small(kind), clip_of(kind)
    with torch.inference_mode():
        without = instant_hrv(model, clip, VOCABULARY, frames=FRAMES).values
        first, *others = OUTPUTS[kind](model.model.diffusion_model)
        (name,) = [name for name, weight in model.model.named_parameters() if weight is first]
        difference = torch.randn(first.shape, generator=torch.Generator().manual_seed(5))
        outputs = [first + difference, *others]
        patched, its = with_changed_weight(model), with_changed_clip(clip)
        patched.add_patches({name: ("diff", (difference,))})
        found = instant_hrv(patched, its, VOCABULARY, frames=FRAMES).values
        np.testing.assert_allclose(found, expected(patched, kind, its, outputs), rtol=1e-3)
        for changed in ((patched, clip), (model, its)):
            one = instant_hrv(*changed, VOCABULARY, frames=FRAMES).values
            assert min(np.abs(one - other).max() for other in (without, found)) > 0.01
        beside, calls = with_backend(patched)
        np.testing.assert_array_equal(instant_hrv(beside, its, VOCABULARY, frames=FRAMES).values, found)
        assert calls
        np.testing.assert_array_equal(instant_hrv(model, clip, VOCABULARY, frames=FRAMES).values, without)


@each_kind
def test_values_in_half_precision_are_those_of_the_definition(kind: Kind) -> None:
    model, clip = small(kind, torch.bfloat16), clip_of(kind)
    with torch.inference_mode():
        found = instant_hrv(model, clip, VOCABULARY, frames=FRAMES).values
        exact = expected(model, kind, clip, OUTPUTS[kind](model.model.diffusion_model))
    np.testing.assert_allclose(found, exact, rtol=2 * torch.finfo(torch.bfloat16).eps)


@pytest.mark.parametrize(
    ("kind", "part"),
    [(ANIMA, "diffusion_model.blocks.0.cross_attn"), (FLUX, "diffusion_model.single_blocks.1")],
    ids=str,
)
def test_values_of_a_compiled_model_are_the_same(kind: Kind, part: str) -> None:
    model, clip = small(kind), clip_of(kind)
    with torch.inference_mode():
        without = instant_hrv(model, clip, VOCABULARY, frames=FRAMES[:1]).values
        compiled, count = compiled_and_counted(model, part)
        found = instant_hrv(compiled, clip, VOCABULARY, frames=FRAMES[:1]).values
    assert count.graphs > 0
    np.testing.assert_allclose(found, without, rtol=1e-5)


def test_words_and_numbers_that_cannot_be_read_are_said() -> None:
    clip = small_clip_flux()
    with pytest.raises(HRVError, match=r"^The concept-word '🄰' has no token of its own"):
        instant_hrv(small(FLUX), clip, parse_vocabulary("Color: red, 🄰\nShape: circle, square"), FRAMES)
    broken = FLUX.make(torch.float32)
    name = next(name for name, _ in broken.model.named_parameters() if name.endswith("txt_attn.qkv.weight"))
    broken.add_patches({name: ("diff", (torch.full_like(dict(broken.model.named_parameters())[name], torch.nan),))})
    with pytest.raises(HRVError, match=r"^The model gave numbers that are not finite at double0\. "):
        instant_hrv(broken, clip, VOCABULARY, FRAMES[:1])
