"""Getting at the latent that a sampler carries from step to step, at the start of each step.

A sampler of the host is a function that calls the model, some several times a step and partly at latents of its own
making (``comfy/k_diffusion/sampling.py``). Which calls are made at the carried latent shows only afterwards, when the
sampler's callback is given that very tensor; so the sampler is rehearsed with a model that computes nothing, and the
run itself is held against what that showed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import comfy.samplers
import torch

from ...hrv.errors import HRVError

StepBegins = Callable[[Any, torch.Tensor, torch.Tensor, dict[str, Any]], None]
"""(the sampler's model, x [B, C, h, w], sigma [B], the call's other arguments): may change x in place."""


def at_each_step(sampler: Any, begin: StepBegins) -> Any:
    """A sampler that calls ``begin`` before the model's first call of each step, with the latent it carries.

    Raises HRVError for a sampler that is no function of the host's kind; when it runs, for one that never calls the
    model at the latent it carries, or does so otherwise than in its rehearsal.
    """
    if not isinstance(sampler, comfy.samplers.KSAMPLER):
        raise HRVError(
            f"Attend and Excite works with ComfyUI's own kind of sampler, which {type(sampler).__name__} isn't. "
            "Choose a sampler from the list, such as euler."
        )
    function = sampler.sampler_function
    name = getattr(function, "__name__", "this sampler").removeprefix("sample_").removesuffix("_function")

    def sample(
        model: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: Any, callback: Any, disable: Any, **options: Any
    ) -> torch.Tensor:
        if len(sigmas) < 2:
            return function(model, x, sigmas, extra_args=extra_args, callback=callback, disable=disable, **options)
        watched = _Watched(model, begin, _rehearse(function, name, model, x, sigmas, extra_args, options), name)

        def step_done(step: dict[str, Any]) -> None:
            watched.step_done()
            # Older hosts give none where nobody listens.
            if callback is not None:
                callback(step)

        return function(watched, x, sigmas, extra_args=extra_args, callback=step_done, disable=disable, **options)

    return comfy.samplers.KSAMPLER(sample, sampler.extra_options, sampler.inpaint_options)


class _Rehearsal(NamedTuple):
    """What a sampler does: the numbers of the calls that begin a step, and how many were made when each step ended."""

    first_calls: frozenset[int]
    calls: tuple[int, ...]


class _Watched:
    """The sampler's model, with something done before those calls that were found to begin a step."""

    def __init__(self, model: Any, begin: StepBegins, rehearsal: _Rehearsal, name: str):
        self._model, self._begin, self._rehearsal, self._name = model, begin, rehearsal, name
        self._calls = self._steps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        if self._calls in self._rehearsal.first_calls:
            self._begin(self._model, x, sigma, kwargs)
        self._calls += 1
        return self._model(x, sigma, **kwargs)

    def step_done(self) -> None:
        if self._rehearsal.calls[self._steps : self._steps + 1] != (self._calls,):
            raise HRVError(
                f"The sampler {self._name} chooses its own steps, so it is unknown which calls of the model are at "
                "the latent it carries. Choose one with fixed steps for Attend and Excite, such as euler."
            )
        self._steps += 1


def _rehearse(
    function: Any, name: str, model: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: Any, options: Any
) -> _Rehearsal:
    """Run the sampler with a model that computes nothing, and see which of its calls were for which step."""
    stand_in = copy.copy(model)
    stand_in.inner_model = _Nothing(model.inner_model)
    latents = stand_in.inner_model.latents
    # Of each step the call made at the very tensor that the callback was given, and the number of calls so far.
    found: list[tuple[int | None, int]] = []

    def step_done(step: dict[str, Any]) -> None:
        same = [number for number, latent in enumerate(latents) if latent is step["x"]]
        found.append((same[-1] if same else None, len(latents)))

    own_args = {**extra_args, "model_options": {"transformer_options": {"sample_sigmas": sigmas}}, "denoise_mask": None}
    devices = [x.device] if x.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices):
            function(
                stand_in, x[:1, :1, :1, :1].clone(), sigmas, extra_args=own_args, callback=step_done, disable=True,
                **options,
            )  # fmt: skip
    except Exception as error:
        raise HRVError(
            f"The sampler {name} could not be rehearsed ({type(error).__name__}: {error}), so it is unknown when it "
            "calls the model at the latent it carries. Choose another for Attend and Excite, such as euler."
        ) from error
    calls = tuple(made for _, made in found)
    first_calls = {number for number, _ in found if number is not None}
    # Some go on giving the callback the latent that they began with, but call the model only once a step.
    if 0 in first_calls and calls == tuple(range(1, len(calls) + 1)):
        first_calls.update(range(len(calls)))
    if not first_calls:
        raise HRVError(
            f"The sampler {name} never calls the model at the latent it carries, so Attend and Excite has nothing to "
            "move. Choose another, such as euler or dpmpp_2m."
        )
    return _Rehearsal(frozenset(first_calls), calls)


class _Nothing:
    """A guider that answers at once and remembers where it was asked."""

    def __init__(self, guider: Any):
        self._guider = guider
        self.latents: list[torch.Tensor] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guider, name)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, model_options: Any = None, seed: Any = None) -> Any:
        # Kept alive, so that no later tensor can be mistaken for it.
        self.latents.append(x)
        nothing = torch.zeros_like(x)
        # Samplers of the cfg_pp kind want to be told what the negative prompt alone would give.
        return comfy.samplers.cfg_function(
            self._guider.inner_model, nothing, nothing, 1.0, x, sigma, model_options=model_options or {}
        )
