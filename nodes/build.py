"""Build HRV: count what every head attends to while images are generated."""

from __future__ import annotations

from typing import Any

import comfy.samplers
from comfy_api.latest import io

from ..host.build import BuildSettings, build_hrv
from ..hrv.vocabulary import Vocabulary
from .sockets import CATEGORY, ConceptsSocket, HRVSocket

DEFAULT_PROMPTS = """a photo of a red car
a photo of a dog in the snow
a bowl of green apples on a wooden table
a watercolor painting of a castle at sunset
a small bird on a branch
a woman in a striped dress
a glass vase with a yellow tulip
a street in the rain at night"""


class BuildHRV(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_Build",
            display_name="Build HRV",
            category=CATEGORY,
            description="Generates images with your model and sampler settings and counts, for every cross-attention "
            "head and step, which concept it attends to most. The counts become one Head Relevance Vector per "
            "concept.",
            search_aliases=["head relevance vector", "make hrv", "attention heads", "concepts"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model to look into: any Stable Diffusion checkpoint, LoRAs included."
                ),
                io.Clip.Input("clip", tooltip="Its text encoder: encodes the prompts and every concept word alone."),
                ConceptsSocket.Input("concepts", tooltip="From HRV Concepts."),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default=DEFAULT_PROMPTS,
                    tooltip="One prompt a line. The more varied, the better; the paper used 2,100.",
                ),
                io.Int.Input(
                    "images",
                    default=64,
                    min=1,
                    max=1_000_000,
                    tooltip="How many images to generate, going round through the prompts. More images, less noise: a "
                    "few dozen show the picture, about a thousand make it sharp.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**63 - 1,
                    control_after_generate=False,
                    tooltip="Starting noise and drawn words follow from it: the same seed builds the same HRV.",
                ),
                io.Int.Input("steps", default=20, min=1, max=1000, tooltip="Sampling steps of every image."),
                io.Float.Input("cfg", default=7.5, min=0.0, max=100.0, step=0.1, tooltip="As in KSampler."),
                io.Combo.Input(
                    "sampler_name", options=comfy.samplers.KSampler.SAMPLERS, default="euler", tooltip="As in KSampler."
                ),
                io.Combo.Input(
                    "scheduler", options=comfy.samplers.KSampler.SCHEDULERS, default="normal", tooltip="As in KSampler."
                ),
                io.Int.Input("width", default=512, min=16, max=8192, step=8, tooltip="Pixels; 128 for HRV-mini."),
                io.Int.Input("height", default=512, min=16, max=8192, step=8, tooltip="Pixels; 128 for HRV-mini."),
                io.Int.Input(
                    "batch_size",
                    default=1,
                    min=1,
                    max=256,
                    tooltip="Images generated at once: faster, but more memory. Draws stay the same.",
                    advanced=True,
                ),
                io.String.Input("negative", default="", tooltip="Negative prompt of all images.", advanced=True),
            ],
            outputs=[HRVSocket.Output("hrv", display_name="HRV", tooltip="One vector per concept.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        concepts: Vocabulary,
        prompts: str,
        images: int,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        width: int,
        height: int,
        batch_size: int,
        negative: str,
    ) -> io.NodeOutput:
        lines = [line.strip() for line in prompts.splitlines() if line.strip()]
        settings = BuildSettings(
            images=images,
            seed=seed,
            steps=steps,
            cfg=cfg,
            sampler_name=sampler_name,
            scheduler=scheduler,
            width=width,
            height=height,
            batch_size=batch_size,
            negative=negative,
        )
        return io.NodeOutput(build_hrv(model, clip, concepts, lines, settings))
