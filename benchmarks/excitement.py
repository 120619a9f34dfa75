"""What Attend and Excite costs: time and memory of its updates over plain sampling.

    python benchmarks/excitement.py [--model sd15] [--device cuda] [--rounds 5] [--out FOLDER]
    python benchmarks/excitement.py --count --model sd15 [--batch 1] [--out FOLDER]

Every round samples the same images plainly, with one update of plain A&E or of A&E-HRV in each of the first half of the
steps, and with activation checkpointing, in turn; and makes the same number of plain passes forward and back through
the UNet, which is the least that gradients can cost. ``sd15`` and ``sdxl`` are UNets of full size with random weights.
With ``--count`` nothing is computed: the memory of one update in half precision is counted from the shapes of all
tensors. Needs a host on COMFYUI_PATH. Writes ``excitement-MODEL.json`` and ``.md``, or ``excitement-memory-MODEL``.
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
import numpy as np
import torch
from hrv_pack.benchmarks.counting import count_update, unfilled_model, weight_bytes
from hrv_pack.benchmarks.measuring import add_options, compare, latent_side, load, sampling
from hrv_pack.host.attend_and_excite.subjects import excite
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.prompts.carried import TOKEN_MAP_KEY
from hrv_pack.host.runs.gradients import gradients
from hrv_pack.hrv.attend_and_excite.settings import ExcitementSettings
from hrv_pack.hrv.prompts.tokens import PromptWord, TokenMap
from hrv_pack.hrv.relevance.vectors import HRV

WORDS = ("circle", "night")
CONCEPTS = ("One", "Other")
SETTINGS = ExcitementSettings(step_size=1e-3, thresholds=())

Run = Callable[[], None]


def excited(model: Any, positive: Any, hrv: HRV | None, checkpointing: bool) -> tuple[Any, Any]:
    subjects = list(zip(WORDS, CONCEPTS if hrv else ("", ""), strict=True))
    return excite(model, positive, subjects, hrv, SETTINGS, checkpointing=checkpointing)[:2]


def forward_and_back(options: argparse.Namespace, model: Any, positive: Any, device: torch.device) -> Run:
    """As many bare passes through the UNet with a gradient by its input as the updates of a run."""
    unet, updates = model.model.diffusion_model, options.steps // 2
    side = latent_side(options, model)
    dtype = model.model.get_dtype_inference()
    channels = unet.in_channels
    context = positive[0][0].to(device, dtype).expand(options.batch, -1, -1)
    more = {"y": torch.zeros(options.batch, unet.adm_in_channels, dtype=dtype)} if unet.num_classes else {}

    def run() -> None:
        comfy.model_management.load_models_gpu([model])
        for _ in range(updates):
            with gradients():
                x = torch.randn(options.batch, channels, side, side, device=device, dtype=dtype).requires_grad_(True)
                times = torch.full((options.batch,), 500.0, device=device)
                on_device = {name: value.to(device) for name, value in more.items()}
                unet(x, times, context=context.clone(), transformer_options={}, **on_device).sum().backward()

    return run


def ways(options: argparse.Namespace, device: torch.device) -> dict[str, Run]:
    """Ways to make the images, by name; plain sampling comes first."""
    model, clip, positive, negative = load(options.model, device)
    if clip is None:
        words = tuple(PromptWord(word, (3 + place,)) for place, word in enumerate(WORDS))
        positive[0][1][TOKEN_MAP_KEY] = TokenMap(" ".join(WORDS), words, positive[0][0].shape[1])
    layout = head_layout(model)
    values = np.random.default_rng(0).uniform(0, 2, (2, layout.head_count)).astype(np.float32)
    hrv = HRV(values, CONCEPTS, layout)
    sample = sampling(options, model, negative)
    made: dict[str, Run] = {"plain sampling": lambda: sample(model.clone(), positive)}
    for name, own in (("A&E", None), ("A&E-HRV", hrv)):
        for more, checkpointing in (("", False), (", checkpointing", True)):
            one = excited(model, positive, own, checkpointing)
            made[name + more] = lambda one=one: sample(*one)  # type: ignore[misc]
    made["forward and back alone"] = forward_and_back(options, model, positive, device)
    return made


def count(options: argparse.Namespace) -> None:
    """Write and print the memory of one update, way by way."""
    model = unfilled_model({"sd15": "SD 1.x", "sdxl": "SDXL"}[options.model], torch.float16)
    width, side = model.model.model_config.unet_config["context_dim"], latent_side(options, model)
    pooled = {"pooled_output": torch.zeros(1, 1280)} if options.model == "sdxl" else {}
    words = tuple(PromptWord(word, (3 + place,)) for place, word in enumerate(WORDS))
    positive = [[torch.zeros(1, 77, width), {**pooled, TOKEN_MAP_KEY: TokenMap(" ".join(WORDS), words, 77)}]]
    negative = [[torch.zeros(1, 77, width), dict(pooled)]]
    layout = head_layout(model)
    hrv = HRV(np.ones((2, layout.head_count), np.float32), CONCEPTS, layout)
    weights, rows = weight_bytes(model), []
    text = "| way | weights | graph | at most, weights included |\n|---|---|---|---|\n"
    for name, own in (("A&E", None), ("A&E-HRV", hrv)):
        for more, checkpointing in (("", False), (", checkpointing", True)):
            _, prompt = excited(model, positive, own, checkpointing)
            latent = torch.zeros(options.batch, 4, side, side)
            counted = count_update(model, prompt, negative, latent)
            rows.append({"way": name + more, "weights": weights, **counted._asdict()})
            sizes = (weights, counted.kept, weights + counted.peak)
            text += f"| {name}{more} | {' | '.join(f'{size / 1e9:.2f} GB' for size in sizes)} |\n"
    options.out.mkdir(parents=True, exist_ok=True)
    made = {"model": options.model, "batch": options.batch, "side": 8 * side, "torch": torch.__version__}
    path = options.out / f"excitement-memory-{options.model}"
    path.with_suffix(".json").write_text(json.dumps({"made": made, "rows": rows}, indent=2) + "\n", "utf-8")
    path.with_suffix(".md").write_text(text, "utf-8")
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--count", action="store_true", help="count the memory of sd15 or sdxl from shapes alone")
    options = parser.parse_args()
    if options.count:
        if options.model == "hrv-mini":
            parser.error("--count is for --model sd15 or sdxl")
        count(options)
        return
    device = comfy.model_management.get_torch_device()
    compare(options, device, "excitement", ways(options, device))


if __name__ == "__main__":
    main()
