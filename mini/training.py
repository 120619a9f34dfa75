"""Training HRV-mini: v-prediction on pictures that :mod:`.world` draws, resumable at any step.

Warm-up, a constant rate, then a linear decay over the last steps, so that a run may be lengthened or ended by asking
for another number of steps. Several processes share a batch and average their gradients: on a CPU, operations as
small as these gain more from that than from threads. Every draw depends only on (seed, step, process).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import comfy.model_sampling
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from comfy.sd1_clip import SDTokenizer
from safetensors.torch import load_file, save_file

from ..host.mini.model import (
    CONTEXT_WIDTH,
    LATENT_SCALE,
    TEXT_CONFIG,
    MiniModelConfig,
    new_text_model,
    new_unet,
)
from ..hrv.errors import HRVError
from .captions import draw_samples
from .latents import to_latents
from .world import CONCEPTS, Pictures, draw

PROMPT_TOKENS = 77
START, END = 49406, 49407

LARGE_MAPS = 128 * 128
"""Maps of so many elements are made picture by picture: one picture's fit into a CPU's cache."""


@dataclass(frozen=True)
class TrainingSettings:
    """What a run is made of; ``steps`` may change between parts of one run.

    ``empty``, ``unknown``, ``alone``, ``ends_empty`` and ``ends_other`` are shares of the captions: without words, with
    a word that means nothing, and read as :class:`Reading` says.
    """

    steps: int
    batch: int = 48
    rate: float = 8e-4
    warm_up: int = 200
    decay: int = 1000
    ema: float = 0.999
    empty: float = 0.1
    unknown: float = 0.1
    alone: float = 0.0
    ends_empty: float = 0.0
    ends_other: float = 0.0
    finest_self_attention_from: int = 0
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """Learning rate of ``step``: linear warm-up, constant, linear decay to zero."""
        return self.rate * min(1.0, (step + 1) / self.warm_up, max(0.0, (self.steps - step) / self.decay))


class Vocabulary:
    """The tokens that captions use, as rows of a small embedding; row 0 stands for every other token."""

    def __init__(self) -> None:
        self.tokenizer = SDTokenizer()
        words = {word for names in CONCEPTS.values() for word in names}
        words |= {"a", "and", "in", "the", "on", "center", "shape", "colored", ","}
        used = sorted({token for word in words for token in self._tokens(word)} | {START, END})
        self.token_ids = torch.tensor([-1, *used])
        self._row = {token: row for row, token in enumerate(used, start=1)}

    @lru_cache(maxsize=65536)  # noqa: B019 - one vocabulary lives as long as its training
    def _tokens(self, text: str) -> tuple[int, ...]:
        (chunk,) = self.tokenizer.tokenize_with_weights(text)
        ids = [int(token) for token, _ in chunk]
        return tuple(ids[1 : ids.index(END)])

    def rows(self, captions: list[str], insert_unknown: np.ndarray | None = None) -> torch.Tensor:
        """Embedding rows [B, 77] of captions; where ``insert_unknown`` [B] is >= 0 an unknown token goes in there."""
        rows = torch.full((len(captions), PROMPT_TOKENS), self._row[END])
        for index, caption in enumerate(captions):
            line = [self._row[START], *(self._row[token] for token in self._tokens(caption))]
            if insert_unknown is not None and insert_unknown[index] >= 0:
                line.insert(1 + int(insert_unknown[index]) % len(line), 0)
            rows[index, : len(line)] = torch.tensor(line)
        return rows


class Reading(NamedTuple):
    """How B captions are encoded in training, so that every word says what it means, and only where it stands.

    Tokens of the captions in ``alone`` [B] see the start and themselves only. End and padding get the states that they
    have in caption number ``ends`` [B], or in the empty prompt where that caption still has words; B stands for the
    empty prompt itself. So they are no place to tell anything.
    """

    alone: torch.Tensor
    ends: torch.Tensor


class Batch(NamedTuple):
    """Latents [B, 12, 16, 16], rows [B, 77] of their captions, how these are encoded, and a generator for all else."""

    latents: torch.Tensor
    rows: torch.Tensor
    reading: Reading
    generator: torch.Generator

    def to(self, device: str) -> Batch:
        """The same elsewhere; the generator stays on the CPU, so that every device draws alike."""
        reading = Reading(*(part.to(device) for part in self.reading))
        return Batch(self.latents.to(device), self.rows.to(device), reading, self.generator)


def draw_reading(settings: TrainingSettings, count: int, rng: np.random.Generator) -> Reading:
    """How ``count`` captions are encoded."""
    alone = rng.random(count) < settings.alone
    chance, ends = rng.random(count), np.arange(count)
    ends = np.where(chance < settings.ends_other, rng.permutation(count), ends)
    ends = np.where(chance >= 1 - settings.ends_empty, count, ends)
    return Reading(torch.from_numpy(alone), torch.from_numpy(ends))


def initialise(module: torch.nn.Module) -> None:
    """Give every layer torch's default weights; the host's layers skip their own initialisation (comfy/ops.py)."""
    kinds: tuple[Any, ...] = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.GroupNorm, torch.nn.LayerNorm)
    for layer in module.modules():
        for kind in kinds:
            if isinstance(layer, kind):
                kind.reset_parameters(layer)
        if isinstance(layer, torch.nn.Embedding):
            torch.nn.init.normal_(layer.weight, std=0.3)


class MiniNetwork(torch.nn.Module):
    """UNet and text model in training: explicit attention, small embedding, no in-place residuals.

    ``causal`` and ``alone`` [77, 77] are masks of the text: every token sees those before it, or the start alone.
    """

    causal: torch.Tensor
    alone: torch.Tensor

    def __init__(self, tokens: int):
        super().__init__()
        self.unet = new_unet()
        self.text = new_text_model()
        self.text.set_input_embeddings(torch.nn.Embedding(tokens, CONTEXT_WIDTH))
        initialise(self)
        torch.nn.init.normal_(self.text.text_model.embeddings.position_embedding.weight, std=0.05)
        for name, weight in self.unet.named_parameters():
            # Residual branches start as identity; the finest self-attention may stay off at first and must start at 0.
            if any(part in name for part in ("out_layers.3.", "proj_out.", "attn1.to_out.0.")) or name.startswith(
                "out.2."
            ):
                torch.nn.init.zeros_(weight)
        causal = torch.full((PROMPT_TOKENS, PROMPT_TOKENS), -torch.inf).triu_(1)
        alone = torch.full_like(causal, -torch.inf).fill_diagonal_(0.0)
        alone[:, 0] = 0.0
        self.register_buffer("causal", causal, persistent=False)
        self.register_buffer("alone", alone, persistent=False)

    def encode(self, rows: torch.Tensor, reading: Reading | None = None) -> torch.Tensor:
        """Rows [B, 77] to context [B, 77, C] as the host encodes them, or by ``reading``."""
        if reading is None:
            return self._encode(rows, self.causal)
        # The last token of all captions is padding, which is the token of the end.
        nothing = rows[:1, -1:].expand(1, PROMPT_TOKENS).clone()
        nothing[0, 0] = rows[0, 0]
        mask = torch.where(reading.alone[:, None, None, None], self.alone, self.causal)
        rows = torch.cat([rows, nothing])
        words = self._encode(rows, torch.cat([mask, self.causal[None, None]]))
        at_end = (rows == rows[:, -1:])[:, :, None]
        ends = torch.where(at_end[reading.ends], words[reading.ends], words[-1:])
        return torch.where(at_end[:-1], ends, words[:-1])

    def _encode(self, rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The host's forward adds in place, which autograd cannot undo; ``mask`` broadcasts to [B, heads, 77, 77]."""
        model = self.text.text_model
        x = model.embeddings.token_embedding(rows) + model.embeddings.position_embedding.weight

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, mask: torch.Tensor) -> torch.Tensor:
            return explicit_attention(q, k, v, heads, mask)

        for layer in model.encoder.layers:
            x = x + layer.self_attn(layer.layer_norm1(x), mask, attend)
            x = x + layer.mlp(layer.layer_norm2(x))
        return model.final_layer_norm(x)

    def forward(
        self,
        x: torch.Tensor,
        timestep: torch.Tensor,
        rows: torch.Tensor,
        finest_self_attention: bool = True,
        reading: Reading | None = None,
    ) -> torch.Tensor:
        """Predicted v [B, 12, h, w] of scaled latents x at timesteps [B] in 0..999."""

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
            return explicit_attention(q, k, v, extra["n_heads"])

        def self_attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
            finest = q.shape[1] == x.shape[2] * x.shape[3]
            return torch.zeros_like(q) if finest and not finest_self_attention else attend(q, k, v, extra)

        blocks = [("input", i) for i in range(12)] + [("middle", 0)] + [("output", i) for i in range(12)]
        patches = {"attn1": dict.fromkeys(blocks, self_attend), "attn2": dict.fromkeys(blocks, attend)}
        return self.unet(x, timestep, self.encode(rows, reading), transformer_options={"patches_replace": patches})


