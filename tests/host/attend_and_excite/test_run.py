"""Attend and Excite on real UNets against an explicit float64 implementation, and what it must leave alone."""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from comfy.model_management import InterruptProcessingException
from comfy.quant_ops import QuantizedTensor
from comfy_extras.nodes_custom_sampler import (
    BasicGuider,
    CFGGuider,
    Noise_RandomNoise,
    SamplerCustom,
    SamplerCustomAdvanced,
)
from comfy_extras.nodes_tomesd import TomePatchModel
from hrv_pack.host.attend_and_excite.subjects import excite
from hrv_pack.host.models.architectures import unet_of
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.runs.gradients import checkpointed, gradients
from hrv_pack.host.runs.steps import at_each_step
from hrv_pack.hrv.attend_and_excite.settings import ExcitementSettings, Threshold
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.progress import Window
from hrv_pack.nodes.excitement import AttendAndExcite, AttendAndExciteReport
from hrv_pack.tests.support.small_host import (
    Setup,
    encoded,
    latents,
    picture,
    picture_of_model,
    relative_error,
    small_clip_sd15,
    small_sd15,
)
from hrv_pack.tests.support.told_page import statuses, told_page

PROMPT = "a red car and a skyscrapers view"
# Places of the words behind the start token; CLIP has three tokens for "skyscrapers".
POSITIONS = {"car": (3,), "skyscrapers": (6, 7, 8)}
HRV_SUBJECTS = (("car", "Color"), ("skyscrapers", "Shape"))
PLAIN_SUBJECTS = (("car", ""), ("skyscrapers", ""))
MIXED_SUBJECTS = (("car", "Color"), ("skyscrapers", ""))
ONE_UPDATE = ExcitementSettings(thresholds=())
SMALL_STEPS = ExcitementSettings(step_size=0.5, thresholds=())
TOLERANCE = 1e-5
LAYERS = 7
"""Layers of the small SD 1.x."""


@dataclass(frozen=True)
class Excited(Setup):
    def excited(
        self,
        subjects: Sequence[tuple[str, str]] = HRV_SUBJECTS,
        settings: ExcitementSettings = SMALL_STEPS,
        **more: Any,
    ) -> tuple[Any, Any, Any]:
        """MODEL, positive and the log of reports."""
        return excite(self.model, self.prompt, subjects, self.hrv, settings, **more)


SETUP = Excited


@pytest.fixture(scope="module")
def exact() -> Excited:
    """The same model and weights, computing in float64."""
    return Excited.of(small_sd15(torch.float64), small_clip_sd15(), PROMPT)


# What the publications say, written down a second time, map by map.


