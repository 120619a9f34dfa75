"""The architecture of a MODEL: the adapter of its family, chosen by the class of its denoiser."""

from __future__ import annotations

from typing import Any

from ...hrv.errors import HRVError
from .families.architecture import Architecture
from .families.unet import UNet

FAMILIES: tuple[type[Architecture], ...] = (UNet,)


def architecture_of(model: Any) -> Architecture:
    """The adapter of a MODEL, object patches included. Raises HRVError where there are no heads to speak of."""
    denoiser = model.get_model_object("diffusion_model")
    for family in FAMILIES:
        if isinstance(denoiser, family.denoiser_class):
            architecture = family(denoiser)
            if architecture.cross_attention:
                return architecture
    raise HRVError(
        f"This model ({type(denoiser).__name__}) has no cross-attention heads that an HRV could describe. Supported "
        f"are {'; '.join(family.supported for family in FAMILIES)}."
    )
