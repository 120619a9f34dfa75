"""How well HRV-mini takes one concept from another prompt, for HRVs of several kinds.

    python benchmarks/read_by_concept.py [--hrv NAME=FILE ...] [--pairs 128] [--heads 8 ...] [--out FOLDER]

Two prompts name every attribute of one shape and differ in color, shape, pattern, size and position; their scene is
the same. The heads of one concept read the second prompt, all others the first. The ground-truth scorer reads the
picture: "taken" has the concept as the second prompt says, "kept" is the share of the four other attributes that are
as the first one says, "both" has the concept taken and all others kept. The heads are the most relevant ones of each
HRV, or as many at random, drawn for each concept; with ``--by-relevance`` the others read too, in proportion to theirs.

All ways get the same noise, a seed for each pair. Intervals of 95 %: Wilson's, and for "kept" Wilson's for as many
samples as the pairs are worth (``shares.py``). Results are written after every batch: a run that was stopped resumes.
Needs a host on COMFYUI_PATH. Writes ``read-by-concept.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
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
from hrv_pack.mini.scorer import read_pictures
from hrv_pack.mini.world import OFFSETS, PATTERNS, PLAIN_COLORS, RADII, SCENES, SHAPES

CONCEPTS = ("Shape", "Color", "Pattern", "Size", "Position")
MEASURES = ("taken", "kept", "both")
RANDOM = "random"
# Pairs that are sampled together.
BATCH = 16

Look = dict[str, str]


@dataclass(frozen=True)
class Pair:
    """Two looks of a shape that differ in every concept, the scene that they share, and the seed of the noise."""

    own: Look
    other: Look
    scene: str
    seed: int

    def prompt(self, look: Look) -> str:
        where = "in the center" if look["Position"] == "center" else f"on the {look['Position']}"
        return f"a {look['Size']} {look['Color']} {look['Pattern']} {look['Shape']} {where}, {self.scene}"


def draw_pairs(count: int, seed: int) -> list[Pair]:
    """Pairs that can be drawn: patterns need room, and what is huge stays in the center."""
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
        own, other, scene = look(), look(), str(rng.choice(list(SCENES)))
        if all(own[concept] != other[concept] for concept in CONCEPTS):
            pairs.append(Pair(own, other, scene, len(pairs) + seed))
    return pairs


def shown(pictures: torch.Tensor) -> list[Look]:
    """The attributes of the first shape in each picture; nothing where there is none."""
    looks = []
    for reading in read_pictures(pictures):
        shapes = reading.shapes[:1]
        looks.append(
            {
                concept: value
                for shape in shapes
                for concept, value in zip(
                    CONCEPTS, (shape.shape, shape.color, shape.pattern, shape.size, shape.position), strict=True
                )
            }
        )
    return looks


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
            self.encoded([pair.prompt(look) for pair, look in zip(pairs, looks, strict=True)])
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
        return shown(self.vae.decode(samples).movedim(-1, 1))


def counted(pairs: list[Pair], looks: list[Look], concept: str) -> dict[str, list[list[bool]]]:
    """Of every pair, each measure's samples."""
    taken = [[look.get(concept) == pair.other[concept]] for pair, look in zip(pairs, looks, strict=True)]
    kept = [
        [look.get(one) == pair.own[one] for one in CONCEPTS if one != concept]
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


def text_of(options: argparse.Namespace, pairs: list[Pair], state: dict[str, list[Look]]) -> str:
    """Tables of all that is there, a row a way, a block a concept."""
    plain = state.get("plain", [])
    right = [[look.get(one) == pair.own[one] for one in CONCEPTS] for pair, look in zip(pairs, plain, strict=False)]
    text = (
        f"HRV-mini, {options.steps} steps of euler, CFG {options.cfg:g}, pairs of seed {options.seed}. Of the "
        f"attributes that the first prompt names its own picture shows {share(right):.2f} ({len(right)} pictures).\n"
    )
    for heads in options.heads:
        for concept in options.concepts:
            head = f"| heads of | pairs | {' | '.join(MEASURES)} |\n|---|---|---|---|---|\n"
            text += f"\n{concept}, {heads} heads:\n\n{head}"
            for name, looks in state.items():
                way, *rest = name.split("/")
                if rest == [concept, str(heads)] and looks:
                    found = counted(pairs[: len(looks)], looks, concept)
                    text += f"| {way} | {len(looks)} | {' | '.join(cell(found[one]) for one in MEASURES)} |\n"
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
    pairs = draw_pairs(options.pairs, options.seed)
    made = {"steps": options.steps, "cfg": options.cfg, "seed": options.seed}
    made |= {f"hrv {name}": hrv.digest for name, hrv in hrvs.items()}
    options.out.mkdir(parents=True, exist_ok=True)
    record = options.out / "read-by-concept.json"
    before: dict[str, Any] = json.loads(record.read_text("utf-8")) if record.exists() else {"made": made, "looks": {}}
    if any(before["made"].get(key, value) != value for key, value in made.items()):
        parser.error(f"{record} was made with other settings or HRVs: choose another folder with --out.")
    state: dict[str, list[Look]] = before["looks"]
    reader = Reader(load_mini(), hrvs, options.steps, options.cfg)
    ways: dict[str, Reading | None] = {"plain": None}
    for heads in options.heads:
        for concept in options.concepts:
            for way in (*hrvs, *(f"{name}, {BY_RELEVANCE}" for name in options.by_relevance), RANDOM):
                ways[f"{way}/{concept}/{heads}"] = reader.reading(way, concept, heads)
    with torch.inference_mode():
        for first in range(0, len(pairs), BATCH):
            batch = pairs[first : first + BATCH]
            for name, reading in ways.items():
                looks = state.setdefault(name, [])
                if len(looks) == first:
                    looks.extend(reader.looks(batch, reading))
                    write_atomically(record, json.dumps({"made": {**before["made"], **made}, "looks": state}).encode())
            write_atomically(options.out / "read-by-concept.md", text_of(options, pairs, state).encode())
            print(f"{first + len(batch)} of {len(pairs)} pairs", flush=True)
    print(text_of(options, pairs, state))


if __name__ == "__main__":
    main()
