"""How well HRV-mini's images are edited by changing one word: P2P-HRV, plain prompt-to-prompt, and asking anew.

    python benchmarks/edits.py [--sources 40] [--named half] [--causal FILE] [--compared] [--out FOLDER]

A source is a picture of one shape or plant. Its prompt names half of its attributes ("a red striped circle"), its form
and others drawn at random, or all of them ("a large red striped circle on the left, night"); of every concept that it
names one target names another word. All ways get the same noise. Edits of sources that the ground-truth scorer reads as
asked are counted: "changed" has the target's word; "kept" has every other attribute, named or not, as the source's
picture has it; "both" is an edit that worked. What a prompt names also stays where the target is asked anew, so it is
the half that is not named which tells how much of a picture is kept.

All ways run at the same windows, so that each can be compared with plain prompt-to-prompt edit by edit. More rows tell
what an HRV adds: the changed word's own map with all heads alike (strength 0), the HRV's elements in random order, and
a causal HRV, as it is and clamped.

Shown are shares with 95 % intervals: of a concept Wilson's, of all concepts together with a source's edits as one group
(``shares.py``), differences by a bootstrap over sources. Results are written after every source, so a run can be
stopped. Needs a host on COMFYUI_PATH. Writes ``edits-half.json``, ``.md`` and ``.png``, or ``edits-all``.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
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
from hrv_pack.benchmarks.shares import grouped_interval, paired_difference, share
from hrv_pack.host.editing.prompts import add_row, edit_prompt
from hrv_pack.host.mechanism import with_mechanism
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.prompts.encoding import encode_prompt
from hrv_pack.hrv.drawing.paper import INK, LABEL_SIZE, MARGIN, PAPER, draw_text, wrap
from hrv_pack.hrv.editing.edit import EditWindows, WordEdit, with_concept
from hrv_pack.hrv.progress import Window
from hrv_pack.hrv.relevance.arithmetic import clamp
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.mini.evaluation import wilson_interval
from hrv_pack.mini.scorer import Reading, read_pictures
from hrv_pack.mini.world import OFFSETS, PATTERNS, PLAIN_COLORS, PLANTS, SCENES, SHAPES, TWO_MEANINGS
from PIL import Image, ImageDraw

_PLACES = tuple(place for place in OFFSETS if place != "center")
SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "Color": tuple(PLAIN_COLORS),
    "Shape": SHAPES,
    "Pattern": PATTERNS,
    # A pattern needs room, and what is huge stays in the center.
    "Size": ("small", "large"),
    "Position": _PLACES,
    "Scene": tuple(SCENES),
}
PLANT_WORDS: dict[str, tuple[str, ...]] = {
    "Plants": tuple(plant for plant in PLANTS if plant not in TWO_MEANINGS),
    "Position": _PLACES,
    "Scene": tuple(SCENES),
}
CONCEPTS = (*SHAPE_WORDS, "Plants")
MEASURES = ("both", "changed", "kept")
# Sources that are sampled together.
BATCH = 16
# A picture in the sheet, in pixels, and how many sources of shapes and of plants it shows.
SIDE, SHOWN = 96, (2, 1)


@dataclass(frozen=True)
class Case:
    """A source's words by concept, for concepts that are edited the word of the target, and the seed of the noise.

    ``shown`` are all attributes of the source's picture, once there is one.
    """

    named: dict[str, str]
    targets: dict[str, str]
    seed: int
    shown: dict[str, str] = field(default_factory=dict)

    @property
    def caption(self) -> str:
        return caption(self.named)


@dataclass(frozen=True)
class Edit:
    """What one edit came to, and the mean distance of its picture from the source's in 0..1."""

    changed: bool
    kept: bool
    distance: float

    @property
    def both(self) -> bool:
        return self.changed and self.kept


Found = list[dict[str, Edit]]
"""Of a way, for every source the edits by concept."""


@dataclass(frozen=True)
class Way:
    """How edits are made: ends of the windows, the largest self-attention, whose heads decide and how much."""

    cross: float
    itself: float
    size: float = 1 / 16
    hrv: str = ""
    strength: float = 1.0

    @property
    def windows(self) -> EditWindows:
        return EditWindows(Window(0.0, self.cross), Window(0.0, self.itself), self.size)


