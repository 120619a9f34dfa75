"""The architecture of a MODEL: the adapter of its family, chosen by the class of its denoiser."""

from __future__ import annotations

from typing import Any

from ...hrv.errors import HRVError
from .capabilities import Capability
from .families.architecture import Architecture
from .families.cosmos import Anima, CosmosPredict2
from .families.flux import Chroma, Flux, Flux2
from .families.lumina import Lumina2, ZImage
from .families.qwen_image import QwenImage
from .families.unet import UNet
from .families.wan import Wan

FAMILIES: tuple[type[Architecture], ...] = (
    UNet,
    Anima,
    CosmosPredict2,
    ZImage,
    Lumina2,
    Flux2,
    Flux,
    Chroma,
    Wan,
    QwenImage,
)
"""All families; of two that would take a denoiser the first is the one."""

_WITHOUT_OPTIONS = "ComfyUI calls its attention without the options of a run, so nothing can act on its heads"
UNREACHABLE = {
    "PixArtMS": ("PixArt", _WITHOUT_OPTIONS),
    "HunYuanDiT": ("HunyuanDiT", _WITHOUT_OPTIONS),
    "ErnieImageModel": ("ERNIE-Image", _WITHOUT_OPTIONS),
    "OpenAISignatureMMDITWrapper": (
        "Stable Diffusion 3",
        "its text has each word twice, from CLIP and from T5, and ComfyUI doesn't tell its attention which block runs",
    ),
}
"""Denoisers that can't be used, by the name of their class: what people call them, and why."""


def architecture_of(model: Any, capability: Capability | None = None) -> Architecture:
    """The adapter of a MODEL, object patches included.

    Raises HRVError where there are no heads to speak of, and where the family lacks the ``capability`` that is needed.
    """
    denoiser = model.get_model_object("diffusion_model")
    family = next((family for family in FAMILIES if family.adapts(denoiser)), None)
    if family is None and (unreachable := UNREACHABLE.get(type(denoiser).__name__)):
        name, reason = unreachable
        raise HRVError(f"{name} can't be used with HRVs: {reason}.")
    if family is None:
        raise HRVError(
            f"This model ({type(denoiser).__name__}) has no cross-attention heads that this pack can find. "
            f"Supported are {'; '.join(family.supported or family.name for family in FAMILIES)}."
        )
    if capability is not None and capability not in family.capabilities:
        able = " and ".join(other.name for other in FAMILIES if capability in other.capabilities)
        raise HRVError(f"{capability.value} isn't available for {family.name} yet, only for {able}.")
    return family(denoiser)


def unet_of(model: Any, capability: Capability | None = None) -> UNet:
    """The adapter of a MODEL for a ``capability`` that UNets alone have; errors as :func:`architecture_of`."""
    architecture = architecture_of(model, capability)
    assert isinstance(architecture, UNet)
    return architecture
