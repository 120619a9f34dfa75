"""Making images with any sampler of the host, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import comfy.model_management
import comfy.sample
import comfy.samplers
import torch

from ..models.latents import empty_latent
from ..prompts.carried import TEXT_KEYS, Conditioning


class SamplingSettings(Protocol):
    """How images are made; ``width`` and ``height`` are pixels."""

    @property
    def steps(self) -> int: ...
    @property
    def cfg(self) -> float: ...
    @property
    def sampler_name(self) -> str: ...
    @property
    def scheduler(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


def stacked(rows: Sequence[list[Any]]) -> Conditioning:
    """One conditioning of several entries [1, tokens, C] of one shape, a row for each; pooled outputs go along."""
    extras = dict(rows[0][1])
    if extras.get("pooled_output") is not None:
        extras["pooled_output"] = torch.cat([row["pooled_output"] for _, row in rows])
    return [[torch.cat([tensor for tensor, _ in rows]), extras]]


def have_one_text(rows: Sequence[list[Any]]) -> bool:
    """Whether what entries carry of their text beside their tensors is the same, as it has to be in one batch."""
    first, *others = (extras for _, extras in rows)
    return all(
        (name in one) == (name in first) and (name not in one or torch.equal(one[name], first[name]))
        for one in others
        for name in TEXT_KEYS
    )


def sample_latents(
    model: Any,
    seeds: Sequence[int],
    positive: Conditioning,
    negative: Conditioning,
    settings: SamplingSettings,
    step_done: Callable[[], None],
    until: float = 0.0,
) -> torch.Tensor:
    """Latents [B, C, h, w] (of models that make videos [B, C, 1, h, w]) of B seeds, made together from empty ones.

    The starting noise of each is what its seed gives alone. Samplers that draw noise on the way draw it for all of
    them together, by the first seed. ``step_done`` is called after every step; a cancel takes effect there. With
    ``until`` sampling ends at this sigma, and the latents still hold that noise.
    """
    shape = empty_latent(model, len(seeds), settings.width, settings.height)
    latent = torch.zeros(shape, device=comfy.model_management.intermediate_device())
    noise = torch.cat([comfy.sample.prepare_noise(latent[:1], seed) for seed in seeds])
    return comfy.sample.sample(
        model,
        noise,
        settings.steps,
        settings.cfg,
        settings.sampler_name,
        settings.scheduler,
        positive,
        negative,
        latent,
        callback=lambda *_: step_done(),
        disable_pbar=True,
        seed=seeds[0],
        sigmas=sigmas_until(model, settings, until) if until else None,
    )


def sigmas_until(model: Any, settings: SamplingSettings, until: float) -> torch.Tensor:
    """The sigmas of a run that ends at one of its own or between two of them: those above it, then itself."""
    sampler = comfy.samplers.KSampler(
        model, settings.steps, model.load_device, settings.sampler_name, settings.scheduler, model_options={}
    )
    above = sampler.sigmas[sampler.sigmas > until]
    return torch.cat([above, torch.full_like(sampler.sigmas[:1], until)])
