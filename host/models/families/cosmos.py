"""Cosmos-Predict2 (``comfy/ldm/cosmos/predict2.py``) and Anima, made from it (``comfy/ldm/anima/model.py``)."""

from __future__ import annotations

from typing import Any

from .transformer import CrossTransformer, next_reads


def _before_itself(*_: Any, extra_options: dict[str, Any], **__: Any) -> dict[str, Any]:
    """``attn1_patch``, in front of the attention of the image to itself."""
    next_reads(extra_options, text=False)
    return {}


def _before_text(*_: Any, extra_options: dict[str, Any], **__: Any) -> dict[str, Any]:
    """``attn2_patch``, in front of the attention to the text."""
    next_reads(extra_options, text=True)
    return {}


class CosmosPredict2(CrossTransformer):
    """Cosmos-Predict2, whose text is T5's."""

    denoiser_class = "comfy.ldm.cosmos.predict2.MiniTrainDIT"
    family = "cosmos-predict2"
    name = "Cosmos-Predict2"
    blocks = {"block": "blocks"}  # noqa: RUF012 - never changed
    heads = "cross_attn.n_heads"
    output = "cross_attn.output_proj"
    patches = {"attn1_patch": _before_itself, "attn2_patch": _before_text}  # noqa: RUF012 - never changed

    @property
    def patch(self) -> int:
        """Of one frame."""
        side: int = self.denoiser.patch_spatial
        return side


class Anima(CosmosPredict2):
    """Anima, which makes its text from T5's tokens and Qwen's states."""

    denoiser_class = "comfy.ldm.anima.model.Anima"
    family = "anima"
    name = "Anima"
