"""Flux.1, Flux.2 and Chroma (``comfy/ldm/flux``, ``comfy/ldm/chroma``): double blocks, then single ones."""

from __future__ import annotations

from typing import Any

import torch

from ....hrv.heads.layout import AttentionLayer
from .transformer import JointTransformer


class Flux(JointTransformer):
    """Flux.1, whose text is T5's. Reference images follow the image, and count as part of it."""

    denoiser_class = "comfy.ldm.flux.model.Flux"
    family = "flux"
    name = "Flux.1"
    blocks = {"double": "double_blocks", "single": "single_blocks"}  # noqa: RUF012 - never changed
    heads = "num_heads"
    output = "img_attn.proj"

    def written(self, layer: AttentionLayer, found: torch.Tensor) -> torch.Tensor:
        """A single block takes it to the image together with what its other half made, which is nothing here."""
        block = self.block(layer)
        if layer.block == "double":
            return super().written(layer, found)
        rest = block.linear2.in_features - found.shape[-1]
        made: torch.Tensor = block.linear2(torch.nn.functional.pad(found, (0, rest)))
        return made


class Flux2(Flux):
    """Flux.2, whose text is Mistral's or Qwen's, padded on the left to 512 tokens."""

    family = "flux2"
    name = "Flux.2"

    @classmethod
    def adapts(cls, denoiser: Any) -> bool:
        """By the modulation that all its blocks share."""
        return super().adapts(denoiser) and denoiser.params.global_modulation is not False

    def first_token(self, own: int, reached: int) -> int:
        """Behind the padding (``comfy/model_base.py``, Flux2)."""
        return reached - own

    def reached(self, own: int) -> int:
        """512 or more."""
        return max(own, 512)

    def text_keys(self, own: int) -> tuple[int, int]:
        """The prompt's own come last."""
        keys = self.reached(own)
        return keys, keys - own


class Chroma(Flux):
    """Chroma, made from Flux.1."""

    denoiser_class = "comfy.ldm.chroma.model.Chroma"
    family = "chroma"
    name = "Chroma"
