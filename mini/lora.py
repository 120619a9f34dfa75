"""Training a LoRA of HRV-mini: low-rank changes of attention and feed-forward weights of its UNet.

The file is what the host's Load LoRA reads (comfy/lora.py): ``lora_unet_LAYER.lora_up.weight`` and
``lora_unet_LAYER.lora_down.weight``, where LAYER is the UNet's own name with underscores.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.utils import parametrize

from .batches import TrainingSettings, Vocabulary, draw_batch
from .stickers import draw_stickers
from .training import load_weights
from .unet import UNetNetwork

LAYERS = re.compile(
    r"(input_blocks\.[1245]|output_blocks\.([6-9]|1[01]))\..*\.(to_[qkv]|to_out\.0|ff\.net\.(0\.proj|2))"
)
"""Names of the layers that a LoRA changes: attention and feed-forward of the two finest levels, which draw rims."""


class LowRank(torch.nn.Module):
    """A weight [O, I] plus ``up`` [O, R] times ``down`` [R, I]; nothing at first, because ``up`` is 0."""

    def __init__(self, weight: torch.Tensor, rank: int):
        super().__init__()
        outputs, inputs = weight.shape
        self.down = torch.nn.Parameter(torch.randn(rank, inputs) * inputs**-0.5)
        self.up = torch.nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.up @ self.down


Lora = dict[str, LowRank]
"""Changes by the UNet's name of the layer."""


def add_lora(network: UNetNetwork, rank: int) -> Lora:
    """Freeze the network and put a :class:`LowRank` on the weight of every layer of :data:`LAYERS`."""
    network.requires_grad_(False)
    lora = {}
    for name, layer in list(network.unet.named_modules()):
        if LAYERS.fullmatch(name):
            lora[name] = LowRank(layer.weight, rank)
            parametrize.register_parametrization(layer, "weight", lora[name])
    return lora


def train_lora(
    settings: TrainingSettings, rank: int, weights: Path, report: Callable[[int, float, float], None]
) -> Lora:
    """Teach the network of ``weights`` to draw stickers by a LoRA alone; every draw depends only on (seed, step)."""
    vocabulary = Vocabulary()
    torch.manual_seed(settings.seed)
    network = UNetNetwork(len(vocabulary.token_ids))
    load_weights(network, weights)
    lora = add_lora(network, rank)
    changes = [weight for change in lora.values() for weight in change.parameters()]
    optimiser = torch.optim.AdamW(changes, settings.rate, betas=(0.9, 0.99), weight_decay=0.0)
    for step in range(settings.steps):
        batch = draw_batch(vocabulary, settings, step, render=draw_stickers)
        rate = settings.rate_at(step)
        for group in optimiser.param_groups:
            group["lr"] = rate
        # Few steps on any machine: a CPU without bfloat16 takes seven times as long with it.
        loss = network.loss(batch, half=False)
        if not math.isfinite(value := loss.item()):
            raise RuntimeError(f"The loss is {value} at step {step}; train with a lower rate.")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(changes, 1.0)
        optimiser.step()
        report(step, value, rate)
    return lora


def export_lora(lora: Lora, settings: TrainingSettings, path: Path) -> None:
    """Write a LoRA in half precision."""
    tensors = {}
    for name, change in lora.items():
        layer = f"lora_unet_{name.replace('.', '_')}"
        tensors[f"{layer}.lora_up.weight"] = change.up.detach().half()
        tensors[f"{layer}.lora_down.weight"] = change.down.detach().half()
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {key: str(value) for key, value in asdict(settings).items()}
    save_file(tensors, path, metadata={"format": "hrv-mini lora 1", **metadata})