# Published for P2P-HRV and for plain prompt-to-prompt; then windows that let more, and less, change.
WINDOWS = {
    "cross 0.8, self 0.9": (0.8, 0.9, 1 / 16),
    "cross 0.8, self 0.4": (0.8, 0.4, 1 / 16),
    "cross 0.4, self 0.4": (0.4, 0.4, 1 / 16),
    "cross 0.2, self 0.2": (0.2, 0.2, 1 / 16),
    "cross 0.8, self 0.4 up to 8x8": (0.8, 0.4, 1 / 4),
}
# Where the rows that tell what an HRV adds are measured.
COMPARED = "cross 0.8, self 0.4"
ASKED_ANEW = "asking anew, same noise"
# Elements of a causal HRV of HRV-mini reach 45; those of the one that ships 7.
CLAMP = 3.0
CAUSAL, CLAMPED = "causal", f"causal, at most {CLAMP:g}"


def all_ways() -> dict[str, Way]:
    """Every way by its row's name."""
    ways = {ASKED_ANEW: Way(0.0, 0.0)}
    for name, (cross, itself, size) in WINDOWS.items():
        ways[f"P2P, {name}"] = Way(cross, itself, size)
        ways[f"P2P-HRV, {name}"] = Way(cross, itself, size, "hrv")
        if name == COMPARED:
            ways[f"own map, all heads alike, {name}"] = Way(cross, itself, size, "hrv", 0.0)
            ways[f"P2P-HRV at strength 0.5, {name}"] = Way(cross, itself, size, "hrv", 0.5)
            ways[f"P2P-HRV shuffled, {name}"] = Way(cross, itself, size, "shuffled")
            ways |= {f"P2P-HRV, {kind}, {name}": Way(cross, itself, size, kind) for kind in (CAUSAL, CLAMPED)}
    return ways


WAYS = all_ways()


def chosen_ways(options: argparse.Namespace) -> dict[str, Way]:
    """The ways that are asked for."""
    cross, itself, size = WINDOWS[COMPARED]
    return {
        name: way
        for name, way in WAYS.items()
        if (options.causal or way.hrv not in (CAUSAL, CLAMPED))
        and (not options.compared or name == ASKED_ANEW or (way.cross, way.itself, way.size) == (cross, itself, size))
    }


def base_of(name: str) -> str:
    """The row of plain prompt-to-prompt in the same windows."""
    way = WAYS[name]
    return next((other for other, one in WAYS.items() if one == Way(way.cross, way.itself, way.size)), ASKED_ANEW)


def caption(named: dict[str, str]) -> str:
    """The prompt that names these words, as HRV-mini's captions say it."""
    words = [named[concept] for concept in ("Size", "Color", "Pattern") if concept in named]
    text = " ".join(["a", *words, named.get("Plants") or named.get("Shape", "shape")])
    if "Position" in named:
        text += f" on the {named['Position']}"
    return f"{text}, {named['Scene']}" if "Scene" in named else text


def shown(reading: Reading) -> dict[str, str]:
    """The attributes of a picture of one thing; nothing for other pictures."""
    if len(reading.things) != 1:
        return {}
    (thing,) = reading.things
    where = {"Position": thing.position, "Scene": reading.scene}
    if thing.kind == "plant":
        return {"Plants": thing.plant, **where}
    return {"Color": thing.color, "Shape": thing.shape, "Pattern": thing.pattern, "Size": thing.size, **where}


