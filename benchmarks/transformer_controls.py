"""What controls and readings cost in a step of a transformer: one block of each kind at its published width.

    python benchmarks/transformer_controls.py [--model Flux] [--pixels 512] [--rounds 5] [--calls] [--out FOLDER]

The blocks have random weights and compute in single precision. Every round makes steps of one prompt plainly, with a
prompt without controls, with one control, with four, and with 6 % of the heads reading another prompt, in turn. Time is
the processor's, which other work on the machine disturbs less. A model of full depth spends nearly all of it in its
blocks. ``--calls`` counts the time of the calls of attention alone, of those that have the text and the image, and
nothing else of the step. Needs a host on COMFYUI_PATH. Writes ``transformer-controls-MODEL.json`` and ``.md``, or
``joint-attention-MODEL`` for calls.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from host_process import enter_host
from pack_import import import_pack

enter_host(gpu=False)
import_pack()

import comfy.ldm.flux.math
import comfy.ldm.lumina.model
import comfy.sample
import numpy as np
import torch
from hrv_pack.benchmarks.measuring import compare
from hrv_pack.host.mechanism import add_control, add_reading, with_mechanism
from hrv_pack.host.models.latents import empty_latent
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.prompts.carried import TOKEN_MAP_KEY
from hrv_pack.hrv.controls.control import Control
from hrv_pack.hrv.controls.reading import Reading
from hrv_pack.hrv.prompts.tokens import PromptWord, TokenMap
from hrv_pack.tests.support.full_size_transformers import FULL_SIZE, of_full_width

# The published models, and the tokens of a prompt as they get them.
MODELS = {
    "Flux": (FULL_SIZE["Flux.1 dev"], 512),
    "ZImage": (FULL_SIZE["Z-Image"], 64),
    "Anima": (FULL_SIZE["Anima"], 512),
}
# Where their attention is called, by what name.
JOINT = {
    "Flux": (comfy.ldm.flux.math, "optimized_attention"),
    "ZImage": (comfy.ldm.lumina.model, "optimized_attention_masked"),
}
WORDS = ("red", "circle", "left", "night")


def prompt(name: str, seed: int) -> Any:
    """A conditioning of random numbers with some words."""
    published, tokens = MODELS[name]
    words = tuple(PromptWord(word, (1 + place,)) for place, word in enumerate(WORDS))
    generator = torch.Generator().manual_seed(seed)
    extras = {"pooled_output": torch.randn(1, 768, generator=generator), "guidance": 3.5}
    extras[TOKEN_MAP_KEY] = TokenMap(" ".join(WORDS), words, tokens)
    return [[torch.randn(1, tokens, published.text, generator=generator), extras]]


def with_controls(model: Any, positive: Any, count: int) -> tuple[Any, Any]:
    """The first ``count`` controls, each with random factors of its own."""
    layout = head_layout(model)
    for number in range(count):
        factors = np.random.default_rng(number).uniform(0, 3, layout.head_count).astype(np.float32)

        def control(positions: tuple[int, ...], factors: Any = factors) -> Control:
            return Control(factors, positions, layout)

        model, positive = add_control(model, positive, [WORDS[number]], control)
    return model, positive


def with_reading(model: Any, positive: Any, other: Any) -> tuple[Any, Any]:
    """6 % of the heads, anywhere in the model, read another prompt."""
    layout = head_layout(model)
    gates = np.zeros(layout.head_count, np.float32)
    gates[np.random.default_rng(0).permutation(layout.head_count)[: max(1, round(0.06 * layout.head_count))]] = 1.0
    return add_reading(model, positive, other, lambda _: Reading(gates, layout))


class Calls:
    """The processor's time in a module's calls of attention that have the most queries."""

    def __init__(self, module: Any, name: str):
        self._called, self._seconds = getattr(module, name), dict[int, float]()
        setattr(module, name, self._call)

    def _call(self, q: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        started = time.process_time()
        made: torch.Tensor = self._called(q, *args, **kwargs)
        length = q.shape[-2]
        self._seconds[length] = self._seconds.get(length, 0.0) + time.process_time() - started
        return made

    def clock(self) -> float:
        return self._seconds[max(self._seconds)] if self._seconds else 0.0


def ways(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Ways to make the steps, by name; the plain one comes first."""
    model, positive = of_full_width(MODELS[options.model][0]), prompt(options.model, 1)
    latent = torch.zeros(empty_latent(model, options.batch, options.pixels, options.pixels))
    noise = comfy.sample.prepare_noise(latent, 0)

    def sample(clone: Any, own: Any) -> None:
        comfy.sample.sample(
            clone, noise, options.steps, 1.0, "euler", "normal", own, own, latent, disable_pbar=True, seed=0
        )

    one, four = (with_controls(model, positive, count) for count in (1, 4))
    reading = with_reading(model, positive, prompt(options.model, 2))
    return {
        "a plain step": lambda: sample(model.clone(), positive),
        "0 controls": lambda: sample(with_mechanism(model), positive),
        "1 control": lambda: sample(*one),
        "4 controls": lambda: sample(*four),
        "6 % of the heads read another prompt": lambda: sample(*reading),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(MODELS), default="Flux")
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", action="store_true", help="the calls of attention alone")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    if options.calls:
        if options.model not in JOINT:
            parser.error(f"--calls is for {' and '.join(JOINT)}, which have one attention for text and image.")
        calls = Calls(*JOINT[options.model])
        compare(options, torch.device("cpu"), "joint-attention", ways(options), calls.clock)
    else:
        compare(options, torch.device("cpu"), "transformer-controls", ways(options), time.process_time)


if __name__ == "__main__":
    main()
