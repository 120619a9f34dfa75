"""Attend and Excite with transformers: the loss and its gradient against explicit maps, and what is left as it was."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import comfy.samplers
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from comfy.quant_ops import QuantizedTensor
from comfy.samplers import KSAMPLER, CFGGuider
from comfy_extras.nodes_video_model import ConditioningSetAreaPercentageVideo
from hrv_pack.host.attend_and_excite.subjects import excite
from hrv_pack.host.mechanism import add_reading
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.prompts.carried import Conditioning
from hrv_pack.host.runs.gradients import gradients
from hrv_pack.hrv.attend_and_excite.settings import ExcitementSettings
from hrv_pack.hrv.controls.reading import Reading
from hrv_pack.hrv.errors import HRVError
from hrv_pack.tests.host.attend_and_excite.test_run import blurred, gaussian, one_call
from hrv_pack.tests.support.compiling import compiled_and_counted
from hrv_pack.tests.support.explicit_transformer_readings import by_head
from hrv_pack.tests.support.small_host import explicit_maps, picture_of_model, random_hrv, relative_error
from hrv_pack.tests.support.small_transformers import (
    ANIMA,
    FLUX,
    QWEN_IMAGE,
    SHALLOW_FLUX,
    WAN,
    Kind,
    attending,
    each_kind,
    one_of_each,
    prompt,
    small,
    with_backend,
    with_changed_weight,
)

from nodes import ConditioningSetArea

WORDS = ("a", "red", "car", "and", "tree")
# Behind a first token, one of them each.
POSITIONS = {"car": 3, "tree": 5}
HRV_SUBJECTS = (("car", "Color"), ("tree", "Shape"))
MIXED_SUBJECTS = (("car", "Color"), ("tree", ""))
ONE_UPDATE = ExcitementSettings(thresholds=())
TOLERANCE = 5e-4
"""Of losses near 0 and of gradients, in single precision, of maps times 100."""


def sigma_of(model: Any) -> float:
    """A noise level inside the window of updates."""
    return float(model.get_model_object("model_sampling").percent_to_sigma(0.2))


def sides(kind: Kind) -> tuple[int, ...]:
    """Of latents of one image."""
    return (kind.latent[0], *(1 for _ in kind.latent[1:-2]), *kind.latent[-2:])


def latents_of(kind: Kind, seeds: Sequence[int] = (1,)) -> torch.Tensor:
    return torch.cat([torch.randn(1, *sides(kind), generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@contextmanager
def watched(model: Any, kind: Kind, tokens: int) -> Iterator[tuple[Any, dict[int, torch.Tensor]]]:
    """A clone of a MODEL that reads the text by float64 maps, and its maps among the text's tokens [B, heads, P, T].

    ``tokens`` is the length of a conditioning as the model gets it; layers are told by the modules that run.
    """
    layout = head_layout(model)
    seen: dict[int, torch.Tensor] = {}

    def attend(number: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        heads = layout.layers[number].heads
        start = kind.image_start(tokens) if kind.image_start else 0
        text = start if kind.image_start else k.shape[1]
        seen[number] = explicit_maps(q[:, start:], k[:, :text], heads)
        return (explicit_maps(q, k, heads) @ by_head(v, heads)).transpose(1, 2).flatten(2).to(q.dtype)

    with attending(model, kind, attend) as clone:
        yield clone, seen


def explicit(
    model: Any, kind: Kind, own: Conditioning, x: torch.Tensor, subjects: Sequence[tuple[str, str]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses [B], and their gradients by the latents: the publications' formulas, map by map, in float64."""
    layout, hrv = head_layout(model), random_hrv(head_layout(model))
    tokens = max(own[0][0].shape[1], kind.padded_to)
    first = tokens - own[0][0].shape[1] if kind.padded_to else 0
    patch = 1 if kind.padded_to else 2
    height, width = (side // patch for side in x.shape[-2:])
    found: list[tuple[torch.Tensor, torch.Tensor]] = []

    def measure(model_k: Any, noise: Any, sigmas: Any, extra_args: Any, callback: Any, disable: Any) -> torch.Tensor:
        with gradients():
            latent = x.clone().requires_grad_(True)
            model_k(latent, sigmas[:1].expand(len(x)), **extra_args)
            losses = []
            for image in range(len(x)):
                shares = []
                for words, concept in subjects:
                    total: Any = 0
                    for number, layer in enumerate(layout.layers):
                        maps = seen[number][image, :, : height * width].unflatten(1, (height, width))
                        if concept:
                            row = torch.from_numpy(hrv.row(concept)[layout.head_slice(layer.key)].astype(np.float64))
                            weighed = torch.einsum("hyxt,h->tyx", maps, row / layout.head_count)
                            grown = F.interpolate(weighed[None], size=(8, 8), mode="bicubic", align_corners=False)
                            total = total + grown[0].movedim(0, -1)
                        else:
                            total = total + maps.sum(0) / layout.head_count
                    # All that stands in front of the words, which begin behind one token, is cut off.
                    text = torch.softmax(100 * total[..., first + 1 :], dim=-1)
                    shares.append(blurred(text[..., POSITIONS[words] - 1], gaussian(1, 0.5)).max())
                losses.append(max(1 - share for share in shares))
            (gradient,) = torch.autograd.grad(torch.stack(losses).sum(), latent)
        found.append((torch.stack(losses).detach(), gradient))
        return noise

    with watched(model, kind, tokens) as (clone, seen):
        guider = CFGGuider(clone)
        guider.set_conds(own, own)
        guider.set_cfg(1.0)
        nothing = torch.zeros_like(x)
        with torch.inference_mode():
            guider.sample(nothing, nothing, KSAMPLER(measure), torch.tensor([sigma_of(model), 0.0]), disable_pbar=True)
    return found[0]


def found_in(
    model: Any, own: Conditioning, x: torch.Tensor, subjects: Sequence[tuple[str, str]], checkpointing: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses [B] of one update, and the gradients by which it moved the latents."""
    excited, positive, log = excite(
        model, own, subjects, random_hrv(head_layout(model)), ONE_UPDATE, checkpointing=checkpointing
    )
    with torch.inference_mode():
        moved, made = one_call(excited, positive, own, x, sigma_of(model))
    (step,) = log.find(made.numpy()).steps
    (iteration,) = step.iterations
    sampling = model.get_model_object("model_sampling")
    scale = float(sampling.calculate_input(torch.tensor([sigma_of(model)]), torch.ones(1, 1, 1, 1)))
    size = 20 * math.sqrt(1 - 0.5 * step.progress) / scale**2
    return torch.from_numpy(iteration.losses), (x - moved) / size


def assert_close(found: tuple[torch.Tensor, torch.Tensor], expected: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Losses and gradients, image by image."""
    assert relative_error(found[0], expected[0]) <= TOLERANCE
    assert float(expected[1].abs().max()) > 0
    for one, other in zip(found[1], expected[1], strict=True):
        assert relative_error(one, other) <= TOLERANCE


@each_kind
def test_loss_and_gradient_equal_an_explicit_implementation(kind: Kind) -> None:
    model, own = small(kind), prompt(WORDS, seed=1)
    before = picture_of_model(model)
    x = latents_of(kind, seeds=(1, 2) if kind in (ANIMA, FLUX) else (1,))
    for subjects, checkpointing in ((HRV_SUBJECTS, False), (MIXED_SUBJECTS, True)):
        found = found_in(model, own, x, subjects, checkpointing)
        assert_close(found, explicit(model, kind, own, x, subjects))
    assert picture_of_model(model) == before


@each_kind
def test_losses_beside_loras_and_other_backends(kind: Kind) -> None:
    """Those of the model with the LoRA; passes with a gradient have PyTorch's attention, whatever else is chosen."""
    model, own, x = small(kind), prompt(WORDS, seed=1), latents_of(kind)
    patched = with_changed_weight(model)
    without, found = (found_in(one, own, x, MIXED_SUBJECTS) for one in (model, patched))
    assert relative_error(found[1], without[1]) > 10 * TOLERANCE
    assert_close(found, explicit(patched, kind, own, x, MIXED_SUBJECTS))
    beside, calls = with_backend(patched)
    again = found_in(beside, own, x, MIXED_SUBJECTS)
    assert all(torch.equal(one, other) for one, other in zip(again, found, strict=True))
    # The step itself has the backend.
    assert len(calls) >= len(head_layout(model).layers)
    after = found_in(model, own, x, MIXED_SUBJECTS)
    assert all(torch.equal(one, other) for one, other in zip(after, without, strict=True))


@one_of_each
def test_losses_in_half_precision_are_as_exact_as_rounding_allows(kind: Kind) -> None:
    """Maps times 100 and a backward pass make more of it."""
    model, own, x = small(kind, torch.bfloat16), prompt(WORDS, seed=1), latents_of(kind)
    found = found_in(model, own, x, MIXED_SUBJECTS)
    for one, other in zip(found, explicit(model, kind, own, x, MIXED_SUBJECTS), strict=True):
        assert torch.isfinite(one).all() and float(other.abs().max()) > 0
        assert relative_error(one, other) <= 16 * torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize(
    ("kind", "part"), [(SHALLOW_FLUX, "diffusion_model"), (ANIMA, "diffusion_model.blocks.0")], ids=str
)
def test_a_compiled_model_moves_latents_as_it_does_without_and_stays_compiled(kind: Kind, part: str) -> None:
    """Passes with a gradient are not compiled, the others are."""
    model, own, x = small(kind), prompt(WORDS, seed=1), latents_of(kind)
    expected = found_in(model, own, x, MIXED_SUBJECTS)
    compiled, count = compiled_and_counted(model, part)
    found = found_in(compiled, own, x, MIXED_SUBJECTS)
    first = count.graphs
    again = found_in(compiled, own, x, MIXED_SUBJECTS)
    assert first > 0 and count.graphs == first
    for one, other, plain in zip(found, again, expected, strict=True):
        assert torch.equal(one, plain) and torch.equal(other, plain)


@one_of_each
def test_a_step_size_of_zero_changes_no_bit(kind: Kind) -> None:
    model, own, negative = small(kind), prompt(WORDS, seed=1), prompt(("ugly",), seed=2)
    hrv, x = random_hrv(head_layout(model)), latents_of(kind)
    made = []
    for settings in (None, ExcitementSettings(step_size=0.0), ONE_UPDATE):
        graph = (model, own) if settings is None else excite(model, own, MIXED_SUBJECTS, hrv, settings)[:2]
        guider = CFGGuider(graph[0])
        guider.set_conds(graph[1], negative)
        guider.set_cfg(4.0)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 2)
        sampler = comfy.samplers.sampler_object("euler")
        with torch.inference_mode():
            made.append(guider.sample(x, torch.zeros_like(x), sampler, sigmas, disable_pbar=True, seed=5))
    plain, watching, moving = made
    assert torch.equal(watching, plain) and relative_error(moving, plain) > 1e-3


@one_of_each
def test_other_prompts_that_heads_read_have_no_subjects(kind: Kind) -> None:
    """The words of another prompt stand elsewhere. Here it is read so little that it changes nothing."""
    model, own, other, x = small(kind), prompt(WORDS, seed=1), prompt(("two", "trees"), seed=3), latents_of(kind)
    layout = head_layout(model)
    gates = np.full(layout.head_count, 1e-9, np.float32)
    expected = found_in(model, own, x, MIXED_SUBJECTS)
    found = found_in(*add_reading(model, own, other, lambda _: Reading(gates, layout)), x, MIXED_SUBJECTS)
    assert_close(found, expected)


@one_of_each
def test_the_gradient_goes_through_what_heads_read_of_another_prompt(kind: Kind) -> None:
    """Against differences of the loss along it; where the text depends on the image, so does what is read."""
    model, own, other, x = small(kind), prompt(WORDS, seed=1), prompt(("two", "trees"), seed=3), latents_of(kind)
    layout = head_layout(model)
    gates = np.random.default_rng(4).uniform(0.2, 1.0, layout.head_count).astype(np.float32)
    graph = add_reading(model, own, other, lambda _: Reading(gates, layout))
    without, _ = found_in(model, own, x, HRV_SUBJECTS)
    losses, gradient = found_in(*graph, x, HRV_SUBJECTS)
    assert relative_error(losses, without) > 10 * TOLERANCE
    assert_close(found_in(*graph, x, HRV_SUBJECTS, checkpointing=True), (losses, gradient))
    step = 1e-3 * gradient / gradient.norm()
    ahead, behind = (found_in(*graph, x + sign * step, HRV_SUBJECTS)[0] for sign in (1, -1))
    assert float((ahead - behind) / 2e-3) == pytest.approx(float(gradient.norm()), rel=0.02)


def test_several_frames_are_refused() -> None:
    kind = WAN
    model, own = small(kind), prompt(WORDS, seed=1)
    excited, positive, _ = excite(model, own, MIXED_SUBJECTS, random_hrv(head_layout(model)), ONE_UPDATE)
    with pytest.raises(HRVError, match=r"^Attend and Excite moves single images, but this latent has 2 frames\. Set"):
        one_call(excited, positive, own, torch.zeros(1, *kind.latent), sigma_of(model))


@pytest.mark.parametrize("kind", [WAN, ANIMA, QWEN_IMAGE], ids=str)
@pytest.mark.parametrize("node", ["area", "area of a video"])
def test_a_prompt_for_an_area_moves_the_area_alone(kind: Kind, node: str) -> None:
    """By what its part of the latent [B, C, T, h, w] alone would be moved by: of a video one frame may be an area."""
    model, own = small(kind), prompt(WORDS, seed=1)
    if node == "area":
        (placed,), frames = ConditioningSetArea().append(own, 64, 64, 32, 64, 1.0), 1
        place = (slice(None), slice(None), slice(None), slice(8, 16), slice(4, 12))
    else:
        shares = (0.5, 0.5, 0.34, 0.25, 0.5, 0.34)
        (placed,), frames = ConditioningSetAreaPercentageVideo().append(own, *shares, 1.0), 3
        place = (slice(None), slice(None), slice(1, 2), slice(8, 16), slice(4, 12))
    x = torch.randn(2, kind.latent[0], frames, 16, 16, generator=torch.Generator().manual_seed(3))
    losses, gradient = found_in(model, placed, x, MIXED_SUBJECTS)
    part = gradient[place].clone()
    assert_close((losses, part), explicit(model, kind, own, x[place], MIXED_SUBJECTS))
    gradient[place] = 0.0
    assert not gradient.any()


def test_masked_tokens_are_refused() -> None:
    kind = QWEN_IMAGE
    model, own = small(kind), prompt(WORDS, seed=1, attention_mask=(torch.arange(9) < 7).long()[None])
    excited, positive, _ = excite(model, own, MIXED_SUBJECTS, random_hrv(head_layout(model)), ONE_UPDATE)
    with pytest.raises(HRVError, match=r"^Some tokens of this prompt are masked, so Attend and Excite cannot read"):
        one_call(excited, positive, own, latents_of(kind), sigma_of(model))


def test_reference_images_of_flux_have_no_part_in_maps() -> None:
    """Their queries stand behind the image's own."""
    own = prompt(WORDS, seed=1, reference_latents=[torch.randn(1, 16, 8, 8)])
    x = latents_of(FLUX)
    found = found_in(small(FLUX), own, x, MIXED_SUBJECTS)
    assert_close(found, explicit(small(FLUX), FLUX, own, x, MIXED_SUBJECTS))


def test_quantised_weights_are_refused() -> None:
    model, own = FLUX.make(torch.float32), prompt(WORDS, seed=1)
    layer = model.model.diffusion_model.single_blocks[0].linear2
    quantised = QuantizedTensor.from_float(layer.weight.data, "TensorCoreFP8Layout")
    layer.weight = torch.nn.Parameter(quantised, requires_grad=False)
    excited, positive, _ = excite(model, own, MIXED_SUBJECTS, random_hrv(head_layout(model)), ONE_UPDATE)
    with pytest.raises(HRVError, match=r"quantised \(single_blocks\.0\.linear2\.weight: .*Load the checkpoint in half"):
        one_call(excited, positive, own, latents_of(FLUX), sigma_of(model))
