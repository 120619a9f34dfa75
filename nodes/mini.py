"""Load HRV-mini."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.mini.loader import MINI, SHIPPED, load_mini
from .menu import MAKE
from .node import Node


class LoadMini(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_LoadMini",
            display_name="Load HRV-mini",
            category=MAKE,
            description="Loads a small text-to-image model that comes with the pack, to try the other nodes "
            "without a checkpoint or a GPU. HRV-mini has 128 heads like SD 1.x; both make images of 128 x 128.",
            search_aliases=[
                "hrv mini",
                "embedded model",
                "demo model",
                "tiny model",
                "mini model",
                "hrv mini t",
                "small transformer",
            ],
            inputs=[
                io.Combo.Input(
                    "weights",
                    options=list(SHIPPED),
                    default=MINI,
                    # Graphs from before there was a choice have no such input.
                    optional=True,
                    tooltip="HRV-mini is a UNet like Stable Diffusion. HRV-mini-T is a transformer, built like "
                    "Lumina 2 and Z-Image, with 64 heads; it draws the same things, a little less well.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The denoiser, with the attention heads that an HRV describes."),
                io.Clip.Output(tooltip="Its text encoder, with the tokens of SD 1.x."),
                io.Vae.Output(tooltip="Turns its latents into images and images into latents."),
            ],
        )

    @classmethod
    def execute(cls, weights: str = MINI) -> io.NodeOutput:
        return io.NodeOutput(*load_mini(SHIPPED[weights]))
