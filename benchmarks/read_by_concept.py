"""How well HRV-mini takes one concept from another prompt, for HRVs of several kinds.

    python benchmarks/read_by_concept.py [--hrv NAME=FILE ...] [--pairs 128] [--heads 8 ...] [--out FOLDER]

Two prompts name every attribute of one shape and differ in color, shape, pattern, size and position; their scene is
the same, but for Scene it differs too. For Plants they name a potted plant, its position and a scene, and differ in
plant and position. The heads of one concept read the second prompt, all others the first. The ground-truth scorer
reads the picture: "taken" has the concept as the second prompt says, "kept" is the share of the other attributes in
which the prompts differ that are as the first one says, "both" has the concept taken and all others kept. For Plants
that leaves only the position to keep, so "both" asks for less. The heads are the most relevant ones of each HRV, or as
many at random, drawn for each concept; with ``--by-relevance`` the others read too, in proportion to theirs.

All ways get the same noise, a seed for each pair. Intervals of 95 %: Wilson's, and for "kept" Wilson's for as many
samples as the pairs are worth (``shares.py``). Results are written after every batch: a run that was stopped resumes.
Needs a host on COMFYUI_PATH. Writes ``read-by-concept.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from hrv_pack.benchmarks.shares import grouped_interval, share
from hrv_pack.host.mechanism import add_reading
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.prompts.encoding import encode_prompt
from hrv_pack.hrv.controls.reading import BY_RELEVANCE, TOP_HEADS, Reading, read_concept
from hrv_pack.hrv.progress import WHOLE
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.hrv.storage.atomic_files import write_atomically
from hrv_pack.mini.captions import PATTERN_RADIUS
from hrv_pack.mini.evaluation import wilson_interval
from hrv_pack.mini.scorer import Thing, read_pictures
from hrv_pack.mini.world import OFFSETS, PATTERNS, PLAIN_COLORS, PLANTS, RADII, SCENES, SHAPES

OF_SHAPES = ("Shape", "Color", "Pattern", "Size", "Position")
SCENE, PLANT = "Scene", "Plants"
CONCEPTS = (*OF_SHAPES, SCENE, PLANT)
MEASURES = ("taken", "kept", "both")
RANDOM = "random"
# Pairs that are sampled together.
BATCH = 16

Look = dict[str, str]


@dataclass(frozen=True)
class Pair:
    """Two looks of a shape or a plant in its scene, and the seed of the noise."""

    own: Look
    other: Look
    seed: int

    @property
    def differ(self) -> list[str]:
        """The concepts in which the looks differ."""
        return [concept for concept, value in self.own.items() if self.other[concept] != value]


def prompt_of(look: Look) -> str:
    """A caption like those of the model's training."""
    # A plant's word that is a color too means the plant wherever no shape follows.
    thing = look[PLANT] if PLANT in look else " ".join(look[one] for one in ("Size", "Color", "Pattern", "Shape"))
    where = "in the center" if look["Position"] == "center" else f"on the {look['Position']}"
    return f"a {thing} {where}, {look[SCENE]}"


def draw_pairs(concept: str, count: int, seed: int) -> list[Pair]:
    """Pairs of plants for Plants, of shapes for all else; the first are the same whatever the count.

    All concepts of shapes have the same pairs, but that for Scene the second look is in another scene.
    """
    if concept == PLANT:
        return _pairs_of_plants(count, seed)
    pairs = _pairs_of_shapes(count, seed)
    return _in_other_scenes(pairs, seed) if concept == SCENE else pairs


def _pairs_of_shapes(count: int, seed: int) -> list[Pair]:
    """Looks that can be drawn: patterns need room, and what is huge stays in the center."""
    rng = np.random.default_rng(seed)

    def look() -> Look:
        size = str(rng.choice(list(RADII)))
        return {
            "Size": size,
            "Color": str(rng.choice(list(PLAIN_COLORS))),
            "Pattern": str(rng.choice(PATTERNS)) if RADII[size] >= PATTERN_RADIUS else "plain",
            "Shape": str(rng.choice(SHAPES)),
            "Position": str(rng.choice(list(OFFSETS))) if size != "huge" else "center",
        }

    pairs: list[Pair] = []
    while len(pairs) < count:
        own, other, scene = look(), look(), {SCENE: str(rng.choice(list(SCENES)))}
        if all(own[concept] != other[concept] for concept in OF_SHAPES):
            pairs.append(Pair(own | scene, other | scene, len(pairs) + seed))
    return pairs


