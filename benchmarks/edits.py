"""How well HRV-mini's images are edited by changing one word: P2P-HRV, plain prompt-to-prompt, and asking anew.

    python benchmarks/edits.py [--sources 40] [--out FOLDER]

A source names every attribute of one shape ("a large red striped circle on the left, night"); of every concept one
target names another word. All ways get the same noise. Edits of sources that the ground-truth scorer reads as asked
are counted: "changed" has the target's word, "kept" has all else as the source's picture has it, "both" is an edit
that worked. Shown are shares with Wilson's 95 % intervals, and how far pictures are from their sources. The shuffled
row is P2P-HRV with the HRV's elements in random order. Needs a host on COMFYUI_PATH. Writes ``edits.json``, ``.md``
and ``.png``.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
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
from hrv_pack.host.attention_control import with_mechanism
from hrv_pack.host.mini_loader import load_mini
from hrv_pack.host.prompt_edit import add_row, edit_prompt
from hrv_pack.host.text_encoding import encode_prompt
from hrv_pack.hrv.controls import Window
from hrv_pack.hrv.drawing import INK, LABEL_SIZE, MARGIN, PAPER, draw_text, wrap
from hrv_pack.hrv.editing import EditWindows, WordEdit, with_concept
from hrv_pack.hrv.files import load_hrv
from hrv_pack.hrv.vectors import HRV
from hrv_pack.mini.evaluation import Tally, wilson_interval
from hrv_pack.mini.scorer import Reading, read_pictures
from hrv_pack.mini.world import OFFSETS, PATTERNS, PLAIN_COLORS, SCENES, SHAPES
from PIL import Image, ImageDraw

WORDS: dict[str, tuple[str, ...]] = {
    "Color": tuple(PLAIN_COLORS),
    "Shape": SHAPES,
    "Pattern": PATTERNS,
    # A pattern needs room, and what is huge stays in the center.
    "Size": ("small", "large"),
    "Position": tuple(place for place in OFFSETS if place != "center"),
    "Scene": tuple(SCENES),
}
MEASURES = ("both", "changed", "kept")
# Sources that are sampled together.
BATCH = 16
# A picture in the sheet, in pixels, and how many sources it shows.
SIDE, SHOWN = 96, 2


Case = tuple[dict[str, str], dict[str, str]]
"""A source's words by concept, and for every concept the word of its target."""


@dataclass(frozen=True)
class Way:
    """How edits are made: ends of the windows, the largest self-attention, and whose heads decide."""

    cross: float
    itself: float
    size: float = 1 / 16
    hrv: str = ""

    @property
    def windows(self) -> EditWindows:
        return EditWindows(Window(0.0, self.cross), Window(0.0, self.itself), self.size)


WAYS = {
    "asking anew, same noise": Way(0.0, 0.0),
    "P2P, cross 0.8, self 0.4": Way(0.8, 0.4),
    "P2P, cross 0.4, self 0.4": Way(0.4, 0.4),
    "P2P, cross 0.4, self 0.4 up to 8x8": Way(0.4, 0.4, 1 / 4),
    "P2P-HRV, cross 0.8, self 0.9": Way(0.8, 0.9, hrv="hrv"),
    "P2P-HRV, cross 0.8, self 0.4": Way(0.8, 0.4, hrv="hrv"),
    "P2P-HRV, cross 0.4, self 0.4": Way(0.4, 0.4, hrv="hrv"),
    "P2P-HRV, cross 0.8, self 0.4 up to 8x8": Way(0.8, 0.4, 1 / 4, hrv="hrv"),
    "P2P-HRV shuffled, cross 0.8, self 0.4": Way(0.8, 0.4, hrv="shuffled"),
}


@dataclass
class Found:
    """What a way's edits of one concept came to."""

    tallies: dict[str, Tally] = field(default_factory=lambda: {measure: Tally() for measure in MEASURES})
    distances: list[float] = field(default_factory=list)


def caption(named: dict[str, str]) -> str:
    return (
        f"a {named['Size']} {named['Color']} {named['Pattern']} {named['Shape']} on the {named['Position']}, "
        f"{named['Scene']}"
    )


