"""How large the pictures of a MODEL's latents are."""

from __future__ import annotations

from typing import Any


def pixels_per_position(model: Any) -> int:
    """Side of the square of pixels that one position of a latent shows (``comfy/latent_formats.py``)."""
    return int(model.get_model_object("latent_format").spacial_downscale_ratio)
