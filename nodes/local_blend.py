"""Local Blend and Edit Mask: edits that stay where their words are."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..host.editing.prompts import blend_masks, with_local_blend
from ..hrv.editing.edit import BLEND_START, BLEND_THRESHOLD
from ..hrv.progress import Window
from .fields import split_words
from .inputs import attention_size_input, progress_input
from .menu import EDIT
from .node import Node


class LocalBlend(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_LocalBlend",
            display_name="Local Blend (P2P-HRV)",
            category=EDIT,
            description="Keeps the edits of Prompt Edit where their words are; everywhere else they stay the source "
            "image.",
            search_aliases=["local edit", "attention mask", "prompt to prompt", "p2p", "keep background"],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="From the last Prompt Edit."),
                io.Latent.Input("latent", tooltip="From the last Prompt Edit."),
                io.String.Input(
                    "words",
                    default="",
                    tooltip="Words or phrases whose places may change, separated by commas, of the source or the "
                    "targets; empty for the words that were changed.",
                ),
                io.Float.Input(
                    "threshold",
                    default=BLEND_THRESHOLD,
                    min=0.0,
                    max=0.99,
                    step=0.01,
                    tooltip="The share of the highest attention from which a place may change. Lower lets more change.",
                ),
                progress_input(
                    "start",
                    BLEND_START,
                    "Sampling progress at which the rest is kept; before, attention is only gathered.",
                ),
                progress_input("end", 1.0, "Sampling progress until which the rest is kept."),
                attention_size_input(
                    "size",
                    "Largest cross-attention that is asked for places, as a share of the latent's positions: "
                    "0.0625 is 16x16 of 64x64. Small models, such as HRV-mini, need 0.25.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(tooltip="The sampler's positive."),
                io.Latent.Output(tooltip="The sampler's latent; after the sampler, Edit Mask reads the mask from it."),
            ],
        )

    @classmethod
    def execute(
        cls, conditioning: Any, latent: Any, words: str, threshold: float, start: float, end: float, size: float
    ) -> io.NodeOutput:
        window = Window(start, end)
        return io.NodeOutput(
            *with_local_blend(conditioning, latent, split_words(words), threshold=threshold, window=window, size=size)
        )


class EditMask(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_EditMask",
            display_name="Edit Mask (P2P-HRV)",
            category=EDIT,
            description="Outputs the places that Local Blend let change, as a mask for each edit.",
            search_aliases=["attention mask", "local blend mask", "prompt to prompt", "p2p"],
            inputs=[io.Latent.Input("latent", tooltip="From the sampler that sampled with Local Blend.")],
            outputs=[io.Mask.Output(tooltip="A mask for each edit, at the size of the images: 1 may change.")],
        )

    @classmethod
    def execute(cls, latent: Any) -> io.NodeOutput:
        return io.NodeOutput(blend_masks(latent))