def shown(reading: Reading) -> dict[str, str]:
    """The attributes of a picture of one shape; nothing for other pictures."""
    if len(reading.things) != 1 or not reading.shapes:
        return {}
    thing = reading.shapes[0]
    return {
        "Color": thing.color,
        "Shape": thing.shape,
        "Pattern": thing.pattern,
        "Size": thing.size,
        "Position": thing.position,
        "Scene": reading.scene,
    }


def draw_cases(count: int, seed: int) -> list[Case]:
    """For every source its words, and for every concept the word of its target."""
    rng = np.random.default_rng(seed)
    cases = []
    for _ in range(count):
        named = {concept: str(rng.choice(words)) for concept, words in WORDS.items()}
        targets = {
            concept: str(rng.choice([word for word in words if word != named[concept]]))
            for concept, words in WORDS.items()
        }
        cases.append((named, targets))
    return cases


class Editor:
    """HRV-mini, asked for a source and all its targets at once."""

    def __init__(self, options: argparse.Namespace):
        model, self.clip, self.vae = load_mini()
        self.model = with_mechanism(model)
        self.negative = encode_prompt(self.clip, "")[0]
        hrv = load_hrv(options.hrv)
        order = np.random.default_rng(0).permutation(hrv.layout.head_count)
        self.hrvs: dict[str, HRV] = {"hrv": hrv, "shuffled": HRV(hrv.values[:, order], hrv.concepts, hrv.layout)}
        self.steps, self.cfg = options.steps, options.cfg

    def pictures(self, named: dict[str, str], targets: dict[str, str], way: Way, seed: int) -> torch.Tensor:
        """RGB [1 + concepts, 3, h, w] in 0..1: the source, then the target of every concept."""
        positive: Any = encode_prompt(self.clip, caption(named))[0]
        latent: Any = {"samples": torch.zeros(1, 12, 16, 16)}
        for number, (concept, word) in enumerate(targets.items()):

            def for_changed(positions: tuple[int, ...], concept: str = concept) -> WordEdit:
                return with_concept(self.hrvs[way.hrv], concept, positions)

            target = encode_prompt(self.clip, caption({**named, concept: word}))[0]
            positive, _ = edit_prompt(positive, target, way.windows, for_changed=for_changed if way.hrv else None)
            latent = add_row(latent, number + 2)
        return self.sampled(positive, comfy.sample.prepare_noise(latent["samples"], seed, latent["batch_index"]))

    def sources(self, cases: Sequence[Case], seeds: Sequence[int]) -> torch.Tensor:
        """RGB [sources, 3, h, w]: sources alone, each from the noise of its own seed."""
        prompts = [encode_prompt(self.clip, caption(named))[0][0][0] for named, _ in cases]
        empty = torch.zeros(1, 12, 16, 16)
        noise = torch.cat([comfy.sample.prepare_noise(empty, seed) for seed in seeds])
        return self.sampled([[torch.cat(prompts), {}]], noise)

    def sampled(self, positive: Any, noise: torch.Tensor) -> torch.Tensor:
        samples = comfy.sample.sample(
            self.model, noise, self.steps, self.cfg, "euler", "normal", positive, self.negative,
            torch.zeros_like(noise), disable_pbar=True, seed=0,
        )  # fmt: skip
        return self.vae.decode(samples).movedim(-1, 1)


def add_source(found: dict[str, Found], targets: dict[str, str], pictures: torch.Tensor) -> None:
    """Count the edits of one source."""
    source, *edits = [shown(reading) for reading in read_pictures(pictures)]
    for number, (concept, word) in enumerate(targets.items()):
        edit = edits[number]
        changed = edit.get(concept) == word
        kept = bool(edit) and all(edit[other] == source[other] for other in source if other != concept)
        for measure, right in (("both", changed and kept), ("changed", changed), ("kept", kept)):
            found[concept].tallies[measure].add(right)
        found[concept].distances.append(float((pictures[number + 1] - pictures[0]).abs().mean()))


def together(found: dict[str, Found], measure: str) -> Tally:
    """A measure over all concepts."""
    tallies = [one.tallies[measure] for one in found.values()]
    return Tally(sum(tally.right for tally in tallies), sum(tally.total for tally in tallies))


def cell(tally: Tally) -> str:
    low, high = wilson_interval(tally.right, tally.total)
    return f"{tally.right / max(1, tally.total):.2f} ({low:.2f} to {high:.2f})"


