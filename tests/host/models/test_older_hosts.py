"""Both forms of what hosts of different age do otherwise, whatever host the tests run in."""

from __future__ import annotations

from typing import Any

import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy.patcher_extension import CallbacksMP
from hrv_pack.host.models.older_hosts import is_out_of_memory, prepare_state
from hrv_pack.host.runs.steps import at_each_step
from hrv_pack.tests.support.small_host import encoded, latents, small_clip_sd15, small_sd15

SIGMA = torch.ones(2)
OPTIONS: dict[str, Any] = {"transformer_options": {}}


class Old:
    def prepare_state(self, timestep: torch.Tensor) -> None:
        self.given: tuple[Any, ...] = (timestep,)


class New:
    def prepare_state(self, timestep: torch.Tensor, model_options: dict[str, Any]) -> None:
        self.given: tuple[Any, ...] = (timestep, model_options)


@pytest.mark.parametrize(("patcher", "given"), [(Old(), (SIGMA,)), (New(), (SIGMA, OPTIONS))])
def test_a_patcher_is_told_what_it_asks_for(patcher: Any, given: tuple[Any, ...]) -> None:
    prepare_state(patcher, SIGMA, OPTIONS)
    assert len(patcher.given) == len(given)
    assert all(one is other for one, other in zip(patcher.given, given, strict=True))


def test_the_patcher_of_this_host_calls_whom_it_has_to() -> None:
    model, called = small_sd15(), []
    model.add_callback(CallbacksMP.ON_PREPARE_STATE, lambda *given: called.append(given))
    prepare_state(model, SIGMA, OPTIONS)
    ((patcher, sigma, *_),) = called
    assert patcher is model and sigma is SIGMA


@pytest.mark.parametrize("name", ["euler", "heun"])
def test_a_sampler_may_be_given_no_callback(name: str) -> None:
    """Older hosts give none where nobody listens."""
    begun = 0

    def begin(*_: Any) -> None:
        nonlocal begun
        begun += 1

    def silent(model: Any, x: Any, sigmas: Any, extra_args: Any, callback: Any, disable: Any, **options: Any) -> Any:
        return stepwise.sampler_function(model, x, sigmas, extra_args=extra_args, callback=None, disable=disable)

    model, clip = small_sd15(), small_clip_sd15()
    prompts = encoded(clip, "a red car"), encoded(clip, "ugly")
    stepwise = at_each_step(comfy.samplers.sampler_object(name), begin)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(*prompts)
    guider.set_cfg(4.0)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 3)
    empty = torch.zeros(1, 4, 8, 8)
    noise = comfy.sample.prepare_noise(empty, 5)
    found = guider.sample(noise, empty, comfy.samplers.KSAMPLER(silent), sigmas, disable_pbar=True, seed=5)
    assert begun == 3
    assert torch.equal(found, latents(model, *prompts, sampler=name))


@pytest.mark.parametrize("knows", [True, False])
def test_too_little_memory_is_known_from_other_errors(knows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not knows:
        monkeypatch.delattr("comfy.model_management.is_oom", raising=False)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(ValueError("CUDA out of luck"))
