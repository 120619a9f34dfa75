"""How large the pictures of a MODEL's latents are."""

from __future__ import annotations

from typing import Any


def empty_latent(model: Any, rows: int, width: int, height: int) -> tuple[int, ...]:
    """The shape of latents of so many images of so many pixels; models that make videos have one frame for each."""
    form, pixels = model.get_model_object("latent_format"), pixels_per_position(model)
    frames = (1,) if getattr(form, "latent_dimensions", 2) == 3 else ()
    return rows, int(form.latent_channels), *frames, height // pixels, width // pixels


def pixels_per_position(model: Any) -> int:
    """Side of the square of pixels that one position of a latent shows (``comfy/latent_formats.py``)."""
    return int(model.get_model_object("latent_format").spacial_downscale_ratio)
