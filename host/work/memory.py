"""Whether images that are made together have room at all, said before the first is begun."""

from __future__ import annotations

from typing import Any, Protocol

import psutil

from ...hrv.errors import HRVError
from ..models.latents import pixels_per_position
from .sampling import SamplingSettings

# At least the noise, the latents and the predictions with and without the prompt, in single precision.
_LATENTS, _BYTES = 4, 4


class BatchSettings(SamplingSettings, Protocol):
    """How images are made, and how many of them together."""

    @property
    def batch_size(self) -> int: ...


def require_room(model: Any, settings: BatchSettings, images: int, *, decoded: bool = False) -> None:
    """Raise HRVError where as many of ``images`` as are made together take more memory than this machine has.

    Counted is the least that any model takes, with ``decoded`` the pictures too: what passes may still be too much for
    a network, which its device says.
    """
    channels, pixels = model.get_model_object("latent_format").latent_channels, pixels_per_position(model)
    together, area = min(settings.batch_size, images), settings.height * settings.width
    least = together * _BYTES * (_LATENTS * channels * area // pixels**2 + 3 * area * decoded)
    there = psutil.virtual_memory().total
    if least > there:
        raise HRVError(
            f"{together} images of {settings.width} x {settings.height} pixels at once need at least "
            f"{least / 1e9:.1f} GB of memory, and this machine has {there / 1e9:.1f} GB. Lower batch_size, or make "
            "smaller images."
        )
