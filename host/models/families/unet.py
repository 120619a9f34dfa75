"""The UNet of Stable Diffusion (``comfy/ldm/modules/diffusionmodules/openaimodel.py``)."""

from __future__ import annotations

from functools import cached_property

from comfy.ldm.modules.attention import BasicTransformerBlock, SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel

from ....hrv.heads.layout import AttentionLayer, LayerKey
from ....hrv.heads.sections import DOWN, MID, UP
from .architecture import Architecture, CrossAttention, ReplacerKey


class UNet(Architecture):
    """Convolutions with transformers in between, whose ``attn2`` is the cross-attention."""

    denoiser_class = UNetModel
    supported = (
        "models with the UNet of Stable Diffusion: SD 1.x, SD 2.x, SDXL and its refiner, pruned variants of these, and "
        "HRV-mini"
    )
    checkpointed = (ResBlock, SpatialTransformer)

    @cached_property
    def cross_attention(self) -> dict[LayerKey, CrossAttention]:
        """The ``attn2`` modules by (block, id, transformer index)."""
        unet = self.denoiser
        sections = {
            DOWN: list(unet.input_blocks),
            MID: [unet.middle_block] if unet.middle_block is not None else [],
            UP: list(unet.output_blocks),
        }
        return {
            (section.block, number, index): transformer.attn2
            for section, parts in sections.items()
            for number, part in enumerate(parts)
            for layer in part
            if isinstance(layer, SpatialTransformer)
            for index, transformer in enumerate(layer.transformer_blocks)
            if isinstance(transformer, BasicTransformerBlock) and transformer.attn2 is not None
        }

    def replacer_keys(self, layer: AttentionLayer) -> tuple[ReplacerKey, ...]:
        """The transformer's own key, then its block's (``comfy/ldm/modules/attention.py``, BasicTransformerBlock)."""
        return layer.key, layer.key[:2]
