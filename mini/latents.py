"""Pixels to latents and back, exactly: 2 x 2 blocks of a picture become 12 channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def to_latents(pictures: torch.Tensor) -> torch.Tensor:
    """RGB [B, 3, H, W] in 0..1 to latents [B, 12, H/2, W/2] in -1..1."""
    return F.pixel_unshuffle(pictures * 2 - 1, 2)


def to_pictures(latents: torch.Tensor) -> torch.Tensor:
    """Latents [B, 12, h, w] to RGB [B, 3, 2h, 2w], clamped to 0..1."""
    return (F.pixel_shuffle(latents, 2) / 2 + 0.5).clamp(0, 1)