def blurred(map_: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    reach = kernel.shape[0] // 2
    return F.conv2d(F.pad(map_[None, None], (reach,) * 4, mode="reflect"), kernel[None, None])[0, 0]


def gaussian(reach: int, sigma: float) -> torch.Tensor:
    kernel = torch.tensor(
        [
            [math.exp(-(x**2 + y**2) / (2 * sigma**2)) for x in range(-reach, reach + 1)]
            for y in range(-reach, reach + 1)
        ],
        dtype=torch.float64,
    )
    return kernel / kernel.sum()


def brought_to(map_: torch.Tensor, target: tuple[int, int]) -> torch.Tensor:
    """One map [h, w]: blurred if it shrinks, by as much in both directions, then bicubic."""
    if map_.shape[0] > target[0]:
        reach = map_.shape[0] // target[0] // 2
        map_ = blurred(map_, gaussian(reach, 0.3 * (reach - 1) + 0.8))
    return F.interpolate(map_[None, None], size=target, mode="bicubic", align_corners=False)[0, 0]


def explicit(
    setup: Excited,
    x: torch.Tensor,
    sigma: float,
    subjects: Sequence[tuple[str, str]],
    target: tuple[int, int],
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """Losses [B], gradients of each image by the network's input, and maxima [B] by words, in float64.

    Patches of the model's self-attention take part, and draw by ``seed``.
    """
    unet = copy.deepcopy(setup.model.model.diffusion_model).double()
    layout, sampling = head_layout(setup.model), setup.model.model.model_sampling
    seen: dict[Any, torch.Tensor] = {}

    def keep(key: Any) -> Callable[..., None]:
        def hook(module: Any, args: Any, kwargs: Any) -> None:
            q, k = module.to_q(args[0]), module.to_k(kwargs["context"])
            q, k = (part.unflatten(-1, (module.heads, -1)).transpose(1, 2) for part in (q, k))
            seen[key] = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1)

        return hook

    for key, module in unet_of(setup.model).cross_attention.items():
        path = next(name for name, part in setup.model.model.diffusion_model.named_modules() if part is module)
        unet.get_submodule(path).register_forward_pre_hook(keep(key), with_kwargs=True)
    sizes = {"input": x.shape[-2:]}
    seen_by_size: dict[int, tuple[int, int]] = {}
    for halvings in range(3):
        height, width = (side // 2**halvings for side in sizes["input"])
        seen_by_size[height * width] = height, width
    patches = setup.model.model_options["transformer_options"].get("patches", {})
    losses, gradients = [], []
    maxima: dict[str, list[torch.Tensor]] = {words: [] for words, _ in subjects}
    for image in x.double():
        latent = (image[None] / math.sqrt(sigma**2 + 1)).requires_grad_(True)
        with torch.enable_grad():
            time = sampling.timestep(torch.tensor([sigma])).float()
            torch.manual_seed(seed)
            unet(latent, time, context=setup.prompt[0][0].double(), transformer_options={"patches": patches})
            shares = []
            for words, concept in subjects:
                if concept:
                    total: Any = 0
                    for layer in layout.layers:
                        row = setup.hrv.row(concept)[layout.head_slice(layer.key)]
                        maps = seen[layer.key][0].unflatten(1, seen_by_size[seen[layer.key].shape[2]])
                        for head in range(layer.heads):
                            tokens = [brought_to(maps[head, ..., token], target) for token in range(77)]
                            total = total + float(row[head]) / layout.head_count * torch.stack(tokens, dim=-1)
                else:
                    # A quarter of the side of the latent, or what comes nearest: here a half.
                    quarter = [maps[0] for maps in seen.values() if maps.shape[2] == math.prod(x.shape[-2:]) // 4]
                    total = torch.cat(quarter).mean(0).unflatten(0, (x.shape[-2] // 2, x.shape[-1] // 2))
                text = torch.softmax(100 * total[..., 1:], dim=-1)
                map_ = torch.stack([text[..., position - 1] for position in POSITIONS[words]]).sum(0)
                shares.append(blurred(map_, gaussian(1, 0.5)).max())
                maxima[words].append(shares[-1].detach())
            loss = max(1 - share for share in shares)
            (gradient,) = torch.autograd.grad(loss, latent)
        losses.append(loss.detach())
        gradients.append(gradient[0])
    return torch.stack(losses), torch.stack(gradients), {words: torch.stack(found) for words, found in maxima.items()}


def one_call(
    model: Any, positive: Any, negative: Any, x: torch.Tensor, sigma: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a sampler holds after one call of the model at its latent x [B, C, h, w], and what the run gives."""
    after = []

    def call(model_k: Any, noise: Any, sigmas: Any, extra_args: Any, callback: Any, disable: Any) -> torch.Tensor:
        latent = x.clone() if noise.shape == x.shape else noise
        model_k(latent, sigmas[:1].expand(len(latent)), **extra_args)
        callback({"x": latent, "i": 0, "denoised": latent})
        after.append(latent)
        return latent

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    nothing, sigmas = torch.zeros_like(x), torch.tensor([sigma, 0.0])
    made = guider.sample(nothing, nothing, comfy.samplers.KSAMPLER(call), sigmas, disable_pbar=True)
    return after[-1], made


@pytest.mark.parametrize("subjects", [HRV_SUBJECTS, PLAIN_SUBJECTS, MIXED_SUBJECTS], ids=["HRV", "plain", "mixed"])
def test_loss_and_gradient_equal_an_explicit_implementation(exact: Excited, subjects: Any) -> None:
    x = torch.randn(2, 4, 16, 24, generator=torch.Generator().manual_seed(1)) * 14
    sigma = 13.0
    model, positive, log = exact.excited(subjects, ONE_UPDATE)
    moved, made = one_call(model, positive, exact.negative, x, sigma)
    losses, gradients, maxima = explicit(exact, x, sigma, subjects, (7, 10))
    (step,) = log.find(made.numpy()).steps
    (iteration,) = step.iterations
    assert relative_error(torch.from_numpy(iteration.losses), losses) <= TOLERANCE
    for (words, _), row in zip(subjects, iteration.maxima, strict=True):
        assert relative_error(torch.from_numpy(row), maxima[words]) <= TOLERANCE
    # Latents of the host are sqrt(sigma^2 + 1) times what the network sees, where steps are measured.
    size = 20 * math.sqrt(1 - 0.5 * step.progress)
    found = (x - moved).double() / math.sqrt(sigma**2 + 1) / size
    for one, expected in zip(found, gradients, strict=True):
        assert relative_error(one, expected) <= TOLERANCE


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_gradient_goes_through_merged_tokens(exact: Excited, checkpointing: bool) -> None:
    """The host's own token merging in a network that nothing else touches, with the same draws."""
    (merging,) = TomePatchModel.execute(exact.model, 0.5).result
    x, sigma = torch.randn(1, 4, 16, 24, generator=torch.Generator().manual_seed(1)) * 14, 13.0
    losses, gradients, _ = explicit(replace(exact, model=merging), x, sigma, HRV_SUBJECTS, (7, 10), seed=5)
    plain, _, _ = explicit(exact, x, sigma, HRV_SUBJECTS, (7, 10))
    model, positive, log = replace(exact, model=merging).excited(HRV_SUBJECTS, ONE_UPDATE, checkpointing=checkpointing)
    torch.manual_seed(5)
    moved, made = one_call(model, positive, exact.negative, x, sigma)
    (step,) = log.find(made.numpy()).steps
    (iteration,) = step.iterations
    found = torch.from_numpy(iteration.losses)
    assert relative_error(found, losses) <= TOLERANCE and relative_error(found, plain) > 100 * TOLERANCE
    size = 20 * math.sqrt(1 - 0.5 * step.progress)
    gradient = (x - moved).double() / math.sqrt(sigma**2 + 1) / size
    assert relative_error(gradient[0], gradients[0]) <= TOLERANCE


def test_looking_leaves_to_the_network_what_it_draws(sd15: Excited) -> None:
    """A look with its own draws would have made another picture of everything behind it."""
    (merging,) = TomePatchModel.execute(sd15.model, 0.5).result
    model, positive, _ = replace(sd15, model=merging).excited(settings=ExcitementSettings(step_size=0.0))
    expected = latents(merging, sd15.prompt, sd15.negative, steps=4, size=16)
    assert torch.equal(latents(model, positive, sd15.negative, steps=4, size=16), expected)
    assert not torch.equal(latents(sd15.model, sd15.prompt, sd15.negative, steps=4, size=16), expected)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("backward", [False, True])
def test_a_cancel_ends_a_pass_between_two_layers(sd15: Excited, backward: bool, checkpointing: bool) -> None:
    """Not at the end of it: a pass of a large model and back takes many seconds on a CPU."""
    reached: list[str] = []

    def cancel(*_: Any) -> None:
        comfy.model_management.interrupt_current_processing()

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: Any) -> Any:
        reached.append("forward")
        if q.requires_grad:
            q.register_hook(lambda grad: reached.append("backward"))
            if backward and len(reached) == LAYERS:
                q.register_hook(cancel)
        if not backward and len(reached) == 3:
            cancel()
        return q, k, v

    watched = sd15.model.clone()
    watched.set_model_attn1_patch(attend)
    model, positive, _ = replace(sd15, model=watched).excited(checkpointing=checkpointing)
    before = picture_of_model(model)
    try:
        with pytest.raises(InterruptProcessingException):
            latents(model, positive, sd15.negative, steps=2)
    finally:
        comfy.model_management.interrupt_current_processing(False)
    assert picture_of_model(model) == before
    if backward:
        assert reached[:LAYERS] == ["forward"] * LAYERS and 1 <= reached.count("backward") <= 2
    else:
        assert reached == ["forward"] * 3
    expected = latents(*sd15.excited(checkpointing=checkpointing)[:2], sd15.negative, steps=2)
    assert torch.equal(latents(*sd15.excited(checkpointing=checkpointing)[:2], sd15.negative, steps=2), expected)


def test_single_precision_loses_little(sd15: Excited, exact: Excited) -> None:
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1)) * 14
    moves = [one_call(*setup.excited()[:2], setup.negative, x, 13.0)[0] - x for setup in (sd15, exact)]
    assert relative_error(*moves) <= 1e-3


def test_a_step_size_of_zero_changes_no_bit_and_still_reports(sd15: Excited) -> None:
    model, positive, log = sd15.excited(settings=ExcitementSettings(step_size=0.0))
    for sampler in ("euler", "euler_ancestral", "heun", "dpmpp_2m"):
        found = latents(model, positive, sd15.negative, sampler=sampler, steps=4)
        assert torch.equal(found, latents(sd15.model, sd15.prompt, sd15.negative, sampler=sampler, steps=4))
        assert [len(step.iterations) for step in log.find(found.numpy()).steps] == [1, 1]


@pytest.mark.parametrize("kind", ["sd15", "sd20", "sdxl"])
def test_updates_raise_the_most_neglected_subject(request: pytest.FixtureRequest, kind: str) -> None:
    setup = request.getfixturevalue(kind)
    settings = ExcitementSettings(step_size=0.5, thresholds=(Threshold(0.0, 1.0),), iterations=8)
    model, positive, log = setup.excited(settings=settings)
    made = latents(model, positive, setup.negative, steps=2, size=16)
    first = log.find(made.numpy()).steps[0]
    assert len(first.iterations) == 8 + 1
    assert first.iterations[-1].losses[0] < first.iterations[0].losses[0]


def test_after_a_refinement_comes_the_update_of_every_step(sd15: Excited) -> None:
    """As in the authors' code: n updates until the threshold is reached, then one more; only one if it was met."""

    def losses(maximum: float) -> list[float]:
        settings = ExcitementSettings(step_size=0.5, thresholds=(Threshold(0.0, maximum),), iterations=8)
        model, positive, log = sd15.excited(settings=settings)
        made = latents(model, positive, sd15.negative, steps=2, size=16)
        return [float(iteration.losses[0]) for iteration in log.find(made.numpy()).steps[0].iterations]

    endless = losses(1.0)
    target = (endless[0] + min(endless)) / 2
    reached = next(number for number, loss in enumerate(endless) if loss <= target)
    found = losses(1.0 - target)
    assert 0 < reached < 8 and len(found) == reached + 1 + 1
    assert found[: reached + 1] == endless[: reached + 1]
    assert len(losses(1.0 - endless[0] - 1e-4)) == 1


def test_each_image_of_a_batch_is_moved_as_if_it_were_alone(exact: Excited) -> None:
    settings = ExcitementSettings(step_size=0.5, thresholds=(Threshold(0.0, 0.6),), iterations=4)
    model, positive, _ = exact.excited(settings=settings)
    together = latents(model, positive, exact.negative, seeds=(5, 6))
    for row, seed in enumerate((5, 6)):
        alone = latents(model, positive, exact.negative, seeds=(seed,))
        assert relative_error(together[row : row + 1], alone) <= TOLERANCE


def test_an_image_that_met_its_threshold_rests_while_others_move(sd15: Excited) -> None:
    model, positive, log = sd15.excited(settings=ExcitementSettings(step_size=0.0))
    looked = log.find(latents(model, positive, sd15.negative, seeds=(5, 6), steps=2).numpy())
    best = float(looked.steps[0].iterations[0].maxima.min(0).max())
    settings = ExcitementSettings(step_size=0.01, thresholds=(Threshold(0.0, best - 1e-4),), iterations=3)
    model, positive, log = sd15.excited(settings=settings)
    step = log.find(latents(model, positive, sd15.negative, seeds=(5, 6), steps=2).numpy()).steps[0]
    resting = int(looked.steps[0].iterations[0].maxima.min(0).argmax())
    losses = np.stack([iteration.losses for iteration in step.iterations])
    assert len(losses) == 3 + 1
    # Moved once, as in every step, and no more.
    assert (
        losses[1, resting] == losses[2, resting] == losses[3, resting]
        and losses[1, 1 - resting] != losses[2, 1 - resting]
    )


def test_activation_checkpointing_changes_nothing(sd15: Excited) -> None:
    expected = latents(*sd15.excited(MIXED_SUBJECTS)[:2], sd15.negative, size=16)
    found = latents(*sd15.excited(MIXED_SUBJECTS, checkpointing=True)[:2], sd15.negative, size=16)
    assert relative_error(found, expected) <= TOLERANCE


def test_activation_checkpointing_keeps_less(sd15: Excited) -> None:
    def kept(change: Callable[[Any, Any], Any]) -> int:
        held: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        x = torch.zeros(1, 4, 16, 16)
        with gradients() as own, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            change(sd15.model.model, own).apply_model(
                x.requires_grad_(True), torch.tensor([1.0]), c_crossattn=sd15.prompt[0][0]
            )
        return sum(held.values())

    blocks = unet_of(sd15.model).checkpointed
    # Of a block its inputs alone are kept, and its weights as often as there are such.
    assert 0 < kept(lambda model, own: checkpointed(model, blocks, own)) < kept(lambda model, _: model) / 2


def by_route(route: str, model: Any, positive: Any, negative: Any) -> torch.Tensor:
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", 3)
    sampler, latent = comfy.samplers.sampler_object("euler"), {"samples": torch.zeros(1, 4, 8, 8)}
    if route == "KSampler":
        return latents(model, positive, negative)
    if route == "SamplerCustom":
        return SamplerCustom.execute(model, True, 5, 4.0, positive, negative, sampler, sigmas, latent)[0]["samples"]
    (guider,) = CFGGuider.execute(model, positive, negative, 4.0).result
    node = SamplerCustomAdvanced.execute(Noise_RandomNoise(5), guider, sampler, sigmas, latent)
    return node.result[0]["samples"]


def test_every_sampler_node_of_the_host_gives_the_same(sd15: Excited) -> None:
    model, positive, _ = sd15.excited()
    expected = by_route("KSampler", model, positive, sd15.negative)
    assert relative_error(expected, latents(sd15.model, sd15.prompt, sd15.negative)) > 0.001
    for route in ("SamplerCustom", "SamplerCustomAdvanced"):
        assert torch.equal(by_route(route, model, positive, sd15.negative), expected)


def test_guidance_of_one_and_guiders_without_a_negative(sd15: Excited) -> None:
    model, positive, log = sd15.excited()
    alone = latents(model, positive, sd15.negative, cfg=1.0)
    (guider,) = BasicGuider.execute(model, positive).result
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 3)
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    node = SamplerCustomAdvanced.execute(
        Noise_RandomNoise(5), guider, comfy.samplers.sampler_object("euler"), sigmas, latent
    )
    assert torch.equal(node.result[0]["samples"], alone)
    assert log.find(alone.numpy()).updates == 1


REFUSED = {"dpm_adaptive", "uni_pc", "uni_pc_bh2"}


@pytest.mark.parametrize("name", comfy.samplers.SAMPLER_NAMES)
def test_every_sampler_of_the_host_is_met_at_the_latent_it_carries(sd15: Excited, name: str) -> None:
    begun: list[float] = []
    calls: list[torch.Tensor] = []
    stepped: list[Any] = []

    def begin(model: Any, x: torch.Tensor, sigma: torch.Tensor, kwargs: Any) -> None:
        begun.append(float(sigma[0]))
        calls.append(x)

    guider = comfy.samplers.CFGGuider(sd15.model)
    guider.set_conds(sd15.prompt, sd15.negative)
    guider.set_cfg(2.0)
    sigmas = comfy.samplers.calculate_sigmas(sd15.model.get_model_object("model_sampling"), "normal", 4)
    noise = comfy.sample.prepare_noise(torch.zeros(1, 4, 8, 8), 5)

    def sample(sampler: Any) -> torch.Tensor:
        return guider.sample(
            noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=3,
            callback=lambda i, denoised, x, total: stepped.append(x),
        )  # fmt: skip

    sampler = comfy.samplers.sampler_object(name)
    if name in REFUSED:
        with pytest.raises(HRVError, match=f"{name.replace('uni_pc', 'unipc')} never calls the model at the latent"):
            sample(at_each_step(sampler, begin))
        return
    found = sample(at_each_step(sampler, begin))
    assert len(begun) == len(stepped) and begun == sorted(begun, reverse=True) and begun[0] == float(sigmas[0])
    if name not in ("dpm_fast",):
        assert begun == [float(sigma) for sigma in sigmas[:-1]]
    # Being watched and rehearsed changes no bit, random noise included.
    assert torch.equal(found, sample(sampler))


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "dpm_2", "lms", "ipndm"])
def test_what_moves_at_a_steps_begin_reaches_the_sampler(sd15: Excited, name: str) -> None:
    """A latent that moves by d while the model's answer stays the same stays moved."""
    given: list[torch.Tensor] = []

    def calls(shift: float) -> list[torch.Tensor]:
        given.clear()

        def answer(model_k: Any, x: torch.Tensor, sigma: torch.Tensor, kwargs: Any) -> None:
            x.add_(shift if not given else 0.0)
            given.append(x.clone())

        model = sd15.model.clone()
        model.set_model_unet_function_wrapper(lambda apply, call: torch.zeros_like(call["input"]))
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(sd15.prompt, sd15.negative)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 4)
        noise = comfy.sample.prepare_noise(torch.zeros(1, 4, 8, 8), 5)
        watched = at_each_step(comfy.samplers.sampler_object(name), answer)
        guider.sample(noise, torch.zeros_like(noise), watched, sigmas, disable_pbar=True)
        return list(given)

    plain, moved = calls(0.0), calls(1.0)
    for one, other in zip(plain, moved, strict=True):
        assert not torch.equal(one, other)


