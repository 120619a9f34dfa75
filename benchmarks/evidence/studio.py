"""HRV-mini in a process, sampled as a graph samples it, its pictures read by the truth scorer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import comfy.sample
import torch

from ...host.mechanism import with_mechanism
from ...host.mini.loader import load_mini
from ...host.prompts.encoding import encode_prompt
from ...mini.scorer import Reading, read_pictures

TOGETHER = 32
"""Pictures that are sampled together."""


class Sampler(NamedTuple):
    """How pictures are sampled."""

    steps: int
    cfg: float
    name: str = "dpmpp_2m"
    scheduler: str = "simple"

    def __str__(self) -> str:
        return f"{self.steps} steps of {self.name} {self.scheduler}, CFG {self.cfg:g}"

    @property
    def cost(self) -> float:
        """How often the model is evaluated for a picture."""
        return self.steps * (1.0 if self.cfg == 1.0 else 2.0)


class Studio:
    """MODEL with the mechanism, CLIP and VAE of HRV-mini, or of HRV-mini-T by the weights."""

    def __init__(self, weights: Path) -> None:
        self.mini = load_mini(weights)
        model, self.clip, self.vae = self.mini
        self.model = with_mechanism(model)
        self.negative = encode_prompt(self.clip, "")[0]

    def readings(self, model: Any, positive: Any, seeds: Sequence[int], sampler: Sampler) -> list[Reading]:
        """What the pictures of a conditioning [1 or seeds] show, a seed for each."""
        empty = torch.zeros(1, 12, 16, 16)
        noise = torch.cat([comfy.sample.prepare_noise(empty, seed) for seed in seeds])
        samples = comfy.sample.sample(
            model, noise, sampler.steps, sampler.cfg, sampler.name, sampler.scheduler, positive, self.negative,
            torch.zeros_like(noise), disable_pbar=True, seed=seeds[0],
        )  # fmt: skip
        return read_pictures(self.vae.decode(samples).movedim(-1, 1))


@cache
def studio(weights: Path) -> Studio:
    """The one of this process."""
    return Studio(weights)
