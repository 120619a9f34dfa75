"""Lumina 2 and Z-Image (``comfy/ldm/lumina/model.py``): one stream of text and image."""

from __future__ import annotations

from typing import Any

import torch

from ....hrv.errors import HRVError
from .overriding import REFERENCES_KEY
from .transformer import JointTransformer


class Lumina2(JointTransformer):
    """Lumina 2. Its refiners, which run before its layers and don't mix text and image, have no heads here."""

    denoiser_class = "comfy.ldm.lumina.model.NextDiT"
    family = "lumina2"
    name = "Lumina 2"
    blocks = {"block": "layers"}  # noqa: RUF012 - never changed
    heads = "attention.n_local_heads"
    output = "attention.out"


class ZImage(Lumina2):
    """Z-Image, which fills up its text to a multiple of 32 tokens."""

    family = "z-image"
    name = "Z-Image"

    @classmethod
    def adapts(cls, denoiser: Any) -> bool:
        """By its padding tokens."""
        return super().adapts(denoiser) and denoiser.pad_tokens_multiple is not None

    def image_start(self, tokens: int) -> int:
        """Behind the padding."""
        multiple: int = self.denoiser.pad_tokens_multiple
        return tokens + -tokens % multiple

    def text_keys(self, own: int) -> tuple[int, int]:
        """With the padding behind them."""
        return self.image_start(own), 0

    def prepared(self, options: dict[str, Any], context: torch.Tensor | None) -> dict[str, Any]:
        """Raises HRVError where reference images bring texts of their own, which stand in front of the prompt's."""
        if options.get(REFERENCES_KEY):
            raise HRVError(
                "Z-Image puts the texts of reference images in front of the prompt's, so the tokens of its words can't "
                "be found. Take the reference images off the prompt, or the HRV controls."
            )
        return super().prepared(options, context)
