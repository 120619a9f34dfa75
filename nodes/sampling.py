"""How a node makes the images that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.samplers
from comfy_api.latest import io

from .input_groups import InputGroup


@dataclass(frozen=True)
class Sampling(InputGroup):
    """What the settings of builds and analyses have in common, by their names; ``width`` and ``height`` are pixels."""

    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    width: int
    height: int
    batch_size: int
    negative: str

    @staticmethod
    def inputs(steps: int = 20) -> list[Any]:
        """With a node's own default for the steps."""
        return [
            io.Int.Input("steps", default=steps, min=1, max=1000, tooltip="Sampling steps of every image."),
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
                tooltip="How many images to generate at once: more is faster but needs more memory. The random draws "
                "stay the same.",
                advanced=True,
            ),
            io.String.Input("negative", default="", tooltip="Negative prompt of all images.", advanced=True),
        ]
