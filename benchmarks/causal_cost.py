"""What integrated attribution costs: a pair of prompts at one noise level over a step of sampling.

    python benchmarks/causal_cost.py [--model sd15] [--device cuda] [--rounds 5] [--out FOLDER]
    python benchmarks/causal_cost.py --count --model sd15 [--batch 1] [--out FOLDER]

Every round makes one step of sampling with classifier-free guidance for each image of a batch, and measures all heads
for as many pairs at one noise level, with one alpha and with three, without activation checkpointing and with it.
``sd15`` and ``sdxl`` are UNets of full size with random weights. The way of the paper makes 50 such steps for each of
1,000 images. 34 concepts with 16 pairs, each at one noise level, are 544 pairs at a level; their images are made as far
as that level; and the first four pairs of each concept are patched four times for groups of tokens, and made and
patched once more for the top heads. With ``--count`` nothing is computed: memory in half precision, floating-point
operations and what a whole build comes to are counted from the shapes of all tensors. Needs a host on COMFYUI_PATH.
Writes ``causal-MODEL.json`` and ``.md``, or ``causal-memory-MODEL``.
"""

from __future__ import annotations

import argparse
import json
import math
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
from hrv_pack.benchmarks.counting import count_effects, count_work, unfilled_model, weight_bytes
from hrv_pack.benchmarks.measuring import add_options, compare, latent_side, load, sampling
from hrv_pack.host.building.attribution import Attribution, Pairs
from hrv_pack.host.building.causal import CHECKED, LEVELS, CausalSettings
from hrv_pack.host.work.sampling import sigmas_until
from hrv_pack.hrv.building.causal_state import GROUPS

SIGMA = 4.0
ALPHAS, CONCEPTS, PAIRS, CFG = 3, 34, 16, 7.5
# 1,000 images of 50 steps.
PUBLISHED_STEPS = 1_000 * 50


def pairs_of(options: argparse.Namespace, model: Any, a: Any, b: Any) -> Pairs:
    side = latent_side(options, model)
    shape = options.batch, model.get_model_object("latent_format").latent_channels, side, side
    names = [f"pair {number + 1}" for number in range(options.batch)]
    return Pairs(names, a, b, torch.zeros(shape), torch.randn(shape, generator=torch.Generator().manual_seed(0)))


def ways(options: argparse.Namespace, device: torch.device) -> dict[str, Callable[[], None]]:
    """A step of sampling first, then a pair at one level, by name."""
    model, _, a, b = load(options.model, device, options.half)
    pairs, sample = pairs_of(options, model, a, b), sampling(options, model, b)
    made: dict[str, Callable[[], None]] = {"a step of sampling": lambda: sample(model.clone(), a)}
    for alphas in options.alphas:
        for more, checkpointing in (("", False), (", checkpointing", True))[options.checkpointing :]:
            attribution = Attribution(model, alphas, 0.0 if checkpointing else math.inf)
            made[f"alphas: {alphas}{more}"] = lambda own=attribution: own.effects(pairs, SIGMA)  # type: ignore[misc]
    return made


def image_steps(model: Any, steps: int) -> float:
    """Steps of sampling that make an image as far as a noise level, the mean over a build's levels."""
    settings = CausalSettings(1, 0, steps, CFG, "euler", "normal", 512, 512)
    sampling = model.get_model_object("model_sampling")
    made = [len(sigmas_until(model, settings, float(sampling.percent_to_sigma(level)))) - 1 for level in LEVELS]
    return sum(made) / len(made)


def build_over_published(pair: float, image: float) -> float:
    """A whole build's steps over those of the published way; ``pair`` and ``image`` are steps for each."""
    checked = CONCEPTS * min(CHECKED, PAIRS)
    # A patch is a row, half a step; a check has the two plain passes and a patch, and makes its image again.
    steps = CONCEPTS * PAIRS * (pair + image) + checked * (len(GROUPS) / 2 + image + 1.5)
    return steps / PUBLISHED_STEPS


def count(options: argparse.Namespace) -> None:
    """Write and print the memory and work of a pair at one level, without checkpointing and with it."""
    model = unfilled_model({"sd15": "SD 1.x", "sdxl": "SDXL"}[options.model], torch.float16)
    width = model.model.model_config.unet_config["context_dim"]
    pooled = {"pooled_output": torch.zeros(1, 1280)} if options.model == "sdxl" else {}
    a, b = ([[torch.zeros(1, 77, width), dict(pooled)]] for _ in range(2))
    pairs, weights, rows = pairs_of(options, model, a, b), weight_bytes(model), []
    builds = "".join(f" build, {steps} steps |" for steps in options.image_steps)
    text = "| checkpointing | weights | graph | at most, weights included | a pair at a level, in steps |"
    text += f"{builds}\n|{'---|' * (5 + len(options.image_steps))}\n"
    for checkpointing, room in ((False, math.inf), (True, 0.0)):
        counted = count_effects(model, pairs, room)
        plain, gated = count_work(model, pairs, room)
        pair = 1 + ALPHAS * gated / plain
        shares = {steps: build_over_published(pair, image_steps(model, steps)) for steps in options.image_steps}
        rows.append(
            {
                "checkpointing": checkpointing,
                "weights": weights,
                **counted._asdict(),
                "steps": pair,
                "builds": shares,
            }
        )
        sizes = (weights, counted.kept, weights + counted.peak)
        cells = [*(f"{size / 1e9:.2f} GB" for size in sizes), f"{pair:.2f}", *(f"{x:.3f}" for x in shares.values())]
        text += f"| {checkpointing} | {' | '.join(cells)} |\n"
    options.out.mkdir(parents=True, exist_ok=True)
    made = {"model": options.model, "batch": options.batch, "torch": torch.__version__}
    path = options.out / f"causal-memory-{options.model}"
    path.with_suffix(".json").write_text(json.dumps({"made": made, "rows": rows}, indent=2) + "\n", "utf-8")
    path.with_suffix(".md").write_text(text, "utf-8")
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--count", action="store_true", help="count memory and work of sd15 or sdxl from shapes alone")
    parser.add_argument("--image-steps", type=int, nargs="+", default=[20, 12, 8], help="sampling steps of a build")
    parser.add_argument("--alphas", type=int, nargs="+", default=[1, 3])
    parser.add_argument(
        "--checkpointing", action="store_true", help="measure with it alone, as builds do where memory is short"
    )
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