def test_samplers_of_another_kind_are_refused(sd15: Excited) -> None:
    class Own(comfy.samplers.Sampler):
        pass

    with pytest.raises(HRVError, match=r"which Own isn't\. Choose a sampler from the list"):
        at_each_step(Own(), lambda *_: None)


def test_a_sampler_that_decides_as_it_goes_is_found_out(sd15: Excited) -> None:
    def fickle(model: Any, x: torch.Tensor, sigmas: Any, extra_args: Any, callback: Any, disable: Any) -> torch.Tensor:
        for number, sigma in enumerate(sigmas[:-1]):
            denoised = model(x, sigma.expand(len(x)), **extra_args)
            if denoised.abs().max() > 0:
                model(x, sigma.expand(len(x)), **extra_args)
            callback({"x": x, "i": number, "denoised": denoised})
        return x

    model, positive, _ = sd15.excited()
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, sd15.negative)
    noise = torch.ones(1, 4, 8, 8)
    with pytest.raises(HRVError, match="fickle chooses its own steps"):
        guider.sample(noise, noise, comfy.samplers.KSAMPLER(fickle), torch.tensor([5.0, 1.0, 0.0]), disable_pbar=True)


# What the host does to weights, and what must not be left behind.


def test_a_model_that_was_loaded_under_inference_mode(sd15: Excited) -> None:
    with torch.inference_mode():
        setup = Excited.of(small_sd15(), small_clip_sd15(), PROMPT)
        assert all(weight.is_inference() for weight in setup.model.model.diffusion_model.parameters())
        model, positive, _ = setup.excited()
        first, second = (latents(model, positive, setup.negative) for _ in range(2))
        assert torch.equal(first, second)
    assert relative_error(first, latents(*sd15.excited()[:2], sd15.negative)) <= TOLERANCE