def draw_cases(count: int, seed: int, named: str) -> tuple[list[Case], list[Case]]:
    """So many sources of shapes, edited in every concept that they name, and as many of plants, edited in their own."""
    rng = np.random.default_rng(seed)

    def drawn(words: dict[str, tuple[str, ...]], concepts: Sequence[str], edited: Sequence[str], seed: int) -> Case:
        asked = {concept: str(rng.choice(words[concept])) for concept in concepts}
        targets = {
            concept: str(rng.choice([word for word in words[concept] if word != asked[concept]])) for concept in edited
        }
        return Case(asked, targets, seed)

    shapes, plants = [], []
    for number in range(seed, seed + count):
        some = list(SHAPE_WORDS)
        if named == "half":
            # HRV-mini draws "a shape" as something between shapes, of which nothing can be said to be kept.
            others = [concept for concept in some if concept != "Shape"]
            some = ["Shape", *map(str, rng.choice(others, len(some) // 2 - 1, replace=False))]
        shapes.append(drawn(SHAPE_WORDS, some, some, number))
        some = list(PLANT_WORDS)
        if named == "half":
            some = ["Plants", *(concept for concept in some[1:] if rng.random() < 0.5)]
        plants.append(drawn(PLANT_WORDS, some, ["Plants"], number + count))
    return shapes, plants


class Editor:
    """HRV-mini, asked for a source and all its targets at once."""

    def __init__(self, mini: tuple[Any, Any, Any], hrvs: dict[str, HRV], steps: int, cfg: float):
        model, self.clip, self.vae = mini
        self.model, self.hrvs, self.steps, self.cfg = with_mechanism(model), hrvs, steps, cfg
        self.negative = encode_prompt(self.clip, "")[0]

    def pictures(self, case: Case, way: Way) -> torch.Tensor:
        """RGB [1 + targets, 3, h, w] in 0..1: the source, then every target."""
        positive: Any = encode_prompt(self.clip, case.caption)[0]
        latent: Any = {"samples": torch.zeros(1, 12, 16, 16)}
        for number, (concept, word) in enumerate(case.targets.items()):

            def for_changed(positions: tuple[int, ...], concept: str = concept) -> WordEdit:
                return with_concept(self.hrvs[way.hrv], concept, positions, way.strength)

            target = encode_prompt(self.clip, caption({**case.named, concept: word}))[0]
            positive, _ = edit_prompt(positive, target, way.windows, for_changed=for_changed if way.hrv else None)
            latent = add_row(latent, number + 2)
        return self.sampled(positive, comfy.sample.prepare_noise(latent["samples"], case.seed, latent["batch_index"]))

    def as_asked(self, cases: Sequence[Case]) -> list[Case]:
        """The cases whose source, from the noise that its edits will have, shows what its prompt says."""
        found = []
        empty = torch.zeros(1, 12, 16, 16)
        for first in range(0, len(cases), BATCH):
            batch = cases[first : first + BATCH]
            prompts: Any = [encode_prompt(self.clip, case.caption)[0] for case in batch]
            noise = torch.cat([comfy.sample.prepare_noise(empty, case.seed) for case in batch])
            pictures = self.sampled([[torch.cat([prompt[0][0] for prompt in prompts]), {}]], noise)
            for case, reading in zip(batch, read_pictures(pictures), strict=True):
                there = shown(reading)
                if there.items() >= case.named.items():
                    found.append(replace(case, shown=there))
        return found

    def sampled(self, positive: Any, noise: torch.Tensor) -> torch.Tensor:
        samples = comfy.sample.sample(
            self.model, noise, self.steps, self.cfg, "euler", "normal", positive, self.negative,
            torch.zeros_like(noise), disable_pbar=True, seed=0,
        )  # fmt: skip
        return self.vae.decode(samples).movedim(-1, 1)


def hrvs_of(shipped: Path, causal: Path | None) -> dict[str, HRV]:
    """The HRVs that ways edit by."""
    hrv = load_hrv(shipped)
    order = np.random.default_rng(0).permutation(hrv.layout.head_count)
    found = {"hrv": hrv, "shuffled": HRV(hrv.values[:, order], hrv.concepts, hrv.layout)}
    if causal:
        found |= {CAUSAL: load_hrv(causal), CLAMPED: clamp(load_hrv(causal), CLAMP)}
    return found


def read_edits(case: Case, pictures: torch.Tensor) -> dict[str, Edit]:
    """What the edits of one source came to, by concept."""
    readings = [shown(reading) for reading in read_pictures(pictures)]
    edits = {}
    for number, (concept, target) in enumerate(case.targets.items(), start=1):
        kept = all(readings[number].get(other) == word for other, word in case.shown.items() if other != concept)
        distance = float((pictures[number] - pictures[0]).abs().mean())
        edits[concept] = Edit(readings[number].get(concept) == target, kept, distance)
    return edits


def groups(found: Found, measure: str) -> list[list[bool]]:
    """A measure of all edits, source by source."""
    return [[getattr(edit, measure) for edit in edits.values()] for edits in found]


def cell(value: float, low: float, high: float, form: str = ".2f") -> str:
    return f"{value:{form}} ({low:{form}} to {high:{form}})"


def of_all(found: Found, measure: str) -> str:
    of_sources = groups(found, measure)
    return cell(share(of_sources), *grouped_interval(of_sources))


def of_concept(found: Found, concept: str, measure: str) -> str:
    values = [getattr(edits[concept], measure) for edits in found if concept in edits]
    if not values:
        return "-"
    return cell(sum(values) / len(values), *wilson_interval(sum(values), len(values)))


def against(found: Found, base: Found, measure: str) -> str:
    return cell(*paired_difference(groups(found, measure), groups(base, measure)), "+.2f")


def tables(results: dict[str, Found]) -> str:
    """Shares over all concepts with differences of edits that worked, then every measure concept by concept."""
    head = f"| way | {' | '.join(MEASURES)} | both, over P2P in the same windows | both, over asking anew | distance |"
    text = f"{head}\n|---{'|---' * (len(MEASURES) + 3)}|\n"
    for way, found in results.items():
        base = base_of(way)
        cells = [of_all(found, measure) for measure in MEASURES]
        cells.append("" if base in (way, ASKED_ANEW) else against(found, results[base], "both"))
        cells.append("" if way == ASKED_ANEW else against(found, results[ASKED_ANEW], "both"))
        distance = np.mean([edit.distance for edits in found for edit in edits.values()])
        text += f"| {way} | {' | '.join(cells)} | {distance:.3f} |\n"
    for measure in MEASURES:
        text += f'\n"{measure}" by concept:\n\n| way | {" | ".join(CONCEPTS)} |\n|---{"|---" * len(CONCEPTS)}|\n'
        for way, found in results.items():
            cells = [of_concept(found, concept, measure) for concept in CONCEPTS]
            text += f"| {way} | {' | '.join(cells)} |\n"
    return text


def write(options: argparse.Namespace, results: dict[str, Found], right: Sequence[Case]) -> str:
    """The tables and everything that made them; gives the text."""
    done = right[: len(results[ASKED_ANEW])]
    plants = sum("Plants" in case.named for case in done)
    edits = sum(len(case.targets) for case in done)
    text = (
        f"{len(done) - plants} sources of shapes and {plants} of plants with {edits} edits, {options.named} of a "
        "source's attributes named; "
        f"{len(right)} of {2 * options.sources} that were drawn are as asked. {options.steps} steps of euler, "
        f"CFG {options.cfg:g}.\n\n{tables(results)}"
    )
    (options.out / f"edits-{options.named}.md").write_text(text, encoding="utf-8")
    record = {
        "sources": [
            {"prompt": case.caption, "seed": case.seed, "targets": case.targets, "shown": case.shown} for case in done
        ],
        "results": {
            way: [{concept: asdict(edit) for concept, edit in edits.items()} for edits in found]
            for way, found in results.items()
        },
        "made": {**vars(options), "out": "", "hrv": options.hrv.name, "causal": str(options.causal)},
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    (options.out / f"edits-{options.named}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return text


def draw_sheet(path: Path, cases: list[Case], pictures: dict[str, list[torch.Tensor]]) -> None:
    """The pictures of some sources: a row for each way, the source and the edit of every concept across."""
    label, head, gap = 250, 44, 8
    width = 2 * MARGIN + label + (max(len(case.targets) for case in cases) + 1) * (SIDE + gap)
    block = head + len(pictures) * (SIDE + gap)
    sheet = Image.new("RGB", (width, 2 * MARGIN + len(cases) * (block + gap)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, case in enumerate(cases):
        top = MARGIN + number * (block + gap)
        lines = wrap(case.caption, LABEL_SIZE, label + SIDE)
        draw_text(draw, (MARGIN, top), lines, LABEL_SIZE, "la", INK)
        for column, word in enumerate(case.targets.values(), start=1):
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
    parser.add_argument("--sources", type=int, default=40, help="source prompts of shapes, and as many of plants")
    parser.add_argument("--named", choices=["half", "all"], default="half", help="attributes that a source names")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts and the noise")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=5.0)
    parser.add_argument("--hrv", type=Path, default=PACK_ROOT / "hrv_presets" / "hrvs" / "hrv-mini.safetensors")
    parser.add_argument("--causal", type=Path, help="a causal HRV to compare with")
    parser.add_argument("--compared", action="store_true", help=f"only these windows: {COMPARED}")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    shapes, plants = draw_cases(options.sources, options.seed, options.named)
    ways = chosen_ways(options)
    results: dict[str, Found] = {way: [] for way in ways}
    examples: dict[str, list[torch.Tensor]] = {way: [] for way in ways}
    with torch.inference_mode():
        editor = Editor(load_mini(), hrvs_of(options.hrv, options.causal), options.steps, options.cfg)
        found = editor.as_asked(shapes), editor.as_asked(plants)
        print(f"{len(found[0])} sources of shapes and {len(found[1])} of plants are as asked", flush=True)
        # In turn, so that a run which is stopped has seen both.
        right = [case for pair in zip_longest(*found) for case in pair if case is not None]
        in_sheet = [case for cases, count in zip(found, SHOWN, strict=True) for case in cases[:count]]
        drawn: list[Case] = []
        text = ""
        for number, case in enumerate(right):
            edited = {name: editor.pictures(case, way) for name, way in ways.items()}
            for name, pictures in edited.items():
                results[name].append(read_edits(case, pictures))
            text = write(options, results, right)
            if case in in_sheet:
                drawn.append(case)
                for name, pictures in edited.items():
                    examples[name].append(pictures)
                draw_sheet(options.out / f"edits-{options.named}.png", drawn, examples)
            print(f"{number + 1} of {len(right)} edited", flush=True)
    print(text)


if __name__ == "__main__":
    main()
