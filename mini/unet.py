"""HRV-mini's UNet in training: v-prediction on a schedule with zero terminal signal."""

from __future__ import annotations

from functools import cache
from typing import Any

import comfy.model_sampling
import torch
import torch.nn.functional as F
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ..host.mini.model import PROMPT_TOKENS, MiniModelConfig, new_unet
from .batches import Batch, Reading, TrainingSettings
from .networks import Guided, MiniNetwork, evenly, explicit_attention


class UNetNetwork(MiniNetwork):
    """HRV-mini. Its finest self-attention may be off, which gives that of a network that never had any."""

    prompt_tokens = PROMPT_TOKENS
    format = "hrv-mini 1"
    finest_self_attention = True
    unet: UNetModel

    def __init__(self, tokens: int):
        super().__init__(tokens, "unet", new_unet())

    def initialise(self) -> None:
        """Residual branches start as identity; the finest self-attention may stay off at first and must start at 0."""
        super().initialise()
        for name, weight in self.unet.named_parameters():
            if any(part in name for part in ("out_layers.3.", "proj_out.", "attn1.to_out.0.")) or name.startswith(
                "out.2."
            ):
                torch.nn.init.zeros_(weight)

    def at_step(self, step: int, settings: TrainingSettings) -> None:
        """Switch the finest self-attention on when its time has come."""
        self.finest_self_attention = step >= settings.finest_self_attention_from

    def forward(
        self, x: torch.Tensor, timestep: torch.Tensor, rows: torch.Tensor, reading: Reading | None = None
    ) -> torch.Tensor:
        """Predicted v [B, 12, h, w] of scaled latents x at timesteps [B] in 0..999."""

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
            return explicit_attention(q, k, v, extra["n_heads"])

        def self_attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
            finest = q.shape[1] == x.shape[2] * x.shape[3]
            return torch.zeros_like(q) if finest and not self.finest_self_attention else attend(q, k, v, extra)

        blocks = [("input", i) for i in range(12)] + [("middle", 0)] + [("output", i) for i in range(12)]
        patches = {"attn1": dict.fromkeys(blocks, self_attend), "attn2": dict.fromkeys(blocks, attend)}
        options = {"patches_replace": patches}
        predicted: torch.Tensor = self.unet(x, timestep, self.encode(rows, reading), transformer_options=options)
        return predicted

    def loss(self, batch: Batch, half: bool = True) -> torch.Tensor:
        """Of v at the schedule's timesteps."""
        latents, generator = batch.latents, batch.generator
        timestep = (evenly(len(latents), generator) * 1000).long().clamp(max=999)
        signal = (1 / (1 + noise_schedule()[timestep] ** 2)).sqrt()[:, None, None, None].to(latents.device)
        share = (1 - signal**2).sqrt()
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        x = signal * latents + share * noise
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=half):
            v = self(x, timestep.float().to(latents.device), batch.rows, batch.reading)
        return F.mse_loss(v.float(), signal * noise - share * latents)

    def sample(self, noise: torch.Tensor, steps: int, guided: Guided) -> torch.Tensor:
        """DDIM without noise over evenly spread timesteps."""
        timesteps = torch.linspace(999, 0, steps + 1).round().long()[:-1]
        signals = (1 / (1 + noise_schedule()[timesteps] ** 2)).sqrt()
        latents = torch.zeros_like(noise)
        for timestep, signal in zip(timesteps.float(), signals, strict=True):
            share = (1 - signal**2).sqrt()
            x = signal * latents + share * noise
            v = guided(x, timestep)
            latents, noise = signal * x - share * v, share * x + signal * v
        return latents


@cache
def noise_schedule() -> torch.Tensor:
    """The host's sigmas [1000] for HRV-mini, so that training and sampling agree."""
    return comfy.model_sampling.ModelSamplingDiscrete(MiniModelConfig(MiniModelConfig.unet_config)).sigmas
