"""What the networks of HRV-mini share in training: the text model, and explicit attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch

from ..host.mini.model import CONTEXT_WIDTH, new_text_model
from .batches import Batch, Reading, TrainingSettings

LARGE_MAPS = 128 * 128
"""Maps of so many elements are made picture by picture: one picture's fit into a CPU's cache."""

Guided = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Latents [B, 12, h, w] and a timestep [1] to the network's guided prediction [B, 12, h, w]."""


def initialise(module: torch.nn.Module) -> None:
    """Give every layer torch's default weights; the host's layers skip their own initialisation (comfy/ops.py)."""
    norms = (torch.nn.GroupNorm, torch.nn.LayerNorm, torch.nn.RMSNorm)
    kinds: tuple[Any, ...] = (torch.nn.Linear, torch.nn.Conv2d, *norms)
    for layer in module.modules():
        for kind in kinds:
            if isinstance(layer, kind):
                kind.reset_parameters(layer)
        if isinstance(layer, torch.nn.Embedding):
            torch.nn.init.normal_(layer.weight, std=0.3)


class MiniNetwork(torch.nn.Module, ABC):
    """A denoiser and its text model in training: explicit attention, small embedding, no in-place residuals.

    ``causal`` and ``alone`` [T, T] are masks of the text: every token sees those before it, or the start alone.
    """

    causal: torch.Tensor
    alone: torch.Tensor

    prompt_tokens: ClassVar[int]
    """The number T of tokens that the denoiser gets of a prompt."""

    format: ClassVar[str]
    """What files of exported weights say of themselves."""

    def __init__(self, tokens: int, name: str, denoiser: torch.nn.Module):
        super().__init__()
        self.add_module(name, denoiser)
        self.text = new_text_model(self.prompt_tokens)
        self.text.set_input_embeddings(torch.nn.Embedding(tokens, CONTEXT_WIDTH))
        causal = torch.full((self.prompt_tokens, self.prompt_tokens), -torch.inf).triu_(1)
        alone = torch.full_like(causal, -torch.inf).fill_diagonal_(0.0)
        alone[:, 0] = 0.0
        self.register_buffer("causal", causal, persistent=False)
        self.register_buffer("alone", alone, persistent=False)
        self.initialise()

    def initialise(self) -> None:
        """Random weights, of which subclasses set to zero what should start at zero."""
        initialise(self)
        torch.nn.init.normal_(self.text.text_model.embeddings.position_embedding.weight, std=0.05)

    @abstractmethod
    def forward(
        self, x: torch.Tensor, timestep: torch.Tensor, rows: torch.Tensor, reading: Reading | None = None
    ) -> torch.Tensor:
        """What the network predicts [B, 12, h, w] for scaled latents x at timesteps [B], as the host counts them."""

    @abstractmethod
    def loss(self, batch: Batch, half: bool = True) -> torch.Tensor:
        """Mean squared error at timesteps spread evenly over the batch, computed in bfloat16 if ``half``."""

    @abstractmethod
    def sample(self, noise: torch.Tensor, steps: int, guided: Guided) -> torch.Tensor:
        """Scaled latents [B, 12, h, w] out of noise of deviation 1, in deterministic steps."""

    def at_step(self, step: int, settings: TrainingSettings) -> None:
        """Get ready for a step of training."""

    def matrices(self) -> list[torch.nn.Parameter]:
        """Those learning weights that Muon trains (:mod:`.optimisers`); AdamW trains all others."""
        return []

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take exported weights."""
        self.load_state_dict(tensors)

    def draw(
        self, rows: torch.Tensor, empty: torch.Tensor, noise: torch.Tensor, steps: int, cfg: float
    ) -> torch.Tensor:
        """Scaled latents [B, 12, h, w] for rows [B, 77] of captions, guided away from ``empty`` [1, 77]."""
        rows = torch.cat([rows, empty.expand_as(rows)])

        def guided(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            wanted, unwanted = self(torch.cat([x, x]), timestep.expand(len(rows)), rows).chunk(2)
            return torch.as_tensor(unwanted + cfg * (wanted - unwanted))

        return self.sample(noise, steps, guided)

    def encode(self, rows: torch.Tensor, reading: Reading | None = None) -> torch.Tensor:
        """Rows [B, 77] to context [B, T, C] as the host encodes them, or by ``reading``."""
        rows = rows[:, : self.prompt_tokens]
        if reading is None:
            return self._encode(rows, self.causal)
        # The last token of all captions is padding, which is the token of the end.
        nothing = rows[:1, -1:].expand(1, rows.shape[1]).clone()
        nothing[0, 0] = rows[0, 0]
        mask = torch.where(reading.alone[:, None, None, None], self.alone, self.causal)
        rows = torch.cat([rows, nothing])
        words = self._encode(rows, torch.cat([mask, self.causal[None, None]]))
        at_end = (rows == rows[:, -1:])[:, :, None]
        ends = torch.where(at_end[reading.ends], words[reading.ends], words[-1:])
        return torch.where(at_end[:-1], ends, words[:-1])

    def _encode(self, rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The host's forward adds in place, which autograd cannot undo; ``mask`` broadcasts to [B, heads, T, T]."""
        model = self.text.text_model
        x = model.embeddings.token_embedding(rows) + model.embeddings.position_embedding.weight

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, mask: torch.Tensor) -> torch.Tensor:
            return explicit_attention(q, k, v, heads, mask)

        for layer in model.encoder.layers:
            x = x + layer.self_attn(layer.layer_norm1(x), mask, attend)
            x = x + layer.mlp(layer.layer_norm2(x))
        return model.final_layer_norm(x)


def explicit_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Attention over [B, N, heads * d] with explicit maps; heads this small train faster on a CPU that way."""
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    if mask is None and q.shape[2] * k.shape[2] >= LARGE_MAPS:
        pictures = zip(q.split(1), k.split(1), v.split(1), strict=True)
        return torch.cat([attention_by_head(*one) for one in pictures]).transpose(1, 2).flatten(2)
    return attention_by_head(q, k, v, mask).transpose(1, 2).flatten(2)


def attention_by_head(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Attention over [B, heads, N, d]."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    return scores.softmax(-1).to(v.dtype) @ v


def evenly(count: int, generator: torch.Generator) -> torch.Tensor:
    """Random numbers [count] in 0..1, one in each of as many equal parts, in random order."""
    even = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return even[torch.randperm(count, generator=generator)]
