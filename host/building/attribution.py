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

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import comfy.model_management
import comfy.samplers
import numpy as np
import torch

from ...hrv.errors import HRVError
from ..models.architectures import architecture_of
from ..models.capabilities import Capability
from ..prompts.carried import TEXT_KEYS, Conditioning
from ..runs.gradients import require_differentiable
from .one_level import OTHER, AtOneLevel, Level
from .patching import Patch

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

    ``alphas`` is the number n of alphas for each effect of heads. A backward pass may keep ``room`` bytes; where it
    would keep more, layers run twice and hardly anything is kept. None is half of the memory that is free when heads
    are first measured. Raises HRVError for an unsupported architecture and for weights that cannot be differentiated.
    """

    def __init__(self, model: Any, alphas: int = 3, room: float | None = None):
        self.architecture = architecture_of(model, Capability.CAUSAL)
        self.layout = self.architecture.layout
        require_differentiable(model, _NEEDED_BY)
        self.model, self.alphas, self._room = model, alphas, room
        # By the shape of latents: larger batches keep more.
        self._rooms: dict[torch.Size, float] = {}

    def effects(self, pairs: Pairs, sigma: float, patches: Sequence[Patch] = ()) -> PairEffects:
        """Effects of all heads, and of patches, at one noise level; all 0 for pairs whose prompts do the same.

        Raises HRVError for prompts that differ in length, for numbers that are not finite, and for
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
            level = Level(self.architecture, self._room_for(x), guider, pairs.names, x, sigmas, options)
            level.require_sound()
            heads = [level.head_effects(alpha) for alpha in alphas]
            self._rooms[x.shape] = level.room
            of_patches = [level.patch_effects(patch) for patch in patches]
            nothing = torch.zeros(len(x), 0, dtype=torch.float64)
            made = (
                torch.stack(heads).mean(0) if heads else nothing,
                torch.stack(of_patches, dim=1) if of_patches else nothing,
                level.squares,
            )
            found.append(PairEffects(*(part.numpy() for part in made)))

        guider = comfy.samplers.CFGGuider(self.model)
        # The host prepares whatever lists of conditionings a guider has; the second is as positive as the first.
        (_, own), (tensor, other) = pairs.a[0], pairs.b[0]
        guider.inner_set_conds({"positive": pairs.a, OTHER: [[tensor, _with_text(own, other)]]})
        sigmas = torch.tensor([sigma, 0.0])
        guider.sample(pairs.noise, pairs.latents, AtOneLevel(measure), sigmas, disable_pbar=True, seed=0)
        return found[0]

    def _room_for(self, x: torch.Tensor) -> float:
        """What a backward pass for these latents may keep; 0 if one of their shape had no room before."""
        if self._room is None:
            self._room = comfy.model_management.get_free_memory(x.device) / 2
        return self._rooms.get(x.shape, self._room)


def _with_text(extras: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """What a conditioning carries, but of its text what the other one carries."""
    return {**extras, **{name: other[name] for name in TEXT_KEYS if name in other}}


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