def explicit_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Attention over [B, N, heads * d] with explicit maps; heads this small train faster on a CPU that way."""
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    if mask is None and q.shape[2] * k.shape[2] >= LARGE_MAPS:
        pictures = zip(q.split(1), k.split(1), v.split(1), strict=True)
        return torch.cat([_attention(*one, None) for one in pictures]).transpose(1, 2).flatten(2)
    return _attention(q, k, v, mask).transpose(1, 2).flatten(2)


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Attention over [B, heads, N, d]."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    return scores.softmax(-1).to(v.dtype) @ v


def noise_schedule() -> torch.Tensor:
    """The host's sigmas [1000] for HRV-mini, so that training and sampling agree."""
    return comfy.model_sampling.ModelSamplingDiscrete(MiniModelConfig(MiniModelConfig.unet_config)).sigmas


def v_loss(
    network: MiniNetwork, batch: Batch, sigmas: torch.Tensor, finest_self_attention: bool, half: bool = True
) -> torch.Tensor:
    """Mean squared error of v at timesteps spread evenly over the batch, computed in bfloat16 if ``half``."""
    latents, generator = batch.latents, batch.generator
    count = len(latents)
    even = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    timestep = (even * 1000).long().clamp(max=999)[torch.randperm(count, generator=generator)]
    signal = (1 / (1 + sigmas[timestep] ** 2)).sqrt()[:, None, None, None].to(latents.device)
    share = (1 - signal**2).sqrt()
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    x = signal * latents + share * noise
    with torch.autocast(latents.device.type, torch.bfloat16, enabled=half):
        v = network(x, timestep.float().to(latents.device), batch.rows, finest_self_attention, batch.reading)
    return F.mse_loss(v.float(), signal * noise - share * latents)