def test_nothing_is_left_on_the_model(sd15: Excited) -> None:
    model, positive, _ = sd15.excited(checkpointing=True)
    before = picture_of_model(sd15.model), picture_of_model(model), picture(positive), picture(sd15.prompt)
    weights = list(sd15.model.model.parameters())
    # Older hosts leave it on.
    requiring = [weight.requires_grad for weight in weights]
    with torch.inference_mode():
        made = latents(model, positive, sd15.negative)
    after = picture_of_model(sd15.model), picture_of_model(model), picture(positive), picture(sd15.prompt)
    assert after == before
    assert not made.requires_grad and not torch.is_inference_mode_enabled()
    for module in sd15.model.model.modules():
        assert "forward" not in vars(module)
    assert all(weight.grad is None for weight in weights)
    assert [weight.requires_grad for weight in weights] == requiring


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights(sd15: Excited, dtype: torch.dtype) -> None:
    half = Excited.of(small_sd15(dtype), sd15.clip, PROMPT)
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1)) * 14
    found, expected = (
        one_call(*setup.excited(PLAIN_SUBJECTS)[:2], setup.negative, x, 13.0)[0] - x for setup in (half, sd15)
    )
    # The softmax of 100 times the maps makes every rounding count: the direction is what must hold.
    assert F.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.8


