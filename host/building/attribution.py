"""Integrated attribution: how much of what a change of words does to the prediction goes through each head.

Two prompts A and B with equally many tokens, and a noised picture x_t of A. With d = v(x_t, B) - v(x_t, A) of the
conditional passes and every head's output gated between its readings of A and of B
(:mod:`~...hrv_kernels.gated_attention`), all at the same alpha,

    c_h = mean over alpha of  d/dg_h <v(x_t, g = alpha), d>  / |d|^2,   alpha = 1/2n, 3/2n, ...  (midpoint rule)

which is the integral along the straight way from A's text to B's (integrated gradients, arXiv 1703.01365), so the c_h
of all heads add up to nearly 1. One backward pass gives every head.

Predictions are compared as the host gives them, as denoised latents: of one noise level they differ from what the
network predicts by one factor, which c_h does not see (``comfy/model_sampling.py``, calculate_denoised).

The gates exchange what cross-attention reads and nothing else: both passes have A's pooled text, hooks and whatever
else its conditioning carries. So B's prediction is exactly that of all gates at 1, and what a pooled text does (SDXL)
is no part of d.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import comfy.model_management
import comfy.samplers
import numpy as np
import torch

from ...hrv.errors import HRVError
from ..models.architectures import architecture_of
from ..models.ours import our_key
from ..prompts.carried import Conditioning
from ..runs.attention import LayerWrapping, at_every_call
from ..runs.gradients import checkpointed, gradients, options_for_gradients, require_differentiable, scaled_gradient
from .patching import Patch, TextReader, gated, patched

_WRAPPER_KEY = our_key("attribution")
_NEEDED_BY = "measuring what heads do"


class Pairs(NamedTuple):
    """P pairs of prompts at pictures of their first ones.

    ``a`` and ``b`` are conditionings of one entry each with a row for every pair (or one for all), equal in tokens;
    ``latents`` [P, C, h, w] are pictures of A as samplers give them, ``noise`` is of the same shape and of unit
    variance, and ``names`` are what errors call the pairs.
    """

    names: Sequence[str]
    a: Conditioning
    b: Conditioning
    latents: torch.Tensor
    noise: torch.Tensor


class PairEffects(NamedTuple):
    """Effects along d, not yet divided by |d|^2, so that pairs can be added up before: float64.

    ``heads`` [P, H], c_h times |d|^2 (without columns where no alpha was asked for); ``patches`` [P, N], of true
    patching, <v(x_t, patch) - v(x_t, A), d>; ``squares`` [P], |d|^2.
    """

    heads: np.ndarray
    patches: np.ndarray
    squares: np.ndarray


class Attribution:
    """Measures with one MODEL, which stays as it is.

    ``alphas`` is the number n of alphas for each effect of heads. With ``checkpointing`` layers run twice and little
    is kept for the backward pass. Raises HRVError for an unsupported architecture and for weights that cannot be
    differentiated.
    """

    def __init__(self, model: Any, alphas: int = 3, checkpointing: bool = True):
        self.architecture = architecture_of(model)
        self.layout = self.architecture.layout
        require_differentiable(model, _NEEDED_BY)
        self.model, self.alphas, self.checkpointing = model, alphas, checkpointing

    def effects(self, pairs: Pairs, sigma: float, patches: Sequence[Patch] = ()) -> PairEffects:
        """Effects of all heads, and of patches, at one noise level.

        Raises HRVError for prompts that differ in length or do the same, for numbers that are not finite, and for
        models that another node calls in a way that hides their heads; and what the host raises if the user cancels.
        """
        return self._measured(pairs, sigma, patches, [(2 * n + 1) / (2 * self.alphas) for n in range(self.alphas)])

    def patched(self, pairs: Pairs, sigma: float, patches: Sequence[Patch]) -> PairEffects:
        """Effects of patches alone, a forward pass each; errors as :meth:`effects`."""
        return self._measured(pairs, sigma, patches, [])

    def _measured(self, pairs: Pairs, sigma: float, patches: Sequence[Patch], alphas: Sequence[float]) -> PairEffects:
        _require_alike(pairs)
        found: list[PairEffects] = []

        def measure(guider: Any, x: torch.Tensor, sigmas: torch.Tensor, options: dict[str, Any]) -> None:
            level = _Level(self, guider, pairs.names, x, sigmas, options)
            heads = [level.head_effects(alpha) for alpha in alphas]
            found.append(
                PairEffects(
                    np.mean(heads, axis=0) if heads else np.zeros((len(x), 0)),
                    np.stack([level.patch_effects(patch) for patch in patches], axis=1)
                    if patches
                    else np.zeros((len(x), 0)),
                    level.squares,
                )
            )

        guider = comfy.samplers.CFGGuider(self.model)
        # The host prepares whatever lists of conditionings a guider has; the second is as positive as the first.
        guider.inner_set_conds({"positive": pairs.a, "other": [[pairs.b[0][0], pairs.a[0][1]]]})
        sigmas = torch.tensor([sigma, 0.0])
        guider.sample(pairs.noise, pairs.latents, _AtOneLevel(measure), sigmas, disable_pbar=True, seed=0)
        return found[0]


def _require_alike(pairs: Pairs) -> None:
    if len(pairs.a) != 1 or len(pairs.b) != 1:
        raise HRVError(
            "This text encoder encodes a prompt again as the strength of its hooks changes, and heads are measured "
            "with one encoding. Turn 'schedule_clip' off at Set CLIP Hooks, or take the keyframes away."
        )
    a, b = (conditioning[0][0].shape for conditioning in (pairs.a, pairs.b))
    if a != b:
        raise HRVError(
            f"The prompts of a pair must have equally many tokens, but these have {a[1]} and {b[1]} in {a[0]} and "
            f"{b[0]} rows: {', '.join(pairs.names)[:200]}."
        )


Measure = Callable[[Any, torch.Tensor, torch.Tensor, dict[str, Any]], None]
"""(guider in its run, x_t [P, C, h, w], sigma [P], the run's model options)."""


class _AtOneLevel(comfy.samplers.Sampler):
    """In a sampler's place: measures at the noise level where sampling would start, and makes no step."""

    def __init__(self, measure: Measure):
        self._measure = measure

    def sample(
        self,
        guider: Any,
        sigmas: torch.Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: torch.Tensor,
        latent_image: torch.Tensor,
        denoise_mask: Any = None,
        disable_pbar: bool = False,
    ) -> torch.Tensor:
        with torch.no_grad():
            x: torch.Tensor = guider.inner_model.model_sampling.noise_scaling(sigmas[0], noise, latent_image)
            self._measure(guider, x, sigmas[:1].expand(len(x)), extra_args["model_options"])
        return x


class _Level:
    """The pairs of one batch at one noise level, inside a guider's run."""

    def __init__(
        self,
        attribution: Attribution,
        guider: Any,
        names: Sequence[str],
        x: torch.Tensor,
        sigma: torch.Tensor,
        options: dict[str, Any],
    ):
        self.architecture, self.layout = attribution.architecture, attribution.layout
        self.checkpointing = attribution.checkpointing
        self.names, self.x, self.sigma, self.options = names, x, sigma, options
        self.model, self.conds = guider.inner_model, guider.conds["positive"]
        # A last, so that weights that its hooks exchange are in place before anything is kept for a backward pass.
        of_b, self.readings = self._read(guider.conds["other"], "the second prompt")
        self.of_a, _ = self._read(self.conds, "the first prompt")
        self.difference = of_b - self.of_a
        self.squares = self._along(self.difference)
        if not self.squares.all():
            name = names[int(np.flatnonzero(self.squares == 0)[0])]
            raise HRVError(
                f"Both prompts of {name} give the same prediction, so there is no effect to divide among heads. Write "
                "prompts that differ in a word, or choose an earlier noise level."
            )

    def head_effects(self, alpha: float) -> np.ndarray:
        """The derivative of <v, d> by every head's gate with all gates at ``alpha``, float64 [P, H]."""
        # Brought to a common size for half precision, whose range is small.
        largest = self.difference.abs().amax((1, 2, 3), keepdim=True)
        direction = self.difference / largest
        dtype = self.model.get_dtype_inference()
        with gradients() as kept:
            gates = torch.full(
                (len(self.x), self.layout.head_count),
                alpha,
                dtype=torch.promote_types(dtype, torch.float32),
                device=self.x.device,
                requires_grad=True,
            )
            model = self.model
            if self.checkpointing:
                model = checkpointed(model, self.architecture.checkpointed, kept)
            prediction = self._predict(model, self.conds, gated(self.architecture, gates, self.readings))
            if not prediction.requires_grad:
                raise HRVError(
                    "No gradient reaches the heads: another node on this model computes without gradients. Take it off "
                    "the model whose heads are measured."
                )
            by_gates = scaled_gradient((prediction * direction).sum(), gates, half=dtype == torch.float16)
        broken = (~by_gates.isfinite()).nonzero()
        if len(broken):
            pair, head = broken[0].tolist()
            raise HRVError(
                f"The gradient of {self.names[pair]} has numbers that are not finite, at the head "
                f"'{self.layout.head_names()[head]}': the model's precision is too low for gradients."
            )
        return _on_cpu(by_gates) * _on_cpu(largest.flatten(1))

    def patch_effects(self, patch: Patch) -> np.ndarray:
        """<v(x_t, patch) - v(x_t, A), d>, float64 [P]."""
        prediction = self._predict(self.model, self.conds, patched(self.architecture, patch, self.readings))
        return self._along(prediction - self.of_a)

    def _along(self, change: torch.Tensor) -> np.ndarray:
        return _on_cpu((change.double() * self.difference.double()).flatten(1).sum(1))

    def _read(self, conds: list[dict[str, Any]], whose: str) -> tuple[torch.Tensor, Any]:
        """The prediction of a plain pass, and what its layers read."""
        reader = TextReader(self.architecture)
        prediction = self._predict(self.model, conds, reader.wrapping)
        reader.require_complete(len(self.x))
        broken = (~prediction.isfinite().flatten(1).all(1)).nonzero()
        if len(broken):
            raise HRVError(
                f"The model gave numbers that are not finite with {whose} of {self.names[int(broken[0])]}, first at "
                f"{reader.first_broken()}. The checkpoint may be broken, or its precision too low."
            )
        return prediction, reader.readings

    def _predict(self, model: Any, conds: list[dict[str, Any]], wrapping: LayerWrapping) -> torch.Tensor:
        """The denoised latents [P, C, h, w] of conditionings with replacers around whatever attention there is."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        # All passes compute alike, whether or not they have a gradient.
        options = options_for_gradients(self.options)
        at_every_call(options, _WRAPPER_KEY, lambda x, context, call_options: wrapping.into(call_options))
        prediction: torch.Tensor = comfy.samplers.calc_cond_batch(model, [conds], self.x, self.sigma, options)[0]
        return prediction


def _on_cpu(numbers: torch.Tensor) -> np.ndarray:
    return numbers.detach().cpu().double().numpy()
