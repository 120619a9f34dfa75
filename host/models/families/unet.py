"""The UNet of Stable Diffusion (``comfy/ldm/modules/diffusionmodules/openaimodel.py``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from comfy.ldm.modules.attention import BasicTransformerBlock, SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel

from ....hrv.heads.layout import AttentionLayer, HeadLayout, LayerKey
from ....hrv.heads.sections import DOWN, MID, UP
from ..capabilities import ALL
from .architecture import Architecture, CrossAttention
from .attention_call import NOTHING, WHOLE, AttentionCall, Wrap
from .replacers import LayerWrapping, Replacer, ReplacerKey, plain_attention

# The length of a chunk of CLIP's tokens, which begins with a start token.
_CHUNK = 77


class UNet(Architecture):
    """Convolutions with transformers in between, whose ``attn2`` is the cross-attention."""

    name = "the UNet of Stable Diffusion"
    supported = (
        "models with the UNet of Stable Diffusion: SD 1.x, SD 2.x, SDXL and its refiner, pruned variants of these, and "
        "HRV-mini"
    )
    capabilities = ALL

    @classmethod
    def adapts(cls, denoiser: Any) -> bool:
        """A UNet that reads text."""
        return isinstance(denoiser, UNetModel) and bool(cls(denoiser).cross_attention)

    @property
    def checkpointed(self) -> tuple[type[torch.nn.Module], ...]:
        """Convolutions and transformers."""
        return ResBlock, SpatialTransformer

    @cached_property
    def cross_attention(self) -> Mapping[LayerKey, CrossAttention]:
        """The ``attn2`` modules by (block, id, transformer index), in canonical order."""
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

    @cached_property
    def layout(self) -> HeadLayout:
        """The head positions of :attr:`cross_attention`."""
        return HeadLayout(
            tuple(
                AttentionLayer(block, number, index, heads=int(module.heads))
                for (block, number, index), module in self.cross_attention.items()
            )
        )

    @property
    def projections(self) -> Mapping[LayerKey, CrossAttention]:
        """:attr:`cross_attention`."""
        return self.cross_attention

    def replacer_keys(self, layer: AttentionLayer) -> tuple[ReplacerKey, ...]:
        """Where the host looks for the replacer of a layer's attention: it takes the first that is there.

        The transformer's own key, then its block's (``comfy/ldm/modules/attention.py``, BasicTransformerBlock). They
        hold for its cross-attention ("attn2") as for the self-attention beside it ("attn1").
        """
        return layer.key, layer.key[:2]

    def replacing(
        self, wrap: Callable[[AttentionLayer, Replacer], Replacer], attention: str = "attn2"
    ) -> LayerWrapping:
        """What puts ``wrap(layer, previous)`` at every layer, in its cross-attention or its self-attention (attn1)."""
        return LayerWrapping([(layer, self.replacer_keys(layer)) for layer in self.layout.layers], wrap, attention)

    def written(self, layer: AttentionLayer, found: torch.Tensor) -> torch.Tensor:
        """By ``to_out``."""
        made: torch.Tensor = self.cross_attention[layer.key].to_out(found)
        return made

    def in_front_of_words(self, tokens: int, first_word: int) -> range:
        """The start token of every chunk."""
        return range(0, tokens, _CHUNK)

    def places(self, latent: Sequence[int], options: Mapping[str, Any]) -> tuple[int, ...]:
        """As the host says at each layer."""
        return tuple(options["activations_shape"][-2:])

    def wrapping(self, wrap: Wrap) -> LayerWrapping:
        """All keys are the text's and all queries the image's."""
        return self._wrapping(wrap, "attn2", WHOLE)

    def wrapping_itself(self, wrap: Wrap) -> LayerWrapping:
        """Keys and queries are the image's."""
        return self._wrapping(wrap, "attn1", NOTHING)

    def _wrapping(self, wrap: Wrap, attention: str, text: slice) -> LayerWrapping:
        def around(layer: AttentionLayer, previous: Replacer) -> Replacer:
            attend = wrap(layer)
            if attend is None:
                return previous

            def replacer(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
                def run(
                    q: torch.Tensor,
                    k: torch.Tensor,
                    v: torch.Tensor,
                    queries: slice = WHOLE,
                    heads: int | None = None,
                    mask: torch.Tensor | None = None,
                ) -> torch.Tensor:
                    if heads is None:
                        return previous(q, k, v, extra)
                    # Replacers expect all heads of all rows.
                    return plain_attention(q, k, v, {**extra, "n_heads": heads})

                # Image prompts add to the attention to the text.
                alone = text == NOTHING or previous is plain_attention
                return attend(AttentionCall(layer, q, k, v, extra, run, text, alone=alone))

            return replacer

        return self.replacing(around, attention)