def test_a_run_under_autocast_is_reported(sd15: Excited) -> None:
    """Other packs sample so: sums of maps come in a type that numpy does not have."""
    model, positive, log = sd15.excited(MIXED_SUBJECTS)
    with torch.autocast("cpu", torch.bfloat16):
        made = latents(model, positive, sd15.negative)
    report = log.find(made.float().numpy())
    assert report.steps and all(np.isfinite(one.losses).all() for step in report.steps for one in step.iterations)


def test_weights_that_the_host_casts_for_every_call(sd15: Excited) -> None:
    model, positive, _ = sd15.excited()
    expected = latents(model, positive, sd15.negative)
    modules = [module for module in sd15.model.model.modules() if hasattr(module, "comfy_cast_weights")]
    before = [module.comfy_cast_weights for module in modules]
    try:
        for module in modules:
            module.comfy_cast_weights = True
        assert torch.equal(latents(model, positive, sd15.negative), expected)
    finally:
        for module, cast in zip(modules, before, strict=True):
            module.comfy_cast_weights = cast


def test_quantised_weights_are_refused(sd15: Excited) -> None:
    setup = Excited.of(small_sd15(), sd15.clip, PROMPT)
    layer = next(iter(unet_of(setup.model).cross_attention.values())).to_q
    quantised = QuantizedTensor.from_float(layer.weight.data, "TensorCoreFP8Layout")
    layer.weight = torch.nn.Parameter(quantised, requires_grad=False)
    model, positive, _ = setup.excited()
    with pytest.raises(HRVError, match=r"quantised \(.*to_q\.weight: .*Load the checkpoint in half precision"):
        latents(model, positive, setup.negative)


