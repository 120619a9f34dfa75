"""How often HRV-mini reads a word with two meanings as either, unsteered and steered.

    python benchmarks/two_meanings.py [--weights FILE] [--hrv NAME=FILE ...] [--seeds 8] [--out FOLDER]

Prompts are "the forest circle" and their like: every word that names a color and a scene (with ``--other Plants``: a
plant) with every shape. All ways of steering get the same starting noise; the ground-truth scorer reads the pictures.
The shuffled row adjusts with the HRV's elements in random order: what any change of that size would do. Needs a host on
COMFYUI_PATH. Writes ``two_meanings.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from host_process import enter_host
from pack_import import PACK_ROOT, import_pack

enter_host()
import_pack()

import comfy.sample
import numpy as np
import torch
from hrv_pack.host.mechanism import add_control
from hrv_pack.host.mini.loader import WEIGHTS, load_mini
from hrv_pack.host.prompts.encoding import encode_prompt
from hrv_pack.hrv.controls.control import Control, adjust, strengthen
from hrv_pack.hrv.progress import Window
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.mini.evaluation import wilson_interval
from hrv_pack.mini.scorer import meaning, read_pictures
from hrv_pack.mini.world import PLANT_COLORS, SCENE_COLORS, SHAPES

COLOR = "Color"
WORDS = {"Scene": ("scene", tuple(SCENE_COLORS)), "Plants": ("plant", tuple(PLANT_COLORS))}
"""The other concept of words that name a color: how its reading is called, and the words."""

Positions = tuple[int, ...]


def shuffled(hrv: HRV) -> HRV:
    """The HRV with the elements of all rows in one random order."""
    order = np.random.default_rng(0).permutation(hrv.layout.head_count)
    return HRV(hrv.values[:, order], hrv.concepts, hrv.layout)


def ways(name: str, hrv: HRV, other: str, clamp: float | None) -> dict[str, Callable[[Positions], Control]]:
    """Name of the row -> the control at a word's positions."""
    window = Window()
    return {
        f"{name}, strengthened: {COLOR}": lambda p: strengthen(hrv, COLOR, p, 1.0, window, clamp),
        f"{name}, strengthened: {other}": lambda p: strengthen(hrv, other, p, 1.0, window, clamp),
        f"{name}, adjusted: {COLOR}, not {other}": lambda p: adjust(hrv, COLOR, other, p, 1.0, window, clamp),
        f"{name}, adjusted: {other}, not {COLOR}": lambda p: adjust(hrv, other, COLOR, p, 1.0, window, clamp),
        f"{name} shuffled, adjusted: {COLOR}, not {other}": lambda p: adjust(
            shuffled(hrv), COLOR, other, p, 1.0, window, clamp
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8, help="images per prompt")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=5.0)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="exported weights of HRV-mini")
    parser.add_argument("--hrv", action="append", default=[], metavar="NAME=FILE", help="an HRV to steer by")
    parser.add_argument("--clamp", type=float, help="the highest element of an HRV that counts")
    parser.add_argument("--other", choices=list(WORDS), default="Scene", help="the concept of the other meaning")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    given = dict(one.split("=", 1) for one in options.hrv)
    files = given or {"published": PACK_ROOT / "hrv_presets" / "hrvs" / "hrv-mini.safetensors"}
    called, words = WORDS[options.other]
    steered_by: dict[str, Callable[[Positions], Control] | None] = {"unsteered": None}
    for name, file in files.items():
        steered_by |= ways(name, load_hrv(Path(file)), options.other, options.clamp)
    counts: dict[str, Counter[str]] = {}
    with torch.inference_mode():
        model, clip, vae = load_mini(options.weights)
        negative = encode_prompt(clip, "")[0]
        latent = torch.zeros(options.seeds, 12, 16, 16)
        noise = comfy.sample.prepare_noise(latent, 0)
        for name, control in steered_by.items():
            counts[name] = Counter()
            for word in words:
                for shape in SHAPES:
                    positive: Any = encode_prompt(clip, f"the {word} {shape}")[0]
                    steered, tagged = model, positive
                    if control is not None:
                        steered, tagged = add_control(model, positive, [word], control)
                    samples = comfy.sample.sample(
                        steered, noise, options.steps, options.cfg, "euler", "normal", tagged, negative, latent,
                        disable_pbar=True,
                    )  # fmt: skip
                    pictures = vae.decode(samples).movedim(-1, 1)
                    counts[name].update(meaning(reading, word) for reading in read_pictures(pictures))
            print(name, dict(counts[name]), flush=True)
    write(options, counts, (COLOR.lower(), called, "both", "neither"))


def write(options: argparse.Namespace, counts: dict[str, Counter[str]], meanings: Sequence[str]) -> None:
    """The table with 95 % intervals, and everything that made it."""
    lines = ["| | " + " | ".join(meanings) + " | images |", "|---" * (len(meanings) + 2) + "|"]
    for name, found in counts.items():
        total = sum(found.values())
        cells = []
        for word in meanings:
            low, high = wilson_interval(found[word], total)
            cells.append(f"{found[word] / total:.2f} ({low:.2f} to {high:.2f})")
        lines.append(f"| {name} | {' | '.join(cells)} | {total} |")
    (options.out / "two_meanings.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    record = {
        "counts": counts,
        "steps": options.steps,
        "cfg": options.cfg,
        "seeds": options.seeds,
        "weights": options.weights.name,
        "hrvs": options.hrv,
        "clamp": options.clamp,
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    (options.out / "two_meanings.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
