"""The UNet of Stable Diffusion (``comfy/ldm/modules/diffusionmodules/openaimodel.py``)."""

from __future__ import annotations

from typing import Any

from comfy.ldm.modules.attention import BasicTransformerBlock, CrossAttention, SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ....hrv.errors import HRVError
from ....hrv.heads.layout import LayerKey


def cross_attention_modules(model: Any) -> dict[LayerKey, CrossAttention]:
    """The ``attn2`` modules of a MODEL by (block, id, transformer index), in canonical order.

    Raises HRVError for an architecture without such layers.
    """
    unet = model.get_model_object("diffusion_model")
    modules: dict[LayerKey, CrossAttention] = {}
    if isinstance(unet, UNetModel):
        sections = {
            "input": list(unet.input_blocks),
            "middle": [unet.middle_block] if unet.middle_block is not None else [],
            "output": list(unet.output_blocks),
        }
        for block, parts in sections.items():
            for number, part in enumerate(parts):
                for layer in part:
                    if isinstance(layer, SpatialTransformer):
                        for index, transformer in enumerate(layer.transformer_blocks):
                            if isinstance(transformer, BasicTransformerBlock) and transformer.attn2 is not None:
                                modules[block, number, index] = transformer.attn2
    if not modules:
        raise HRVError(
            f"This model ({type(unet).__name__}) has no cross-attention heads that an HRV could describe. Supported "
            "are models with the UNet of Stable Diffusion: SD 1.x, SD 2.x, SDXL and its refiner, pruned variants of "
            "these, and HRV-mini."
        )
    return modules