def test_a_model_that_gives_no_numbers_is_named(sd15: Excited) -> None:
    setup = Excited.of(small_sd15(), sd15.clip, PROMPT)
    first = next(iter(unet_of(setup.model).cross_attention.values()))
    next(first.to_q.parameters()).data[0, 0] = math.nan
    model, positive, _ = setup.excited()
    with pytest.raises(HRVError, match=r"maps of a subject of image 1 .* aren't finite in step 1, iteration 1"):
        latents(model, positive, setup.negative)


def test_cancelling_stops_between_iterations(sd15: Excited) -> None:
    settings = ExcitementSettings(step_size=0.01, thresholds=(Threshold(0.0, 1.0),), iterations=50)
    model, positive, _ = sd15.excited(settings=settings)
    before = picture_of_model(model)
    counted: list[tuple[int, int]] = []

    # The host passes progress on ten times a second at most.
    def count(value: int, total: int, *_: Any, **__: Any) -> None:
        counted.append((value, total))
        if value:
            comfy.model_management.interrupt_current_processing()

    comfy.utils.set_progress_bar_global_hook(count)
    try:
        with pytest.raises(InterruptProcessingException):
            latents(model, positive, sd15.negative, steps=2)
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
        comfy.model_management.interrupt_current_processing(False)
    assert counted[0] == (0, 2 * 52)
    assert len(counted) == 2 and 0 < counted[1][0] < 50 and counted[1][1] == 2 * 52
    assert picture_of_model(model) == before


