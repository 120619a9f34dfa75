"""A style for pictures of the mini world that no caption speaks of: every thing is a sticker with a white rim."""

from __future__ import annotations

import torch

from .world import Pictures, cover, draw, thing_distance

RIM = 1.7
"""Width of the rim in pixels."""

SHADOW, DARKNESS = 0.9, 0.55
"""Width in pixels of the shadow around the rim, and how much of the scene's light it takes."""


def draw_stickers(pictures: Pictures) -> torch.Tensor:
    """What :func:`.world.draw` draws, with a rim around every thing: float32 [B, 3, 32, 32], RGB in 0..1."""
    distance = thing_distance(pictures)
    thing, sticker, shadow = (cover(distance - width)[:, None] for width in (0.0, RIM, RIM + SHADOW))
    plain = draw(pictures)
    dark = plain * (1 - DARKNESS * (shadow - sticker))
    return dark + (1 - plain) * (sticker - thing)