def write(options: argparse.Namespace, results: dict[str, dict[str, Found]], sources: int) -> None:
    """The tables with 95 % intervals, and everything that made them."""
    text = (
        f"{sources} of {options.sources} sources were as asked, {len(WORDS)} edits each; {options.steps} steps of "
        f"euler, CFG {options.cfg:g}.\n\n| way | {' | '.join(MEASURES)} | distance |\n|---|---|---|---|---|\n"
    )
    for way, found in results.items():
        distance = np.mean([distance for one in found.values() for distance in one.distances])
        text += f"| {way} | {' | '.join(cell(together(found, measure)) for measure in MEASURES)} | {distance:.3f} |\n"
    text += f"\nEdits that worked, by concept:\n\n| way | {' | '.join(WORDS)} |\n|---{'|---' * len(WORDS)}|\n"
    for way, found in results.items():
        text += f"| {way} | {' | '.join(cell(found[concept].tallies['both']) for concept in WORDS)} |\n"
    (options.out / "edits.md").write_text(text, encoding="utf-8")
    record = {
        "results": {
            way: {
                concept: {name: tally.to_json() for name, tally in one.tallies.items()} for concept, one in of.items()
            }
            for way, of in results.items()
        },
        "sources": sources,
        "made": {**vars(options), "out": "", "hrv": options.hrv.name},
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    (options.out / "edits.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(text)


def draw_sheet(path: Path, cases: list[Case], pictures: dict[str, list[torch.Tensor]]) -> None:
    """The pictures of some sources: a row for each way, the source and the edit of every concept across."""
    label, head, gap = 250, 44, 8
    width = 2 * MARGIN + label + (len(WORDS) + 1) * (SIDE + gap)
    block = head + len(pictures) * (SIDE + gap)
    sheet = Image.new("RGB", (width, 2 * MARGIN + len(cases) * (block + gap)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (named, targets) in enumerate(cases):
        top = MARGIN + number * (block + gap)
        lines = wrap(caption(named), LABEL_SIZE, label + SIDE)
        draw_text(draw, (MARGIN, top), lines, LABEL_SIZE, "la", INK)
        for column, word in enumerate(targets.values(), start=1):
            place = MARGIN + label + column * (SIDE + gap) + SIDE // 2
            draw_text(draw, (place, top + head - gap), [word], LABEL_SIZE, "md", INK)
        for row, (way, made) in enumerate(pictures.items()):
            y = top + head + row * (SIDE + gap)
            draw_text(draw, (MARGIN, y + SIDE // 2), wrap(way, LABEL_SIZE, label - gap), LABEL_SIZE, "lm", INK)
            for column, one in enumerate(made[number]):
                pixels = (one.movedim(0, -1).clamp(0, 1) * 255).round().byte().numpy()
                small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
                sheet.paste(small, (MARGIN + label + column * (SIDE + gap), y))
    sheet.save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sources", type=int, default=40, help="source prompts; each has an edit of every concept")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts and the noise")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=5.0)
    parser.add_argument("--hrv", type=Path, default=PACK_ROOT / "hrv_presets" / "hrvs" / "hrv-mini.safetensors")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    cases = draw_cases(options.sources, options.seed)
    results = {way: {concept: Found() for concept in WORDS} for way in WAYS}
    examples: dict[str, list[torch.Tensor]] = {way: [] for way in WAYS}
    with torch.inference_mode():
        editor = Editor(options)
        seeds = [options.seed + number for number in range(len(cases))]
        right: list[tuple[Case, int]] = []
        for first in range(0, len(cases), BATCH):
            batch, own = cases[first : first + BATCH], seeds[first : first + BATCH]
            readings = read_pictures(editor.sources(batch, own))
            right += [
                (case, seed)
                for case, seed, reading in zip(batch, own, readings, strict=True)
                if shown(reading) == case[0]
            ]
        print(f"{len(right)} of {len(cases)} sources are as asked", flush=True)
        for number, ((named, targets), seed) in enumerate(right):
            for name, way in WAYS.items():
                pictures = editor.pictures(named, targets, way, seed)
                add_source(results[name], targets, pictures)
                if len(examples[name]) < SHOWN:
                    examples[name].append(pictures)
            print(f"{number + 1} of {len(right)} edited", flush=True)
    if right:
        write(options, results, len(right))
        draw_sheet(options.out / "edits.png", [case for case, _ in right[:SHOWN]], examples)


if __name__ == "__main__":
    main()
