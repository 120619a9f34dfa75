"""Load HRV-mini."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.mini.loader import load_mini
from .menu import MAKE
from .node import Node


class LoadMini(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_LoadMini",
            display_name="Load HRV-mini",
            category=MAKE,
            description="Loads the small text-to-image model that comes with the pack, to try the other nodes "
            "without a checkpoint or a GPU. It has 128 heads like SD 1.x and makes images of 128 x 128.",
            search_aliases=["hrv mini", "embedded model", "demo model", "tiny model", "mini model"],
            inputs=[],
            outputs=[
                io.Model.Output(tooltip="The denoiser, with the attention heads that an HRV describes."),
                io.Clip.Output(tooltip="Its text encoder, with the tokens of SD 1.x."),
                io.Vae.Output(tooltip="Turns its latents into images and images into latents."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*load_mini())
