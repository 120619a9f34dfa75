"""What benchmarks share: models to measure on, sampling, and ways of doing it compared in turn within one run."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_patcher
import comfy.sample
import torch
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.models.latents import pixels_per_position
from hrv_pack.host.prompts.encoding import encode_prompt
from hrv_pack.tests.support.full_size_unets import FULL_SIZE
from peak_memory import Cost, measured

SIZES = {"hrv-mini": 128, "sd15": 512, "sdxl": 1024}
"""The models and the pixels of their pictures' sides, unless others are asked for."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that comparing ways of sampling takes."""
    parser.add_argument("--model", choices=list(SIZES), default="hrv-mini")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--pixels", type=int, help=f"sides of the pictures; {SIZES} by default")
    parser.add_argument("--half", action="store_true", help="full-size models in bfloat16 on a CPU: half the memory")
    parser.add_argument("--without-maps", action="store_true", help="leave the explicit maps out")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))


def latent_side(options: argparse.Namespace, model: Any) -> int:
    """The side of the latents that are sampled."""
    return (options.pixels or SIZES[options.model]) // pixels_per_position(model)


def load(name: str, device: torch.device, half: bool = False) -> tuple[Any, Any, Any, Any]:
    """MODEL, CLIP, and conditionings of a prompt and of nothing; a UNet of full size has no CLIP.

    On a GPU that UNet computes in float16, on a CPU in float32 or, if ``half``, in bfloat16.
    """
    if name == "hrv-mini":
        model, clip, _ = load_mini()
        return model, clip, *(encode_prompt(clip, text)[0] for text in ("a red circle on the left, night", ""))
    on_cpu = torch.bfloat16 if half else torch.float32
    model = random_unet(name, device, torch.float16 if device.type == "cuda" else on_cpu)
    width = model.model.model_config.unet_config["context_dim"]
    pooled = {"pooled_output": torch.zeros(1, 1280)} if name == "sdxl" else {}
    positive, negative = ([[torch.randn(1, 77, width), dict(pooled)]] for _ in range(2))
    return model, None, positive, negative


def random_unet(name: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A MODEL of full size whose weights are small random numbers."""
    kind, unet = FULL_SIZE[{"sd15": "SD 1.x", "sdxl": "SDXL"}[name]]
    config = kind({**unet, "dtype": dtype})
    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, device="cpu")
    generator = torch.Generator().manual_seed(0)
    for weight in model.diffusion_model.parameters():
        scale = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.02
        weight.data.copy_(torch.randn(weight.shape, generator=generator) * scale)
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))


def sampling(options: argparse.Namespace, model: Any, negative: Any) -> Callable[..., None]:
    """A function that makes the images with a clone of the MODEL, a positive conditioning and a step's callback."""
    side = latent_side(options, model)
    latent = torch.zeros(options.batch, model.get_model_object("latent_format").latent_channels, side, side)
    noise = comfy.sample.prepare_noise(latent, 0)

    def sample(clone: Any, positive: Any, step_done: Callable[[], None] = lambda: None) -> None:
        comfy.sample.sample(
            clone, noise, options.steps, 5.0, "euler", "normal", positive, negative, latent,
            callback=lambda *_: step_done(), disable_pbar=True, seed=0,
        )  # fmt: skip

    return sample


def machine(device: torch.device) -> str:
    """What was measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()}, {os.cpu_count()} CPUs"


def compare(
    options: argparse.Namespace,
    device: torch.device,
    name: str,
    ways: dict[str, Callable[[], None]],
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Run the ways in turn, round by round, and write and print each one's time and memory over the first one's.

    A ratio is the time of a way over the first way's of the same round; shown is the median, with the smallest and the
    largest. The fastest run of a way over the first way's fastest says more where other work disturbs the machine.
    Memory is the highest: of a GPU as its allocator counts it, else of the process. Writes ``NAME-MODEL.json`` and
    ``.md``.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    costs: dict[str, list[Cost]] = {way: [] for way in ways}
    with torch.inference_mode():
        for run in ways.values():
            run()
        for number in range(options.rounds):
            for way, run in ways.items():
                costs[way].append(measured(device, run, clock)[1])
            print(f"round {number + 1} of {options.rounds}", flush=True)
    first, plain = next(iter(costs.items()))
    what = machine(device)
    seconds = statistics.median(seconds for seconds, _ in plain)
    text = (
        f"{options.model}, {options.batch} image(s) of {options.pixels or SIZES[options.model]} pixels at a time, "
        f"{options.steps} steps, {what}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, {options.rounds} rounds; {first} {seconds:.2f} s.\n\n"
        f"| way | time over {first} | fastest over fastest | memory over {first} |\n|---|---|---|---|\n"
    )
    rows = []
    for way, results in costs.items():
        ratios = [seconds / base for (seconds, _), (base, _) in zip(results, plain, strict=True)]
        memory = [peak / base for (_, peak), (_, base) in zip(results, plain, strict=True) if peak is not None and base]
        fastest = min(seconds for seconds, _ in results) / min(seconds for seconds, _ in plain)
        rows.append({"way": way, "time": ratios, "fastest": fastest, "memory": memory})
        text += (
            f"| {way} | {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) | {fastest:.3f} "
            f"| {f'{statistics.median(memory):.3f}' if memory else 'not known'} |\n"
        )
    record = {"made": {**vars(options), "out": "", "machine": what}, "rows": rows}
    (options.out / f"{name}-{options.model}.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    (options.out / f"{name}-{options.model}.md").write_text(text, encoding="utf-8")
    print(text)
