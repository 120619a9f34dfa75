"""Attend and Excite beside what else a model and its prompts may carry: the loss that it lowers is that of the whole.

For each companion the gradient is held against differences of the loss itself, which a step size of 0 reports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.samplers
import pytest
import torch
from hrv_pack.host.attend_and_excite.subjects import excite
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.hrv.attend_and_excite.settings import ExcitementSettings
from hrv_pack.hrv.errors import HRVError
from hrv_pack.nodes.controls import ConceptStrengthen
from hrv_pack.tests.host.controls.test_composition import SAME_RESULT, WITH_OTHERS, compiled, in_tiles
from hrv_pack.tests.support.small_host import (
    encoded,
    latents,
    random_hrv,
    relative_error,
    shallow_sd15,
    small_clip_sd15,
    small_sd15,
)

from nodes import ConditioningSetArea, ConditioningSetMask, ConditioningSetTimestepRange

Graph = tuple[Any, Any, Any]

SIGMA = 13.0
SUBJECTS = (("car", "Shape"), ("frog", ""))
# Networks of these compute in single precision.
ROUGH = {"ControlNet", "FreeU", "FreeU V2"}


@pytest.fixture(scope="module")
def graph() -> Graph:
    """A model that computes in float64, a prompt and a negative one."""
    clip = small_clip_sd15()
    return small_sd15(torch.float64), encoded(clip, "a red car and a frog"), encoded(clip, "ugly")


@pytest.fixture(scope="module")
def shallow() -> Graph:
    """The same of few layers, for compilers."""
    clip = small_clip_sd15()
    return shallow_sd15(torch.float64), encoded(clip, "a red car and a frog"), encoded(clip, "ugly")


def one_look(
    graph: Graph, x: torch.Tensor, step_size: float, beside: Sequence[Any] = ()
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss [B] at latents x [B, C, h, w], and where they are moved to; ``beside`` are prompts without subjects."""
    # Token merging draws what it merges from the process's own generator.
    torch.manual_seed(0)
    model, positive, negative = graph
    settings = ExcitementSettings(step_size=step_size, thresholds=(), decay=1.0)
    held: list[torch.Tensor] = []

    def call(model_k: Any, noise: Any, sigmas: Any, extra_args: Any, callback: Any, disable: Any) -> torch.Tensor:
        held.append(x.clone() if noise.shape == x.shape else noise)
        model_k(held[-1], sigmas[:1].expand(len(held[-1])), **extra_args)
        callback({"x": held[-1], "i": 0, "denoised": held[-1]})
        return held[-1]

    model, positive, log = excite(model, positive, SUBJECTS, random_hrv(head_layout(model)), settings)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds([*positive, *beside], negative)
    guider.set_cfg(3.0)
    nothing = torch.zeros_like(x)
    sampler, sigmas = comfy.samplers.KSAMPLER(call), torch.tensor([SIGMA, 0.0])
    made = guider.sample(nothing, nothing, sampler, sigmas, disable_pbar=True)
    return torch.from_numpy(log.find(made.numpy()).steps[0].iterations[0].losses), held[-1]


def latent() -> torch.Tensor:
    return torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3)) * 13


def assert_downhill(graph: Graph, tolerance: float, beside: Sequence[Any] = ()) -> float:
    """The move of one update is the gradient of the loss, by differences along it; returns the loss."""
    x = latent()
    loss, moved = one_look(graph, x, 1.0, beside)
    # In units of the network, whose input is x / sqrt(sigma^2 + 1).
    gradient = (x - moved).double() / (SIGMA**2 + 1)
    length = float(gradient.square().sum().sqrt())
    step = 0.01 * gradient / length * SIGMA
    (above, _), (below, _) = (one_look(graph, (x + sign * step).float(), 0.0, beside) for sign in (1, -1))
    expected = float(above - below) / (2 * 0.01 * SIGMA)
    assert length > 0 and expected == pytest.approx(length, rel=tolerance)
    return float(loss)