def _in_other_scenes(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """Pairs with the second look moved elsewhere."""
    # A generator of its own, so that the looks stay those of the other concepts.
    rng = np.random.default_rng((seed, CONCEPTS.index(SCENE)))
    scenes = [str(rng.choice([one for one in SCENES if one != pair.own[SCENE]])) for pair in pairs]
    return [replace(pair, other=pair.other | {SCENE: scene}) for pair, scene in zip(pairs, scenes, strict=True)]


def _pairs_of_plants(count: int, seed: int) -> list[Pair]:
    rng = np.random.default_rng((seed, CONCEPTS.index(PLANT)))
    pairs = []
    for number in range(count):
        plants, positions = (rng.choice(words, 2, replace=False) for words in (PLANTS, list(OFFSETS)))
        scene = str(rng.choice(list(SCENES)))
        own, other = (
            {PLANT: str(plant), "Position": str(position), SCENE: scene}
            for plant, position in zip(plants, positions, strict=True)
        )
        pairs.append(Pair(own, other, number + seed))
    return pairs


def shown(pictures: torch.Tensor, pairs: Sequence[Pair]) -> list[Look]:
    """The scene of each picture, and the attributes of its first shape, or plant where the pair is of plants."""
    looks = []
    for reading, pair in zip(read_pictures(pictures), pairs, strict=True):
        things = reading.plants if PLANT in pair.own else reading.shapes
        looks.append({SCENE: reading.scene, **(_attributes(things[0]) if things else {})})
    return looks


def _attributes(thing: Thing) -> Look:
    if thing.kind == "plant":
        return {PLANT: thing.plant, "Position": thing.position}
    values = (thing.shape, thing.color, thing.pattern, thing.size, thing.position)
    return dict(zip(OF_SHAPES, values, strict=True))


class Reader:
    """HRV-mini, some of whose heads read the other prompts of a batch of pairs."""

    def __init__(self, mini: tuple[Any, Any, Any], hrvs: dict[str, HRV], steps: int, cfg: float):
        self.model, self.clip, self.vae = mini
        self.negative = encode_prompt(self.clip, "")[0]
        self.steps, self.cfg, self.hrvs = steps, cfg, hrvs

    def encoded(self, prompts: list[str]) -> Any:
        return [[torch.cat([encode_prompt(self.clip, prompt)[0][0][0] for prompt in prompts]), {}]]

    def reading(self, way: str, concept: str, heads: int) -> Reading:
        """What a way of choosing heads reads."""
        if way != RANDOM:
            name, _, how = way.partition(", ")
            return read_concept(self.hrvs[name], concept, heads, 1.0, WHOLE, gates=how or TOP_HEADS)
        layout = next(iter(self.hrvs.values())).layout
        gates = np.zeros(layout.head_count, np.float32)
        gates[np.random.default_rng((0, CONCEPTS.index(concept))).permutation(len(gates))[:heads]] = 1.0
        return Reading(gates, layout)

    def looks(self, pairs: list[Pair], reading: Reading | None) -> list[Look]:
        own, other = (
            self.encoded([prompt_of(look) for look in looks])
            for looks in ([pair.own for pair in pairs], [pair.other for pair in pairs])
        )
        model, positive = self.model, own
        if reading is not None:
            model, positive = add_reading(self.model, own, other, lambda _: reading)
        empty = torch.zeros(1, 12, 16, 16)
        noise = torch.cat([comfy.sample.prepare_noise(empty, pair.seed) for pair in pairs])
        samples = comfy.sample.sample(
            model, noise, self.steps, self.cfg, "euler", "normal", positive, self.negative, torch.zeros_like(noise),
            disable_pbar=True, seed=0,
        )  # fmt: skip
        return shown(self.vae.decode(samples).movedim(-1, 1), pairs)


def counted(pairs: list[Pair], looks: list[Look], concept: str) -> dict[str, list[list[bool]]]:
    """Of every pair, each measure's samples."""
    taken = [[look.get(concept) == pair.other[concept]] for pair, look in zip(pairs, looks, strict=True)]
    kept = [
        [look.get(one) == pair.own[one] for one in pair.differ if one != concept]
        for pair, look in zip(pairs, looks, strict=True)
    ]
    both = [[one[0] and all(others)] for one, others in zip(taken, kept, strict=True)]
    return {"taken": taken, "kept": kept, "both": both}


def cell(groups: list[list[bool]]) -> str:
    if all(len(group) == 1 for group in groups):
        low, high = wilson_interval(sum(group[0] for group in groups), len(groups))
    else:
        low, high = grouped_interval(groups)
    return f"{share(groups):.2f} ({low:.2f} to {high:.2f})"


def plain_of(concept: str) -> str:
    """What the first prompts' own pictures are kept as: those of plants by themselves."""
    return f"plain/{PLANT}" if concept == PLANT else "plain"


def text_of(options: argparse.Namespace, pairs: dict[str, list[Pair]], state: dict[str, list[Look]]) -> str:
    """Tables of all that is there, a row a way, a block a concept; ``pairs`` are by concept."""
    text = (
        f"HRV-mini, {options.steps} steps of euler, CFG {options.cfg:g}, pairs of seed {options.seed}. “none” are the "
        "first prompts' own pictures.\n"
    )
    for heads in options.heads:
        for concept in options.concepts:
            head = f"| heads of | pairs | {' | '.join(MEASURES)} |\n|---|---|---|---|---|\n"
            text += f"\n{concept}, {heads} heads:\n\n{head}"
            for name, looks in state.items():
                way, *rest = name.split("/")
                if looks and (rest == [concept, str(heads)] or name == plain_of(concept)):
                    found = counted(pairs[concept][: len(looks)], looks, concept)
                    cells = " | ".join(cell(found[one]) for one in MEASURES)
                    text += f"| {way if rest[1:] else 'none'} | {len(looks)} | {cells} |\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hrv", action="append", default=[], metavar="NAME=FILE", help="an HRV to choose heads by")
    parser.add_argument("--by-relevance", nargs="+", default=[], metavar="NAME", help="HRVs read by relevance as well")
    parser.add_argument("--pairs", type=int, default=128)
    parser.add_argument("--heads", type=int, nargs="+", default=[8])
    parser.add_argument("--concepts", nargs="+", choices=CONCEPTS, default=list(CONCEPTS))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--cfg", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    given = dict(one.split("=", 1) for one in options.hrv)
    files = {"published": PACK_ROOT / "hrv_presets" / "hrvs" / "hrv-mini.safetensors", **given}
    hrvs = {name: load_hrv(Path(file)) for name, file in files.items()}
    pairs = {concept: draw_pairs(concept, options.pairs, options.seed) for concept in options.concepts}
    made = {"steps": options.steps, "cfg": options.cfg, "seed": options.seed}
    made |= {f"hrv {name}": hrv.digest for name, hrv in hrvs.items()}
    options.out.mkdir(parents=True, exist_ok=True)
    record = options.out / "read-by-concept.json"
    before: dict[str, Any] = json.loads(record.read_text("utf-8")) if record.exists() else {"made": made, "looks": {}}
    if any(before["made"].get(key, value) != value for key, value in made.items()):
        parser.error(f"{record} was made with other settings or HRVs: choose another folder with --out.")
    state: dict[str, list[Look]] = before["looks"]
    reader = Reader(load_mini(), hrvs, options.steps, options.cfg)
    ways: dict[str, tuple[str, Reading | None]] = {plain_of(one): (one, None) for one in options.concepts}
    for heads in options.heads:
        for concept in options.concepts:
            for way in (*hrvs, *(f"{name}, {BY_RELEVANCE}" for name in options.by_relevance), RANDOM):
                ways[f"{way}/{concept}/{heads}"] = concept, reader.reading(way, concept, heads)
    with torch.inference_mode():
        for first in range(0, options.pairs, BATCH):
            for name, (concept, reading) in ways.items():
                looks = state.setdefault(name, [])
                if len(looks) == first:
                    looks.extend(reader.looks(pairs[concept][first : first + BATCH], reading))
                    write_atomically(record, json.dumps({"made": {**before["made"], **made}, "looks": state}).encode())
            write_atomically(options.out / "read-by-concept.md", text_of(options, pairs, state).encode())
            print(f"{min(first + BATCH, options.pairs)} of {options.pairs} pairs", flush=True)
    print(text_of(options, pairs, state))


if __name__ == "__main__":
    main()