def test_a_threshold_that_cannot_be_met_ends_and_is_said(sd15: Excited, caplog: pytest.LogCaptureFixture) -> None:
    settings = ExcitementSettings(step_size=1e-6, thresholds=(Threshold(0.0, 1.0),), iterations=3)
    model, positive, log = sd15.excited(settings=settings)
    with caplog.at_level(logging.WARNING):
        made = latents(model, positive, sd15.negative)
    assert len(log.find(made.numpy()).steps[0].iterations) == 3 + 1
    assert "after 3 iterations 'car' reached" in caplog.text


def test_no_step_in_the_window_is_said(sd15: Excited, caplog: pytest.LogCaptureFixture) -> None:
    model, positive, log = sd15.excited(settings=ExcitementSettings(window=Window(0.2, 0.21)))
    with caplog.at_level(logging.WARNING):
        made = latents(model, positive, sd15.negative)
    assert "none of the 3 steps lies between the progress 0.2 and 0.21" in caplog.text
    assert torch.equal(made, latents(sd15.model, sd15.prompt, sd15.negative))
    assert log.find(made.numpy()).updates == 0


def test_subjects_that_lead_nowhere_are_said(sd15: Excited, caplog: pytest.LogCaptureFixture) -> None:
    model, positive, _ = sd15.excited()
    with caplog.at_level(logging.WARNING):
        found = latents(model, sd15.prompt, positive)
    assert "no positive conditioning of this run has subjects" in caplog.text
    assert torch.equal(found, latents(sd15.model, sd15.prompt, sd15.prompt))


def test_settings_that_contradict_each_other_are_refused(sd15: Excited) -> None:
    model, first, _ = sd15.excited()
    _, second, _ = sd15.excited(settings=ONE_UPDATE)
    with pytest.raises(HRVError, match="different settings are used in one run"):
        latents(model, [*first, *second], sd15.negative)


def test_subjects_made_for_another_model_are_refused(sd15: Excited, sdxl: Excited) -> None:
    model, _, _ = sd15.excited()
    _, positive, _ = sdxl.excited()
    with pytest.raises(HRVError, match=r"was made for 19 heads .* this model has 56 heads"):
        latents(model, positive, sd15.negative)


def test_a_mask_keeps_what_it_covers(sd15: Excited) -> None:
    model, positive, _ = sd15.excited()
    empty = torch.zeros(1, 4, 8, 8)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1.0

    def painted(model: Any, positive: Any) -> torch.Tensor:
        noise = comfy.sample.prepare_noise(empty, 5)
        return comfy.sample.sample(
            model, noise, 3, 4.0, "euler", "normal", positive, sd15.negative, empty, noise_mask=mask, disable_pbar=True,
            seed=5,
        )  # fmt: skip

    found, plain = painted(model, positive), painted(sd15.model, sd15.prompt)
    assert relative_error(found[..., 4:], plain[..., 4:]) > 0.001
    assert torch.allclose(found[..., :4], plain[..., :4], atol=1e-4)


NODE: dict[str, Any] = {
    "step_size": 0.5,
    "iterations": 2,
    "thresholds": "0: 0.05, 0.2: 0.5, 0.4: 0.8",
    "decay": 0.5,
    "start": 0.0,
    "end": 0.5,
    "resolution": 8,
    "smoothing": 0.5,
    "clamp": 0.0,
    "checkpointing": False,
}


def test_the_report_of_a_run_is_found_by_its_latent(sd15: Excited) -> None:
    subjects = "car: color\nskyscrapers"
    node = AttendAndExcite.execute(sd15.model, sd15.prompt, subjects, **NODE, hrv=sd15.hrv)
    model, positive, report = node.result
    first, second = (latents(model, positive, sd15.negative, seeds=seeds, size=16) for seeds in ((5, 6), (7, 8)))
    shown = []
    for made in (first, second):
        curves, maps, masks, text = AttendAndExciteReport.execute(report, {"samples": made}).result
        assert curves.shape[0] == maps.shape[0] == 1 and curves.shape[3] == maps.shape[3] == 3
        assert masks.shape == (4, 128, 128) and 0 <= masks.min() < masks.max() <= 1
        shown.append(json.loads(text))
    assert shown[0] != shown[1]
    # More than the small model and torch, and no more than a test process may have.
    assert all(10**8 < found["peak_bytes"] < 10**11 and found["seconds"] > 0 for found in shown)
    assert shown[0]["subjects"] == [{"words": "car", "concept": "Color"}, {"words": "skyscrapers", "concept": ""}]
    iteration = shown[0]["steps"][0]["iterations"][0]
    assert len(iteration["loss"]) == 2 and set(iteration["maxima"]) == {"car", "skyscrapers"}
    assert iteration["loss"][0] == pytest.approx(1 - min(row[0] for row in iteration["maxima"].values()))
    with pytest.raises(HRVError, match="No run with this Attend and Excite made this latent"):
        AttendAndExciteReport.execute(report, {"samples": first + 1})