def draw_batch(
    vocabulary: Vocabulary,
    settings: TrainingSettings,
    step: int,
    rank: int = 0,
    processes: int = 1,
    render: Callable[[Pictures], torch.Tensor] = draw,
) -> Batch:
    """One process's share of the batch of ``step``."""
    rng = np.random.default_rng((settings.seed, step, rank))
    count = settings.batch // processes
    samples, pictures = draw_samples(count, rng)
    captions = ["" if rng.random() < settings.empty else sample.caption for sample in samples]
    places = np.where(rng.random(count) < settings.unknown, rng.integers(0, 64, count), -1)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    reading = draw_reading(settings, count, rng)
    return Batch(to_latents(render(pictures)) * LATENT_SCALE, vocabulary.rows(captions, places), reading, generator)


def train(
    settings: TrainingSettings,
    checkpoint: Path,
    report: Callable[[int, float, float], None],
    device: str = "cpu",
    save_every: int = 100,
    start: Path | None = None,
) -> MiniNetwork:
    """Train until ``settings.steps``, going on from ``checkpoint`` if it exists; returns the averaged network.

    Without a checkpoint it begins with the weights of ``start``, or from nothing.
    In a torch.distributed group every process calls this; the first one reports and saves.
    """
    rank, processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    vocabulary = Vocabulary()
    torch.manual_seed(settings.seed)
    network = MiniNetwork(len(vocabulary.token_ids)).to(device)
    if start is not None and not checkpoint.exists():
        load_weights(network, start)
    averaged = MiniNetwork(len(vocabulary.token_ids)).to(device)
    averaged.load_state_dict(network.state_dict())
    optimiser = torch.optim.AdamW(network.parameters(), settings.rate, betas=(0.9, 0.99), weight_decay=0.01)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]

    def save(step: int) -> None:
        state = {
            "network": network.state_dict(),
            "averaged": averaged.state_dict(),
            "optimiser": optimiser.state_dict(),
            "step": step,
            "settings": asdict(settings),
        }
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(checkpoint)

    sigmas = noise_schedule()
    for step in range(first, settings.steps):
        batch = draw_batch(vocabulary, settings, step, rank, processes).to(device)
        rate = settings.rate_at(step)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = v_loss(network, batch, sigmas, step >= settings.finest_self_attention_from)
        if not math.isfinite(value := loss.item()):
            raise RuntimeError(f"The loss is {value} at step {step}; resume from {checkpoint} with a lower rate.")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if processes > 1:
            average_gradients(network)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        if rank > 0:
            continue
        keep = min(settings.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), 1 - keep)
        report(step, value, rate)
        if (step + 1) % save_every == 0 or step + 1 == settings.steps:
            save(step + 1)
    return averaged


def average_gradients(network: torch.nn.Module) -> None:
    """Replace every process's gradients by their mean; parameters that no loss reached count as zero."""
    gradients = []
    for weight in network.parameters():
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        gradients.append(weight.grad)
    flat = torch.nn.utils.parameters_to_vector(gradients)
    dist.all_reduce(flat)
    torch.nn.utils.vector_to_parameters(flat / dist.get_world_size(), gradients)


def load_weights(network: MiniNetwork, path: Path) -> None:
    """Read what :func:`export` wrote. Raises HRVError for weights whose captions had other words."""
    tensors = load_file(path)
    if not torch.equal(tensors.pop("token_ids"), Vocabulary().token_ids):
        raise HRVError(f"{path} was trained on captions with other words: train from scratch.")
    network.load_state_dict(tensors)


def export(network: MiniNetwork, path: Path) -> None:
    """Write the network in half precision as ``unet.*`` and ``text.*``, the embedding as rows of ``token_ids``."""
    tensors = {name: weight.detach().half().contiguous().cpu() for name, weight in network.state_dict().items()}
    tensors["token_ids"] = Vocabulary().token_ids
    save_file(tensors, path, metadata={"format": "hrv-mini 1", "text_layers": str(TEXT_CONFIG["num_hidden_layers"])})
