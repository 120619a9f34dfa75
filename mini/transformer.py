"""HRV-mini-T in training: a joint transformer that reads HRV-mini's words, by rectified flow.

x = sigma * noise + (1 - sigma) * latents, and the network predicts noise - latents (arXiv 2403.03206, section 2), as
the host samples such models (comfy/model_sampling.py, CONST).
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import comfy.model_management
import comfy.model_sampling
import torch
import torch.nn.functional as F
from comfy.ldm.lumina.model import NextDiT

from ..host.mini.model import TRANSFORMER_TOKENS, MiniTransformerConfig, new_transformer
from .batches import Batch, Reading
from .networks import Guided, MiniNetwork, attention_by_head, evenly

SPREAD = 1.4
"""The deviation of the logits of noise levels in training, around the logit of the schedule's middle."""

_PLACES = "text.text_model.embeddings.position_embedding.weight"


class TransformerNetwork(MiniNetwork):
    """HRV-mini-T. Its text model is HRV-mini's and does not learn, so a word's states are what HRV-mini made of it."""

    prompt_tokens = TRANSFORMER_TOKENS
    format = "hrv-mini-t 1"

    transformer: NextDiT

    def __init__(self, tokens: int):
        super().__init__(tokens, "transformer", new_transformer())
        self.text.requires_grad_(False)

    def initialise(self) -> None:
        """Blocks start as identity because their gates are 0; so is what the last layer makes (arXiv 2212.09748)."""
        super().initialise()
        for name, weight in self.transformer.named_parameters():
            if "adaLN_modulation" in name or name.startswith("final_layer.linear"):
                torch.nn.init.zeros_(weight)

    def matrices(self) -> list[torch.nn.Parameter]:
        """Of attention and feed-forward, not those that make gates and scales out of the noise level."""
        named = self.transformer.layers.named_parameters()
        return [weight for name, weight in named if weight.ndim == 2 and "adaLN_modulation" not in name]

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Of HRV-mini's weights the text model."""
        if not any(name.startswith("transformer.") for name in tensors):
            text = {name: tensor for name, tensor in tensors.items() if name.startswith("text.")}
            text[_PLACES] = text[_PLACES][: self.prompt_tokens]
            own = {f"transformer.{name}": tensor for name, tensor in self.transformer.state_dict().items()}
            tensors = text | own
        super().load_tensors(tensors)

    def forward(
        self, x: torch.Tensor, timestep: torch.Tensor, rows: torch.Tensor, reading: Reading | None = None
    ) -> torch.Tensor:
        """Predicted noise minus scaled latents [B, 12, h, w], at noise levels [B] in 0..1."""

        def attend(
            _: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *args: Any, **kwargs: Any
        ) -> torch.Tensor:
            return attention_by_head(q, k, v).transpose(1, 2).flatten(2)

        with torch.no_grad():
            context = self.encode(rows, reading)
        before = comfy.model_management.in_training
        # The host's fused rotation has no gradient.
        comfy.model_management.in_training = True
        try:
            options = {"optimized_attention_override": attend}
            predicted: torch.Tensor = self.transformer(
                x, timestep, context, context.shape[1], transformer_options=options
            )
        finally:
            comfy.model_management.in_training = before
        return predicted

    def loss(self, batch: Batch, half: bool = True) -> torch.Tensor:
        """Of the flow at noise levels whose logits are normally distributed (arXiv 2403.03206, section 3.1)."""
        latents, generator = batch.latents, batch.generator
        logits = torch.special.ndtri(evenly(len(latents), generator).clamp(1e-4, 1 - 1e-4)) * SPREAD
        sigma = (logits + torch.tensor(_schedule().shift).log()).sigmoid().to(latents.device)
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        x = torch.lerp(latents, noise, sigma[:, None, None, None])
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=half):
            flow = self(x, sigma, batch.rows, batch.reading)
        return F.mse_loss(flow.float(), noise - latents)

    def sample(self, noise: torch.Tensor, steps: int, guided: Guided) -> torch.Tensor:
        """Euler's method, at timesteps that are even before the schedule shifts them."""
        x = noise
        sigmas = _schedule().sigma(torch.linspace(1.0, 0.0, steps + 1))
        for sigma, following in pairwise(sigmas):
            x = x + (following - sigma) * guided(x, sigma)
        return x


@cache
def _schedule() -> comfy.model_sampling.ModelSamplingDiscreteFlow:
    """The host's for HRV-mini-T."""
    return comfy.model_sampling.ModelSamplingDiscreteFlow(MiniTransformerConfig(MiniTransformerConfig.unet_config))