# Tiles are refused.
@pytest.mark.parametrize("name", [name for name in WITH_OTHERS if name != "tiles"])
def test_the_gradient_is_that_of_the_whole(graph: Graph, name: str) -> None:
    assert_downhill(WITH_OTHERS[name](graph), 0.1 if name in ROUGH else 0.02)


@pytest.mark.parametrize(
    "name", ["LoRA", "LoRA hook with keyframes", "ControlNet", "FreeU", "cross-attention multiply", "token merging"]
)
def test_companions_of_the_positive_pass_count(graph: Graph, name: str) -> None:
    plain, _ = one_look(graph, latent(), 0.0)
    assert abs(float(one_look(WITH_OTHERS[name](graph), latent(), 0.0)[0] - plain)) > 1e-5


def test_controls_count(graph: Graph) -> None:
    model, positive, negative = graph
    hrv = random_hrv(head_layout(model))
    controlled = (
        *ConceptStrengthen.execute(
            model=model,
            conditioning=positive,
            hrv=hrv,
            words="red",
            concept="Color",
            strength=3.0,
            start=0.0,
            end=1.0,
            clamp=0.0,
        ).result,
        negative,
    )
    plain, _ = one_look(graph, latent(), 0.0)
    assert abs(assert_downhill(controlled, 0.02) - float(plain)) > 1e-5


@pytest.mark.parametrize("name", SAME_RESULT)
def test_attention_backends_and_compilers_change_nothing(shallow: Graph, name: str) -> None:
    _, expected = one_look(shallow, latent(), 1.0)
    _, moved = one_look(SAME_RESULT[name](shallow), latent(), 1.0)
    assert relative_error(moved - latent(), expected - latent()) <= 1e-4


def test_a_prompt_for_an_area_moves_the_area(graph: Graph) -> None:
    model, positive, negative = graph
    (left,) = ConditioningSetArea().append(positive, 64, 128, 0, 0, 1.0)
    area, snow = (model, left, negative), encoded(small_clip_sd15(), "snow")
    assert_downhill(area, 0.02, snow)
    _, moved = one_look(area, latent(), 1.0, snow)
    changed = (moved != latent()).any(1)[0]
    assert changed[:, :8].any() and not changed[:, 8:].any()


def test_a_prompt_behind_a_mask(graph: Graph) -> None:
    model, positive, negative = graph
    mask = torch.zeros(1, 16, 16)
    mask[..., :8] = 1
    (masked,) = ConditioningSetMask().append(positive, mask, "default", 1.0)
    assert_downhill((model, masked, negative), 0.02, encoded(small_clip_sd15(), "snow"))


def test_a_prompt_that_does_not_act_yet_moves_nothing(graph: Graph) -> None:
    model, positive, negative = graph
    (late,) = ConditioningSetTimestepRange().set_range(positive, 0.9, 1.0)
    model, late, log = excite(model, late, SUBJECTS, random_hrv(head_layout(model)), ExcitementSettings())
    both = [*late, *encoded(small_clip_sd15(), "snow")]
    made = latents(model, both, negative)
    assert log.find(made.numpy()).updates == 0
    (plain,) = ConditioningSetTimestepRange().set_range(positive, 0.9, 1.0)
    assert torch.equal(made, latents(graph[0], [*plain, *both[1:]], negative))


def test_a_model_called_in_tiles_is_refused(graph: Graph) -> None:
    with pytest.raises(HRVError, match="calls the model several times for one latent"):
        one_look(in_tiles(graph), latent(), 1.0)


def test_a_node_that_computes_without_gradients_is_named(graph: Graph) -> None:
    def without(apply_model: Callable[..., torch.Tensor], call: Any) -> torch.Tensor:
        with torch.no_grad():
            return apply_model(call["input"], call["timestep"], **call["c"])

    model = graph[0].clone()
    model.set_model_unet_function_wrapper(without)
    with pytest.raises(HRVError, match="No gradient reaches the latent"):
        one_look((model, *graph[1:]), latent(), 1.0)


def test_a_compiled_model_stays_compiled_for_sampling(shallow: Graph) -> None:
    model, *prompts = compiled(shallow)
    one_look((model, *prompts), latent(), 1.0)
    assert "torch.compile" in model.wrappers["apply_model"]
