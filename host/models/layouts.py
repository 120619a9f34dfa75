"""The head positions of a loaded model, read from its own modules (``comfy/ldm/modules/attention.py``)."""

from __future__ import annotations

import logging
from typing import Any

from comfy.ldm.modules.attention import BasicTransformerBlock, CrossAttention, SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ...hrv.errors import HRVError
from ...hrv.heads.layout import AttentionLayer, HeadLayout, LayerKey, require_same_layout
from ...hrv.relevance.vectors import HRV


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


def head_layout(model: Any) -> HeadLayout:
    """The head layout of a MODEL, in canonical order. Raises HRVError for an unsupported architecture."""
    return HeadLayout(
        tuple(
            AttentionLayer(block, number, index, heads=int(attention.heads))
            for (block, number, index), attention in cross_attention_modules(model).items()
        )
    )


def describe_model(model: Any) -> str:
    """The host's name of a MODEL's architecture."""
    return type(model.model.model_config).__name__


def require_fitting(hrv: HRV, model: Any) -> None:
    """Raise HRVError for an HRV of another head layout than the MODEL's; log for which models it is fine.

    Fine-tunes and other relatives have the heads of the model that an HRV was made with, and it is meant for them too.
    """
    layout = head_layout(model)
    require_same_layout(hrv.layout, layout)
    logging.info(
        "[HRV] This HRV, made with %s, fits this model, %s: both have %s. Being another model of the same layout, such "
        "as a fine-tune, is fine.",
        hrv.provenance.get("model", "a model that its file does not name"),
        describe_model(model),
        layout.describe(),
    )
