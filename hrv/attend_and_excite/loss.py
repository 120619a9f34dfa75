"""How far a latent is from showing every subject (arXiv 2301.13826)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from ...hrv_kernels.weighted_maps import smoothed

SHARPNESS = 100.0
"""The published factor of the maps before their softmax over tokens."""


def map_size(height: int, width: int, resolution: int) -> tuple[int, int]:
    """(y, x) of about ``resolution`` squared places in the aspect of a latent; at least 2 each way."""
    aspect = math.sqrt(height / width)
    return max(2, round(resolution * aspect)), max(2, round(resolution / aspect))


def subject_map(maps: torch.Tensor, positions: Sequence[int], starts: Sequence[int], smoothing: float) -> torch.Tensor:
    """How much of every place a subject has, [B, y, x] from 0 to 1.

    ``maps`` [B, y, x, T] are attention to all tokens, averaged over heads. Start tokens (``starts``) are cut off, the
    rest is multiplied by :data:`SHARPNESS` and soft-maxed over the tokens, and the shares of the subject's tokens are
    added and smoothed (arXiv 2301.13826, and its authors' code for the numbers).
    """
    cut = torch.zeros(maps.shape[-1], dtype=torch.bool, device=maps.device)
    cut[list(starts)] = True
    shares = (SHARPNESS * maps).masked_fill(cut, -torch.inf).softmax(-1)
    return smoothed(shares[..., list(positions)].sum(-1), smoothing)


def image_losses(maxima: torch.Tensor) -> torch.Tensor:
    """The loss [B] of every image from the maxima [B, S] of its subjects' maps: that of the most neglected one."""
    return (1.0 - maxima).clamp(min=0.0).amax(-1)
