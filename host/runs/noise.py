"""The same noise in every step for all rows of a group, from stochastic samplers too.

The host's samplers draw the noise of their steps for the whole batch, unless they are given a ``noise_sampler``
(``comfy/k_diffusion/sampling.py``).
"""

from __future__ import annotations

import functools
import inspect
import re
from typing import Any

import comfy.k_diffusion.sampling as sampling
import comfy.samplers
import torch

from ...hrv.errors import HRVError

# The samplers whose noise of one step has to agree with that of the steps inside it.
_BROWNIAN = re.compile(r"sample_dpmpp_(2m_|3m_)?sde(_heun)?(?P<gpu>_gpu)?")


def with_shared_noise(
    sampler: Any, sigmas: torch.Tensor, noise: torch.Tensor, group: int, device: torch.device, seed: int | None
) -> Any:
    """A sampler that adds the same noise to each of ``group`` consecutive rows; the given one if it adds none.

    A group gets what its first row gets when the first rows are sampled without the others. ``noise`` is that of the
    whole batch at the start. Raises HRVError for a sampler that adds noise and cannot be told which.
    """
    function, settings = getattr(sampler, "sampler_function", None), getattr(sampler, "extra_options", {})
    takes = inspect.signature(function).parameters if function is not None else {}
    if settings.get("s_churn", 0) > 0:
        raise HRVError(
            "This sampler adds noise of its own to every row (s_churn), so an edit would not follow its source. Set "
            "s_churn to 0."
        )
    if "noise_sampler" not in takes or settings.get("noise_sampler") is not None:
        if settings.get("eta", takes["eta"].default if "eta" in takes else 0) or "noise_sampler" in settings:
            raise HRVError(
                "This sampler adds noise in every step and cannot add the same noise to the source and its edits. "
                "Choose another one, such as euler, dpmpp_2m or euler_ancestral."
            )
        return _with_shared_inpainting(sampler, group)
    first = torch.empty_like(noise[::group], dtype=torch.float32, device=device)
    brownian = _BROWNIAN.fullmatch(getattr(function, "__name__", ""))
    if brownian:
        least, most = sigmas[sigmas > 0].min(), sigmas.max()
        draw = sampling.BrownianTreeNoiseSampler(first, least, most, seed=seed, cpu=not brownian["gpu"])
    else:
        draw = sampling.default_noise_sampler(first, seed=seed)

    def shared(sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        return draw(sigma, sigma_next).repeat_interleave(group, dim=0)

    told = comfy.samplers.KSAMPLER(function, {**settings, "noise_sampler": shared}, sampler.inpaint_options)
    return _with_shared_inpainting(told, group)


def _with_shared_inpainting(sampler: Any, group: int) -> Any:
    """A sampler whose own noise for what a mask keeps, where it has such (ddim), is the same in all rows of a group.

    The host draws it for the whole batch (``comfy/samplers.py``, KSAMPLER.sample), first rows first: those of the
    batch are what the sources get when they are sampled without edits.
    """
    if not getattr(sampler, "inpaint_options", {}).get("random"):
        return sampler
    function = sampler.sampler_function

    @functools.wraps(function)
    def with_one_noise(model: Any, *args: Any, **kwargs: Any) -> Any:
        model.noise = model.noise[: len(model.noise) // group].repeat_interleave(group, dim=0)
        return function(model, *args, **kwargs)

    return comfy.samplers.KSAMPLER(with_one_noise, sampler.extra_options, sampler.inpaint_options)
