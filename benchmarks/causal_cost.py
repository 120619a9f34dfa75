"""What integrated attribution costs: a pair of prompts at one noise level over a step of sampling.

    python benchmarks/causal_cost.py [--model sd15] [--device cuda] [--rounds 5] [--out FOLDER]
    python benchmarks/causal_cost.py --count --model sd15 [--batch 1] [--out FOLDER]

Every round makes one step of sampling with classifier-free guidance for each image of a batch, and measures all heads
for as many pairs at one noise level, with one alpha and with three, without activation checkpointing and with it.
``sd15`` and ``sdxl`` are UNets of full size with random weights. The way of the paper makes 50 such steps for each of
1,000 images; 34 concepts with 16 pairs at 4 noise levels are 2,176 pairs at a level, beside the steps that make the
pairs' images. With ``--count`` nothing is computed: memory in half precision is counted from the shapes of all
tensors. Needs a host on COMFYUI_PATH. Writes ``causal-MODEL.json`` and ``.md``, or ``causal-memory-MODEL``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from host_process import enter_host
from pack_import import import_pack

enter_host(gpu="cuda" in sys.argv)
import_pack()

import comfy.model_management
import torch
from hrv_pack.benchmarks.counting import count_effects, unfilled_model, weight_bytes
from hrv_pack.benchmarks.measuring import add_options, compare, latent_side, load, sampling
from hrv_pack.host.building.attribution import Attribution, Pairs

SIGMA = 4.0


def pairs_of(options: argparse.Namespace, model: Any, a: Any, b: Any) -> Pairs:
    side = latent_side(options, model)
    shape = options.batch, model.get_model_object("latent_format").latent_channels, side, side
    names = [f"pair {number + 1}" for number in range(options.batch)]
    return Pairs(names, a, b, torch.zeros(shape), torch.randn(shape, generator=torch.Generator().manual_seed(0)))


def ways(options: argparse.Namespace, device: torch.device) -> dict[str, Callable[[], None]]:
    """A step of sampling first, then a pair at one level, by name."""
    model, _, a, b = load(options.model, device)
    pairs, sample = pairs_of(options, model, a, b), sampling(options, model, b)
    made: dict[str, Callable[[], None]] = {"a step of sampling": lambda: sample(model.clone(), a)}
    for alphas in (1, 3):
        for more, checkpointing in (("", False), (", checkpointing", True)):
            attribution = Attribution(model, alphas, checkpointing)
            made[f"alphas: {alphas}{more}"] = lambda own=attribution: own.effects(pairs, SIGMA)  # type: ignore[misc]
    return made


def count(options: argparse.Namespace) -> None:
    """Write and print the memory of a pair at one level, without checkpointing and with it."""
    model = unfilled_model({"sd15": "SD 1.x", "sdxl": "SDXL"}[options.model], torch.float16)
    width = model.model.model_config.unet_config["context_dim"]
    pooled = {"pooled_output": torch.zeros(1, 1280)} if options.model == "sdxl" else {}
    a, b = ([[torch.zeros(1, 77, width), dict(pooled)]] for _ in range(2))
    pairs, weights, rows = pairs_of(options, model, a, b), weight_bytes(model), []
    text = "| checkpointing | weights | graph | at most, weights included |\n|---|---|---|---|\n"
    for checkpointing in (False, True):
        counted = count_effects(model, pairs, checkpointing)
        rows.append({"checkpointing": checkpointing, "weights": weights, **counted._asdict()})
        sizes = (weights, counted.kept, weights + counted.peak)
        text += f"| {checkpointing} | {' | '.join(f'{size / 1e9:.2f} GB' for size in sizes)} |\n"
    options.out.mkdir(parents=True, exist_ok=True)
    made = {"model": options.model, "batch": options.batch, "torch": torch.__version__}
    path = options.out / f"causal-memory-{options.model}"
    path.with_suffix(".json").write_text(json.dumps({"made": made, "rows": rows}, indent=2) + "\n", "utf-8")
    path.with_suffix(".md").write_text(text, "utf-8")
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--count", action="store_true", help="count the memory of sd15 or sdxl from shapes alone")
    parser.set_defaults(steps=1)
    options = parser.parse_args()
    if options.count:
        if options.model == "hrv-mini":
            parser.error("--count is for --model sd15 or sdxl")
        count(options)
        return
    device = comfy.model_management.get_torch_device()
    compare(options, device, "causal", ways(options, device))


if __name__ == "__main__":
    main()
