"""How often HRV-mini reads a word with two meanings as a color or as a plant, unsteered and steered.

    python benchmarks/two_meanings.py [--seeds 8] [--out FOLDER]

Prompts are "a rose circle" and their like: every two-meaning word with every shape. All ways of steering get the same
starting noise; the ground-truth scorer reads the pictures. The shuffled row adjusts with the HRV's elements in random
order: what any change of that size would do. Needs a host on COMFYUI_PATH. Writes ``two_meanings.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections import Counter
from collections.abc import Callable
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
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.prompts.encoding import encode_prompt
from hrv_pack.hrv.controls.control import Control, adjust, strengthen
from hrv_pack.hrv.progress import Window
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.mini.evaluation import wilson_interval
from hrv_pack.mini.scorer import meaning, read_pictures
from hrv_pack.mini.world import SHAPES, TWO_MEANINGS

MEANINGS = ("color", "plant", "both", "neither")
Positions = tuple[int, ...]


def shuffled(hrv: HRV) -> HRV:
    """The HRV with the elements of all rows in one random order."""
    order = np.random.default_rng(0).permutation(hrv.layout.head_count)
    return HRV(hrv.values[:, order], hrv.concepts, hrv.layout)


def ways(hrv: HRV) -> dict[str, Callable[[Positions], Control] | None]:
    """Name of the row -> the control at a word's positions."""
    window = Window()
    return {
        "unsteered": None,
        "strengthened: Color": lambda p: strengthen(hrv, "Color", p, 1.0, window, None),
        "adjusted: Color, not Plants": lambda p: adjust(hrv, "Color", "Plants", p, 1.0, window, None),
        "adjusted: Plants, not Color": lambda p: adjust(hrv, "Plants", "Color", p, 1.0, window, None),
        "shuffled: Color, not Plants": lambda p: adjust(shuffled(hrv), "Color", "Plants", p, 1.0, window, None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=8, help="images per prompt")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=5.0)
    parser.add_argument("--hrv", type=Path, default=PACK_ROOT / "hrv_presets" / "hrvs" / "hrv-mini.safetensors")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    hrv = load_hrv(options.hrv)
    counts: dict[str, Counter[str]] = {}
    with torch.inference_mode():
        model, clip, vae = load_mini()
        negative = encode_prompt(clip, "")[0]
        latent = torch.zeros(options.seeds, 12, 16, 16)
        noise = comfy.sample.prepare_noise(latent, 0)
        for name, control in ways(hrv).items():
            counts[name] = Counter()
            for word in TWO_MEANINGS:
                for shape in SHAPES:
                    positive: Any = encode_prompt(clip, f"a {word} {shape}")[0]
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
    write(options, counts)


def write(options: argparse.Namespace, counts: dict[str, Counter[str]]) -> None:
    """The table with 95 % intervals, and everything that made it."""
    lines = ["| | " + " | ".join(MEANINGS) + " | images |", "|---" * (len(MEANINGS) + 2) + "|"]
    for name, found in counts.items():
        total = sum(found.values())
        cells = []
        for word in MEANINGS:
            low, high = wilson_interval(found[word], total)
            cells.append(f"{found[word] / total:.2f} ({low:.2f} to {high:.2f})")
        lines.append(f"| {name} | {' | '.join(cells)} | {total} |")
    (options.out / "two_meanings.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    record = {
        "counts": counts,
        "steps": options.steps,
        "cfg": options.cfg,
        "seeds": options.seeds,
        "hrv": options.hrv.name,
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    (options.out / "two_meanings.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
