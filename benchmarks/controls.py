"""What controls cost: time and memory of sampling over the plain model.

    python benchmarks/controls.py [--model hrv-mini] [--device cpu] [--rounds 5] [--out FOLDER]

Every round samples the same images plainly, with a model that has the mechanism and a prompt without controls, with one
control, with four (one of them in a window), with 16 heads anywhere that read another prompt, and with the same four
controls by explicit maps, in turn. ``sd15`` and ``sdxl`` are UNets of full size with random weights. On a CPU time is
the processor's, which other work on the machine disturbs less. Needs a host on COMFYUI_PATH. Writes
``controls-MODEL.json`` and ``.md``.
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

enter_host(gpu="cuda" in sys.argv)
import_pack()

import comfy.model_management
import numpy as np
import torch
from hrv_pack.benchmarks.measuring import add_options, compare, load, sampling
from hrv_pack.host.mechanism import add_control, add_reading, with_mechanism
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.prompts.carried import CONTROLS_KEY, TOKEN_MAP_KEY
from hrv_pack.hrv.controls.control import Control
from hrv_pack.hrv.controls.reading import Reading
from hrv_pack.hrv.heads.layout import HeadLayout, LayerKey
from hrv_pack.hrv.progress import Window
from hrv_pack.hrv.prompts.tokens import PromptWord, TokenMap

# Prompts of random numbers have these words; the windows of four controls, one a word.
WORDS = ("red", "circle", "left", "night")
WINDOWS = (Window(), Window(), Window(0.0, 0.6), Window())
# Heads that read another prompt.
READING_HEADS = 16


def with_controls(model: Any, positive: Any, count: int) -> tuple[Any, Any]:
    """The first ``count`` controls, each with random factors of its own."""
    layout = head_layout(model)
    for number in range(count):
        factors = np.random.default_rng(number).uniform(0, 3, layout.head_count).astype(np.float32)

        def control(positions: tuple[int, ...], factors: Any = factors, window: Window = WINDOWS[number]) -> Control:
            return Control(factors, positions, layout, window=window)

        model, positive = add_control(model, positive, [WORDS[number]], control)
    return model, positive


def with_reading(model: Any, positive: Any) -> tuple[Any, Any]:
    """Heads anywhere in the model that read another prompt of as many tokens."""
    layout = head_layout(model)
    gates = np.zeros(layout.head_count, np.float32)
    gates[np.random.default_rng(0).permutation(layout.head_count)[:READING_HEADS]] = 1.0
    other = [[torch.randn_like(positive[0][0]), {}]]
    return add_reading(model, positive, other, lambda _: Reading(gates, layout))


def by_explicit_maps(model: Any, positive: Any) -> Any:
    """A clone whose positive rows form their maps and multiply the columns, as the method's first implementation does.

    The window is left out, so this is less than what the controls do.
    """
    layout: HeadLayout = head_layout(model)
    weights = np.ones((layout.head_count, positive[0][0].shape[1]), dtype=np.float32)
    for control in positive[0][1][CONTROLS_KEY]:
        weights[:, list(control.positions)] *= control.weights[:, None]
    device = model.load_device

    def replacer(key: LayerKey) -> Callable[..., torch.Tensor]:
        own = torch.from_numpy(weights[layout.head_slice(key)]).to(device)[:, None]

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
            chunks = len(extra["cond_or_uncond"])
            queries, keys, values = (part.unflatten(-1, (extra["n_heads"], -1)).transpose(1, 2) for part in (q, k, v))
            maps = (queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5).softmax(-1)
            maps.chunk(chunks)[extra["cond_or_uncond"].index(0)].mul_(own)
            return (maps @ values).transpose(1, 2).flatten(2)

        return attend

    clone = model.clone()
    for layer in layout.layers:
        clone.set_model_attn2_replace(replacer(layer.key), *layer.key)
    return clone


def ways(options: argparse.Namespace, device: torch.device) -> dict[str, Callable[[], None]]:
    """Ways to make the images, by name; plain sampling comes first."""
    model, clip, positive, negative = load(options.model, device)
    if clip is None:
        words = tuple(PromptWord(word, (2 + place,)) for place, word in enumerate(WORDS))
        positive[0][1][TOKEN_MAP_KEY] = TokenMap(" ".join(WORDS), words, positive[0][0].shape[1])
    sample = sampling(options, model, negative)
    made: dict[str, Callable[[], None]] = {
        "plain sampling": lambda: sample(model.clone(), positive),
        "0 controls": lambda: sample(with_mechanism(model), positive),
    }
    one, four = (with_controls(model, positive, count) for count in (1, 4))
    made["1 control"] = lambda: sample(*one)
    made["4 controls"] = lambda: sample(*four)
    reading = with_reading(model, positive)
    made[f"{READING_HEADS} heads read another prompt"] = lambda: sample(*reading)
    if not options.without_maps:
        exact = by_explicit_maps(model, four[1])
        made["4 controls by explicit maps"] = lambda: sample(exact, positive)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    options = parser.parse_args()
    device = comfy.model_management.get_torch_device()
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    compare(options, device, "controls", ways(options, device), clock)


if __name__ == "__main__":
    main()
