"""Training HRV-mini and HRV-mini-T on pictures that :mod:`.world` draws, resumable at any step.

Warm-up, a constant rate, then a linear decay over the last steps, so that a run may be lengthened or ended by asking
for another number of steps. Several processes share a batch and average their gradients: on a CPU, operations as
small as these gain more from that than from threads. Every draw depends only on (seed, step, process).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from ..host.mini.model import TEXT_CONFIG
from ..hrv.errors import HRVError
from .batches import TrainingSettings, Vocabulary, draw_batch
from .kinds import Kind
from .networks import MiniNetwork
from .optimisers import Optimisers


def train(
    kind: Kind,
    settings: TrainingSettings,
    checkpoint: Path,
    report: Callable[[int, float, float], None],
    device: str = "cpu",
    save_every: int = 100,
    start: Path | None = None,
) -> MiniNetwork:
    """Train a ``kind`` until ``settings.steps``, going on from ``checkpoint`` if it exists; returns the average.

    Without a checkpoint it begins with the weights of ``start``, or from nothing.
    In a torch.distributed group every process calls this; the first one reports and saves.
    """
    rank, processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    vocabulary = Vocabulary()
    torch.manual_seed(settings.seed)
    network = kind(len(vocabulary.token_ids)).to(device)
    if start is not None and not checkpoint.exists():
        load_weights(network, start)
    averaged = kind(len(vocabulary.token_ids)).to(device)
    averaged.load_state_dict(network.state_dict())
    optimisers = Optimisers(network, settings.rate)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimisers.load(state)
        first = state["step"]

    def save(step: int) -> None:
        state = {
            "network": network.state_dict(),
            "averaged": averaged.state_dict(),
            "step": step,
            "settings": asdict(settings),
            **optimisers.state(),
        }
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(checkpoint)

    for step in range(first, settings.steps):
        batch = draw_batch(vocabulary, settings, step, rank, processes).to(device)
        rate = settings.rate_at(step)
        network.at_step(step, settings)
        loss = network.loss(batch)
        if not math.isfinite(value := loss.item()):
            raise RuntimeError(f"The loss is {value} at step {step}; resume from {checkpoint} with a lower rate.")
        optimisers.forget_gradients()
        loss.backward()
        if processes > 1:
            average_gradients(optimisers.learning)
        torch.nn.utils.clip_grad_norm_(optimisers.learning, 1.0)
        optimisers.step(rate)
        if rank > 0:
            continue
        keep = min(settings.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), 1 - keep)
        report(step, value, rate)
        if (step + 1) % save_every == 0 or step + 1 == settings.steps:
            save(step + 1)
    return averaged


def average_gradients(weights: Sequence[torch.nn.Parameter]) -> None:
    """Replace every process's gradients by their mean; parameters that no loss reached count as zero."""
    gradients = []
    for weight in weights:
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
    network.load_tensors(tensors)


def export(network: MiniNetwork, path: Path) -> None:
    """Write the network in half precision as its denoiser and ``text.*``, the embedding as rows of ``token_ids``."""
    tensors = {name: weight.detach().half().contiguous().cpu() for name, weight in network.state_dict().items()}
    tensors["token_ids"] = Vocabulary().token_ids
    save_file(tensors, path, metadata={"format": network.format, "text_layers": str(TEXT_CONFIG["num_hidden_layers"])})
