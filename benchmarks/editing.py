"""What editing costs: time and memory of sampling a source and its edit over sampling both prompts without editing.

    python benchmarks/editing.py [--model hrv-mini] [--device cpu] [--rounds 5] [--out FOLDER]

Every round samples the same batch of two plainly, with plain prompt-to-prompt, with an HRV, with a local blend too, and
with an HRV by explicit maps, in turn; windows are open throughout. ``sd15`` and ``sdxl`` are UNets of full size with
random weights. Needs a host on COMFYUI_PATH. Writes ``editing-MODEL.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
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
import comfy.sample
import numpy as np
import torch
from hrv_pack.benchmarks.measuring import add_options, compare, latent_side, load
from hrv_pack.host.editing.prompts import add_row, edit_prompt, with_local_blend
from hrv_pack.host.mechanism import with_mechanism
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.prompts.carried import TOKEN_MAP_KEY
from hrv_pack.hrv.editing.edit import EditWindows, WordEdit, is_small, with_concept
from hrv_pack.hrv.progress import Window
from hrv_pack.hrv.prompts.tokens import PromptWord, TokenMap
from hrv_pack.hrv.relevance.vectors import HRV

SOURCE, TARGET = ("red", "circle", "left"), ("blue", "circle", "left")
OPEN = EditWindows(Window(), Window())
BLUE = 1


def prompt_of(words: tuple[str, ...], conditioning: Any) -> Any:
    """A conditioning of random numbers, or of any prompt, that is said to have these words."""
    places = tuple(PromptWord(word, (1 + place,)) for place, word in enumerate(words))
    ((tensor, extras),) = conditioning
    return [[tensor, {**extras, TOKEN_MAP_KEY: TokenMap(" ".join(words), places, tensor.shape[1])}]]


def by_explicit_maps(model: Any, hrv: HRV, latent_positions: int) -> Any:
    """A clone that forms the maps of both rows of the positive prompt and exchanges them, as the papers do."""
    layout = head_layout(model)

    def heads_of(part: torch.Tensor, count: int) -> torch.Tensor:
        return part.unflatten(-1, (count, -1)).transpose(1, 2)

    def attend(q: Any, k: Any, v: Any, extra: dict[str, Any], change: Callable[[torch.Tensor], None]) -> torch.Tensor:
        queries, keys, values = (heads_of(part, extra["n_heads"]) for part in (q, k, v))
        maps = (queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5).softmax(-1)
        change(maps.chunk(len(extra["cond_or_uncond"]))[extra["cond_or_uncond"].index(0)])
        return (maps @ values).transpose(1, 2).flatten(2)

    def cross(factors: torch.Tensor) -> Callable[..., torch.Tensor]:
        def change(maps: torch.Tensor) -> None:
            kept = maps[1, ..., BLUE] * factors
            maps[1] = maps[0]
            maps[1, ..., BLUE] = kept

        return lambda q, k, v, extra: attend(q, k, v, extra, change)

    def itself(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
        def change(maps: torch.Tensor) -> None:
            if is_small(OPEN.size, q.shape[1], latent_positions):
                maps[1] = maps[0]

        return attend(q, k, v, extra, change)

    clone = model.clone()
    for layer in layout.layers:
        row = torch.tensor(hrv.values[0, layout.head_slice(layer.key)])
        clone.set_model_attn2_replace(cross(row.to(model.load_device)[:, None]), *layer.key)
        clone.set_model_attn1_replace(itself, *layer.key)
    return clone


def ways(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Ways to make the images, by name; plain sampling of the same batch comes first."""
    device = comfy.model_management.get_torch_device()
    model, _, one, other = load(options.model, device)
    negative = other
    source, target = prompt_of(SOURCE, one), prompt_of(TARGET, other)
    layout = head_layout(model)
    values = np.random.default_rng(0).uniform(0, 3, (1, layout.head_count)).astype(np.float32)
    hrv = HRV(values, ("Color",), layout)

    def by_concept(positions: tuple[int, ...]) -> WordEdit:
        return with_concept(hrv, "Color", positions)

    side, channels = latent_side(options, model), model.get_model_object("latent_format").latent_channels
    latent = add_row({"samples": torch.zeros(options.batch, channels, side, side)}, 2)
    noise = comfy.sample.prepare_noise(latent["samples"], 0, latent["batch_index"])
    plain, _ = edit_prompt(source, target, OPEN)
    edited, _ = edit_prompt(source, target, OPEN, for_changed=by_concept)
    blended, _ = with_local_blend(edited, latent, [], threshold=0.3, window=Window(0.2, 1.0), size=OPEN.size)
    ready = with_mechanism(model)

    def sample(chosen: Any, positive: Any) -> None:
        comfy.sample.sample(
            chosen, noise, options.steps, 5.0, "euler", "normal", positive, negative, latent["samples"],
            disable_pbar=True, seed=0,
        )  # fmt: skip

    made: dict[str, Callable[[], None]] = {
        "plain sampling": lambda: sample(model.clone(), plain),
        "P2P": lambda: sample(ready, plain),
        "P2P-HRV": lambda: sample(ready, edited),
        "P2P-HRV with local blend": lambda: sample(ready, blended),
    }
    if not options.without_maps:
        exact = by_explicit_maps(model, hrv, side * side)
        made["P2P-HRV by explicit maps"] = lambda: sample(exact, plain)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    options = parser.parse_args()
    compare(options, comfy.model_management.get_torch_device(), "editing", ways(options))


if __name__ == "__main__":
    main()
