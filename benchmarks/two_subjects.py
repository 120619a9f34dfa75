"""How often HRV-mini shows both things of a prompt: as it is, with Attend-and-Excite, and with A&E-HRV.

    python benchmarks/two_subjects.py [--kinds KIND ...] [--prompts 100] [--seeds 2] [--causal FILE] [--out FOLDER]

Kinds of prompts, the first two as in the model's training, the others not: it has never seen two plants, a plant on the
left, shapes without a color beside each other, or positions in a prompt of two things ("sides"), which it knows from
prompts of one. All ways get the same starting noise; the ground-truth scorer reads the pictures. "Both there" is both
shapes and plants, whatever their colors; "all right" is every color bound to its shape as well; "won" and "lost" count
the images that are all right with this way alone, and with plain sampling alone. Settings are to be chosen with another
``--seed`` than the one reported. Needs a host on COMFYUI_PATH. Writes ``two_subjects.json`` and ``.md`` and a sheet of
pictures for each kind.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
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
from hrv_pack.benchmarks.measuring import machine
from hrv_pack.host.attend_and_excite.subjects import excite
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.prompts.encoding import encode_prompt
from hrv_pack.hrv.attend_and_excite.settings import ExcitementSettings, parse_thresholds
from hrv_pack.hrv.drawing.grid import picture_grid
from hrv_pack.hrv.relevance.arithmetic import clamp
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.mini.evaluation import Tally
from hrv_pack.mini.scorer import Reading, read_pictures
from hrv_pack.mini.world import PLAIN_COLORS, PLANTS, SCENES, SHAPES

PLAIN, EXCITED, EXCITED_HRV = "plain sampling", "A&E", "A&E-HRV"
# Elements of the causal HRV of HRV-mini reach 35; those of the one that ships 7.
CLAMP = 3.0
CAUSAL, CLAMPED = "A&E-HRV, causal", f"A&E-HRV, causal, at most {CLAMP:g}"
WAYS = (PLAIN, EXCITED, EXCITED_HRV, CAUSAL, CLAMPED)
KINDS = (
    "two shapes", "shape and plant", "plant and shape", "two plants", "shapes alone", "shape and plant on sides",
    "colored shapes on sides", "colored shapes, one side",
)  # fmt: skip
SHEET_COLUMNS = 8

# Whether an image is all right in a way and in plain sampling: won, and lost.
_CHANGES = ((True, False), (False, True))

# A thing that a prompt asks for: its color or nothing, and its shape or plant.
Thing = tuple[str, str]


@dataclass(frozen=True)
class SubjectPrompt:
    """A prompt and its two things."""

    text: str
    things: tuple[Thing, Thing]

    def there(self, reading: Reading) -> bool:
        return sorted(_names(reading)) == sorted(name for _, name in self.things)

    def right(self, reading: Reading) -> bool:
        """Everything there, and every color that is asked for on its own thing."""
        shown = {thing.shape or thing.plant: thing.color for thing in reading.things}
        return self.there(reading) and all(not color or shown[name] == color for color, name in self.things)


def _names(reading: Reading) -> list[str]:
    return [thing.shape or thing.plant for thing in reading.things]


def draw_prompts(kind: str, count: int, seed: int) -> list[SubjectPrompt]:
    """Prompts of one kind, from its own generator."""
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    plants = [plant for plant in PLANTS if plant not in ("rose", "violet", "mint")]
    found = []
    for _ in range(count):
        colors = [str(color) for color in rng.choice(list(PLAIN_COLORS), 2, replace=False)]
        shapes = [str(shape) for shape in rng.choice(SHAPES, 2, replace=False)]
        potted = [str(plant) for plant in rng.choice(plants, 2, replace=False)]
        things: tuple[Thing, Thing] = {
            "two shapes": ((colors[0], shapes[0]), (colors[1], shapes[1])),
            "shape and plant": ((colors[0], shapes[0]), ("", potted[0])),
            "plant and shape": (("", potted[0]), (colors[0], shapes[0])),
            "two plants": (("", potted[0]), ("", potted[1])),
            "shapes alone": (("", shapes[0]), ("", shapes[1])),
            "shape and plant on sides": (("", shapes[0]), ("", potted[0])),
            "colored shapes on sides": ((colors[0], shapes[0]), (colors[1], shapes[1])),
            "colored shapes, one side": ((colors[0], shapes[0]), (colors[1], shapes[1])),
        }[kind]
        named = [" ".join(part for part in ("a", color, name) if part) for color, name in things]
        text = " and ".join(named)
        if "side" in kind:
            right = " on the right" if "sides" in kind else ""
            text = f"{named[0]} on the left and {named[1]}{right}, {rng.choice(list(SCENES))}"
        found.append(SubjectPrompt(text, things))
    return found


class Studio:
    """HRV-mini, and what it makes of prompts in every way."""

    def __init__(
        self,
        mini: tuple[Any, Any, Any],
        hrvs: dict[str, HRV],
        settings: ExcitementSettings,
        steps: int,
        cfg: float,
        seeds: int,
    ):
        self.model, self.clip, self.vae = mini
        self.hrvs, self.settings, self.steps, self.cfg = hrvs, settings, steps, cfg
        self.negative = encode_prompt(self.clip, "")[0]
        self.latent = torch.zeros(seeds, 12, 16, 16)

    def pictures(self, way: str, asked: SubjectPrompt, seed: int) -> tuple[torch.Tensor, int]:
        """RGB [seeds, 3, 128, 128] in 0..1 of a prompt, and how many updates they took."""
        noise = comfy.sample.prepare_noise(self.latent, seed)
        positive: Any = encode_prompt(self.clip, asked.text)[0]
        model, log = self.model, None
        if way != PLAIN:
            subjects = [
                (name, ("Shape" if name in SHAPES else "Plants") if way in self.hrvs else "")
                for _, name in asked.things
            ]
            model, positive, log = excite(model, positive, subjects, self.hrvs.get(way), self.settings)
        samples = comfy.sample.sample(
            model, noise, self.steps, self.cfg, "euler", "normal", positive, self.negative, self.latent,
            disable_pbar=True, seed=seed,
        )  # fmt: skip
        updates = log.find(samples.cpu().numpy()).updates if log is not None else 0
        return self.vae.decode(samples).movedim(-1, 1), updates


def studio_of(options: argparse.Namespace) -> Studio:
    """As the options say."""
    hrvs = {EXCITED_HRV: load_hrv(options.hrv)}
    if options.causal:
        causal = load_hrv(options.causal)
        hrvs |= {CAUSAL: causal, CLAMPED: clamp(causal, CLAMP)}
    settings = ExcitementSettings(
        step_size=options.step_size, thresholds=parse_thresholds(options.thresholds), iterations=options.iterations
    )
    return Studio(load_mini(), hrvs, settings, options.steps, options.cfg, options.seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=100, help="of each kind")
    parser.add_argument("--seeds", type=int, default=2, help="images of each prompt")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="all by default")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--step-size", type=float, default=ExcitementSettings.step_size)
    parser.add_argument("--thresholds", default="0: 0.05, 0.2: 0.5, 0.4: 0.8")
    parser.add_argument("--iterations", type=int, default=ExcitementSettings.iterations)
    parser.add_argument("--hrv", type=Path, default=PACK_ROOT / "hrv_presets" / "hrvs" / "hrv-mini.safetensors")
    parser.add_argument("--causal", type=Path, help="a causal HRV to compare with")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    options.ways = options.ways or [way for way in WAYS if options.causal or way not in (CAUSAL, CLAMPED)]
    if not options.causal and not {CAUSAL, CLAMPED}.isdisjoint(options.ways):
        parser.error("a causal HRV is needed: --causal FILE")
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        studio = studio_of(options)
        for kind in options.kinds:
            prompts = draw_prompts(kind, options.prompts, options.seed)
            sheet = []
            plain: list[bool] | None = None
            for way in options.ways:
                row, first, right = measure(studio, kind, way, prompts, 1000 * options.seed, plain)
                plain = right if way == PLAIN else plain
                rows.append(row)
                sheet.append(first)
                write(options, rows)
            labels = [asked.text for asked in prompts[:SHEET_COLUMNS]]
            name = f"two_subjects-{kind.replace(',', '').replace(' ', '-')}.png"
            picture_grid(sheet, options.ways, labels, title=f"HRV-mini: {kind}").save(options.out / name)


def measure(
    studio: Studio, kind: str, way: str, prompts: Sequence[SubjectPrompt], seed: int, plain: Sequence[bool] | None
) -> tuple[dict[str, Any], list[np.ndarray], list[bool]]:
    """A row of the table, the first picture of each of the first prompts, and which pictures are all right.

    ``seed`` is that of the first prompt, and ``plain`` says which of plain sampling's are.
    """
    there, right, updates, started = Tally(), Tally(), 0, time.perf_counter()
    first: list[np.ndarray] = []
    found: list[bool] = []
    for number, asked in enumerate(prompts):
        pictures, made = studio.pictures(way, asked, seed + number)
        updates += made
        for reading in read_pictures(pictures):
            there.add(asked.there(reading))
            found.append(asked.right(reading))
            right.add(found[-1])
        if len(first) < SHEET_COLUMNS:
            first.append((pictures[0].movedim(0, -1).clamp(0, 1) * 255).round().byte().numpy())
    won, lost = (
        ("", "")
        if plain is None
        else tuple(str(sum(pair == wanted for pair in zip(found, plain, strict=True))) for wanted in _CHANGES)
    )
    cells = [kind, way, str(there), str(right), won, lost, str(there.total), f"{updates / len(prompts):.1f}"]
    print(" | ".join(cells), flush=True)
    row = {
        "kind": kind, "way": way, "there": there.to_json(), "right": right.to_json(), "won": won, "lost": lost,
        "updates": updates / len(prompts), "seconds": time.perf_counter() - started, "cells": cells,
    }  # fmt: skip
    return row, first, found


def write(options: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> None:
    """The table with 95 % intervals, and everything that made it."""
    head = ["prompts", "way", "both there", "all right", "won", "lost", "images", "updates a run"]
    lines = [head, ["---"] * len(head), *(row["cells"] for row in rows)]
    (options.out / "two_subjects.md").write_text("".join(f"| {' | '.join(cells)} |\n" for cells in lines), "utf-8")
    made = {
        **vars(options),
        "out": "",
        "hrv": options.hrv.name,
        "causal": str(options.causal),
        "machine": machine(torch.device("cpu")),
    }
    record = {"made": {**made, "torch": torch.__version__}, "rows": rows}
    (options.out / "two_subjects.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