@pytest.mark.parametrize("side", [(9, 13), (7, 24), (30, 8)])
def test_sizes_that_do_not_halve_evenly(sd15: Excited, side: tuple[int, int]) -> None:
    model, positive, log = sd15.excited(MIXED_SUBJECTS)
    empty = torch.zeros(1, 4, *side)
    noise = comfy.sample.prepare_noise(empty, 5)
    made = comfy.sample.sample(
        model, noise, 2, 4.0, "euler", "normal", positive, sd15.negative, empty, disable_pbar=True, seed=5
    )
    assert made.isfinite().all() and log.find(made.numpy()).updates >= 1
    maps = log.find(made.numpy()).maps
    assert maps[0].shape[1:] == (
        max(2, round(8 * math.sqrt(side[0] / side[1]))),
        round(8 * math.sqrt(side[1] / side[0])),
    )


def test_plain_fp8_weights(sd15: Excited) -> None:
    """The host keeps them as they are and casts them for every call."""
    setup = Excited.of(small_sd15(), sd15.clip, PROMPT)
    linears: list[Any] = [part for part in setup.model.model.modules() if isinstance(part, torch.nn.Linear)]
    for linear in linears:
        linear.weight = torch.nn.Parameter(linear.weight.data.to(torch.float8_e4m3fn), requires_grad=False)
        linear.comfy_cast_weights = True
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1)) * 14
    found, expected = (
        one_call(*one.excited(PLAIN_SUBJECTS)[:2], one.negative, x, 13.0)[0] - x for one in (setup, sd15)
    )
    # Weights of three binary digits: gradients that are alike.
    assert F.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.5


def test_ten_subjects(sd15: Excited) -> None:
    names = ("cat", "frog", "dog", "car", "tree", "house", "boat", "bird", "cup", "hat")
    setup = replace(sd15, prompt=encoded(sd15.clip, " ".join(names)))
    model, positive, log = setup.excited([(name, "Color" if name < "d" else "") for name in names])
    report = log.find(latents(model, positive, setup.negative).numpy())
    assert len(report.maps) == 10 and report.updates == 1
    assert all(iteration.maxima.shape == (10, 1) for step in report.steps for iteration in step.iterations)


def test_one_subject(sd15: Excited) -> None:
    model, positive, log = sd15.excited([("car", "Color")])
    made = latents(model, positive, sd15.negative)
    assert relative_error(made, latents(sd15.model, sd15.prompt, sd15.negative)) > 0.001
    assert log.find(made.numpy()).updates == 1


def test_the_page_sees_curves_as_they_fill(sd15: Excited, tmp_path: Path) -> None:
    model, positive, log = sd15.excited(MIXED_SUBJECTS, node="9")
    with told_page(tmp_path / "statuses.json") as sent:
        made = latents(model, positive, sd15.negative, seeds=(5, 6), steps=2)
    told = statuses(sent)
    assert {(one["node"], one["total"], one["kept"]) for one in told} == {("9", 2, False)}
    assert (told[-1]["state"], told[-1]["done"]) == ("done", 2)
    report = log.find(made.numpy())
    iterations = [iteration for step in report.steps for iteration in step.iterations]
    curves = {curve["name"]: curve for curve in told[-1]["curves"]["curves"]}
    assert curves.keys() == {"loss", "maximum of car (Color)", "maximum of skyscrapers"}
    assert curves["loss"]["across"] == list(range(1, len(iterations) + 1))
    assert curves["loss"]["up"] == pytest.approx([float(one.losses.max()) for one in iterations], rel=1e-4)
    worst = [float(one.maxima[1].min()) for one in iterations]
    assert curves["maximum of skyscrapers"]["up"] == pytest.approx(worst, rel=1e-4)
    lengths = [len(one["curves"]["curves"][0]["up"]) for one in told]
    assert lengths[0] == 0 and lengths == sorted(lengths)


def test_without_a_node_no_page_is_told(sd15: Excited, tmp_path: Path) -> None:
    model, positive, _ = sd15.excited()
    with told_page(tmp_path / "statuses.json") as sent:
        latents(model, positive, sd15.negative, seeds=(5,), steps=1)
    assert statuses(sent) == []
