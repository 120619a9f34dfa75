"""Wan 2.1 and 2.2 (``comfy/ldm/wan/model.py``)."""

from __future__ import annotations

from typing import Any

import torch

from .overriding import Place
from .transformer import CrossTransformer, next_reads


def _behind_itself(args: dict[str, Any]) -> torch.Tensor:
    """``attn1_patch``, behind the attention of the image to itself."""
    next_reads(args["transformer_options"], text=True)
    x: torch.Tensor = args["x"]
    return x


def _behind_text(args: dict[str, Any]) -> torch.Tensor:
    """``attn2_patch``, behind the attention to the text."""
    next_reads(args["transformer_options"], text=False)
    x: torch.Tensor = args["x"]
    return x


class Wan(CrossTransformer):
    """Wan from text and from images, whose text is umT5's."""

    denoiser_class = "comfy.ldm.wan.model.WanModel"
    family = "wan"
    name = "Wan"
    supported = "Wan 2.1 and 2.2"
    blocks = {"block": "blocks"}  # noqa: RUF012 - never changed
    heads = "cross_attn.num_heads"
    output = "cross_attn.o"
    patches = {"attn1_patch": _behind_itself, "attn2_patch": _behind_text}  # noqa: RUF012 - never changed

    @property
    def patch(self) -> int:
        """Of one frame."""
        side: int = self.denoiser.patch_size[-1]
        return side

    def located(self, options: dict[str, Any], keys: torch.Tensor, axis: int) -> Place | None:
        """Models for images read the start image's features too, which are fewer than tokens."""
        return super().located(options, keys, axis) if self.is_text(options, keys.shape[axis]) else None
