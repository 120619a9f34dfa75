"""Qwen-Image (``comfy/ldm/qwen_image/model.py``): two streams of text and image."""

from __future__ import annotations

from .transformer import JointTransformer


class QwenImage(JointTransformer):
    """Qwen-Image. Reference images follow the image, and count as part of it."""

    denoiser_class = "comfy.ldm.qwen_image.model.QwenImageTransformer2DModel"
    family = "qwen-image"
    name = "Qwen-Image"
    blocks = {"block": "transformer_blocks"}  # noqa: RUF012 - never changed
    heads = "attn.heads"
    output = "attn.to_out.0"
