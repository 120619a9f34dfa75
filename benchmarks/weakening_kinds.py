"""What weakening the heads of HRVs of several kinds does to HRV-mini's pictures, concept by concept.

    python benchmarks/weakening_kinds.py [--hrv NAME=FILE ...] [--prompts 64] [--out FOLDER]

Prompts name every attribute of a shape ("a large red striped circle on the left, night"), so that one picture tells of
all concepts but Plants; prompts of plants name plant, position and scene. No HRV was made from any of them. All words
are weakened in the first heads of an order, most or least relevant first, and the ground-truth scorer reads what the
picture still shows. "area" is the mean, over the numbers of heads, of how much more of the concept is left with the
least relevant heads weakened than with the most relevant. Every prompt has one seed; intervals of 95 % are bootstraps
over prompts, all ways of a prompt drawn together.

The HRVs are the one that ships ("paper"), those given, the causal one with its heads shuffled, and random orders with
themselves backwards. A set of heads is sampled once, whichever way asks for it. Every set has a file of its own: a run
that was stopped resumes, and ``--part 1/2`` and ``--part 2/2`` may run side by side. Needs a host on COMFYUI_PATH.
Writes ``weakening-kinds.md`` and ``.json``, from all that is there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import groupby, product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from host_process import enter_host
from pack_import import PACK_ROOT, import_pack

enter_host()
import_pack()

from comfy.cli_args import args

# On a CPU, PyTorch's attention takes two thirds of the time that the host's own choice takes.
args.use_pytorch_cross_attention = True

import numpy as np
import numpy.typing as npt
import torch
from hrv_pack.benchmarks.measuring import machine
from hrv_pack.host.mechanism import with_mechanism
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.prompts.carried import CONTROLS_KEY
from hrv_pack.host.prompts.encoding import encode_prompt, token_map
from hrv_pack.host.weakening.grid import WeakeningSettings
from hrv_pack.host.work.sampling import sample_latents, stacked
from hrv_pack.hrv.controls.control import Control
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.hrv.relevance.orders import LEAST_RELEVANT_FIRST, MOST_RELEVANT_FIRST, RANDOM, head_order
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.hrv.scoring.experiments import Case, parse_experiment
from hrv_pack.hrv.storage.atomic_files import write_atomically
from hrv_pack.hrv.weakening.pictures import side_effects_picture
from hrv_pack.hrv.weakening.side_effects import SideEffects
from hrv_pack.hrv.weakening.tables import side_effects_table
from hrv_pack.mini.captions import Sample, draw_samples
from hrv_pack.mini.scorer import read_pictures, score

SHAPES, PLANTS = "single", "plant"
NAMED = {SHAPES: 6, PLANTS: 3}
"""Kinds of captions, and how many concepts one of them can name."""

SHAPE_CONCEPTS = ("Color", "Shape", "Pattern", "Size", "Position")
CONCEPTS = (*SHAPE_CONCEPTS, "Plants", "Scene")
PAPER, CAUSAL, SHUFFLED = "paper", "causal", "shuffled"
ORDERS = (MOST_RELEVANT_FIRST, LEAST_RELEVANT_FIRST)
HEADS = (4, 12, 32, 64)
MATRIX_HEADS = 12
RANDOM_DRAWS = 1
DRAWS = 4000
# Captions to choose from; about a quarter name all they can.
_DRAWN = 4000
# Pictures sampled together.
BATCH = 32
# With these, few steps make as many right pictures as many do.
SAMPLER = "dpmpp_2m", "simple"

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Way:
    """What is weakened in the pictures of a kind of prompts; ``concept`` is empty where the order is random."""

    prompts: str
    kind: str
    concept: str
    order: str
    heads: int
    factor: float


def prompts_of(concept: str) -> str:
    """The kind of prompts whose pictures tell of a concept."""
    return PLANTS if concept == "Plants" else SHAPES


def draw_prompts(kind: str, count: int, seed: int) -> list[Sample]:
    """So many captions that name all they can, none of which any HRV was made from."""
    built, _ = draw_samples(256, np.random.default_rng(0))
    experiment = parse_experiment((PACK_ROOT / "hrv_presets" / "experiments" / "hrv-mini.txt").read_text("utf-8"))
    known = {sample.caption for sample in built} | {case.prompt for case in experiment.cases}
    drawn, _ = draw_samples(_DRAWN, np.random.default_rng([seed, NAMED[kind]]), kind)
    fresh = {
        sample.caption: sample for sample in drawn if len(sample.named) == NAMED[kind] and sample.caption not in known
    }
    return list(fresh.values())[:count]


def all_ways(kinds: Sequence[str]) -> Iterator[Way]:
    """Every way, what matters most first."""

    def orders(kind: str, concept: str, factor: float) -> Iterator[Way]:
        for heads, order in product(HEADS, ORDERS):
            yield Way(prompts_of(concept), kind, concept, order, heads, factor)

    def matrix(kind: str) -> Iterator[Way]:
        for concept, prompts in product(CONCEPTS, (SHAPES, PLANTS)):
            yield Way(prompts, kind, concept, MOST_RELEVANT_FIRST, MATRIX_HEADS, 0.0)

    own, scene = CONCEPTS[:-1], CONCEPTS[-1]
    others = [kind for kind in (PAPER, "values") if kind in kinds]
    for concept in own:
        yield from orders(CAUSAL, concept, 0.0)
    yield from matrix(CAUSAL)
    for concept, kind in product(own, others):
        yield from orders(kind, concept, 0.0)
    for concept, kind in product(own, (CAUSAL, PAPER)):
        yield from orders(kind, concept, -2.0)
    for draw, prompts, heads, order in product(range(RANDOM_DRAWS), (SHAPES, PLANTS), HEADS, ORDERS):
        yield Way(prompts, f"{RANDOM} {draw + 1}", "", order, heads, 0.0)
    for concept, kind in product(own, kinds):
        yield from orders(kind, concept, 0.0)
    for kind in others:
        yield from matrix(kind)
    yield from orders(CAUSAL, scene, 0.0)


def shuffled(hrv: HRV) -> HRV:
    """The same relevances at other heads, the same for every concept."""
    order = np.random.default_rng(0).permutation(hrv.layout.head_count)
    return HRV(hrv.values[:, order], hrv.concepts, hrv.layout, provenance={"shuffled": hrv.digest})


def factors_of(way: Way, hrvs: dict[str, HRV]) -> npt.NDArray[np.float32]:
    """The factor of every head: float32 [H]."""
    if way.kind.startswith(RANDOM):
        hrv = hrvs[PAPER]
        order = head_order(hrv, hrv.concepts[0], RANDOM, int(way.kind.removeprefix(RANDOM)))
        order = order[::-1] if way.order == LEAST_RELEVANT_FIRST else order
    else:
        hrv = hrvs[way.kind]
        order = head_order(hrv, way.concept, way.order)
    factors = np.ones(hrv.layout.head_count, np.float32)
    factors[order[: way.heads]] = way.factor
    return factors


class Studio:
    """HRV-mini, and what its pictures of the prompts show while heads are weakened."""

    def __init__(self, options: argparse.Namespace, prompts: dict[str, list[Sample]]):
        model, self.clip, self.vae = load_mini()
        self.model, self.prompts = with_mechanism(model), prompts
        self.negative = encode_prompt(self.clip, "")[0]
        self.seed = options.seed
        self.settings = WeakeningSettings((0,), options.steps, options.cfg, *SAMPLER, 128, 128)
        maps = {kind: [token_map(self.clip, one.caption) for one in those] for kind, those in prompts.items()}
        self.words = {kind: [one.content_positions for one in those] for kind, those in maps.items()}
        self.encoded = {
            kind: [encode_prompt(self.clip, one.caption)[0][0] for one in those] for kind, those in prompts.items()
        }

    def shown(self, kind: str, factors: npt.NDArray[np.float32], hrv: HRV) -> list[dict[str, bool]]:
        """Of every prompt of a kind, whether its picture shows each concept as it says."""
        samples, words = self.prompts[kind], self.words[kind]
        found: dict[int, dict[str, bool]] = {}
        for positions, group in groupby(sorted(range(len(samples)), key=words.__getitem__), key=words.__getitem__):
            rows = list(group)
            for some in (rows[first : first + BATCH] for first in range(0, len(rows), BATCH)):
                ((context, extras),) = stacked([self.encoded[kind][row] for row in some])
                positive = [[context, {**extras, CONTROLS_KEY: (Control(factors, positions, hrv.layout),)}]]
                seeds = [self.seed + row for row in some]
                latents = sample_latents(self.model, seeds, positive, self.negative, self.settings, lambda: None)
                readings = read_pictures(self.vae.decode(latents).movedim(-1, 1))
                found |= {row: score(one, samples[row]) for row, one in zip(some, readings, strict=True)}
        return [found[row] for row in range(len(samples))]


@dataclass(frozen=True)
class Found:
    """What is there so far: of a way, the scores of its prompts by concept."""

    sets: dict[Way, list[dict[str, bool]]]
    plain: dict[str, list[dict[str, bool]]]

    def scores(self, way: Way, concept: str) -> Scores:
        """Whether the pictures [prompts] of a way show a concept."""
        return np.array([float(one[concept]) for one in self.sets[way]])

    def line(self, kind: str, concept: str, order: str, factor: float, shown: str) -> Scores | None:
        """Scores [numbers of heads, prompts] along an order of the heads of ``concept``; None if some aren't there."""
        named = "" if kind.startswith(RANDOM) else concept
        ways = [Way(prompts_of(concept), kind, named, order, heads, factor) for heads in HEADS]
        if any(way not in self.sets for way in ways):
            return None
        return np.stack([self.scores(way, shown) for way in ways])


def drawn(prompts: int) -> dict[str, npt.NDArray[np.int64]]:
    """Prompts [draws, prompts] of each kind, drawn again; the same for all ways."""
    random = np.random.default_rng(0)
    return {kind: random.integers(0, prompts, (DRAWS, prompts)) for kind in NAMED}


def interval(values: dict[str, Scores], draws: dict[str, npt.NDArray[np.int64]]) -> str:
    """The mean over concepts of values [prompts], and its interval."""
    each = [value[draws[prompts_of(concept)]].mean(1) for concept, value in values.items()]
    low, high = np.quantile(np.mean(each, axis=0), [0.025, 0.975])
    return f"{np.mean([value.mean() for value in values.values()]):.2f} ({low:.2f} to {high:.2f})"


def others_of(concept: str) -> list[str]:
    """What else the pictures tell of a concept's prompts; scenes aren't read from the words."""
    return ["Position"] if concept == "Plants" else [one for one in SHAPE_CONCEPTS if one != concept]


def areas_table(found: Found, kinds: Sequence[str], draws: dict[str, npt.NDArray[np.int64]]) -> str:
    """The area of every kind and factor, concept by concept, and the mean without scenes."""
    head = ["heads of", "factor", *CONCEPTS[:-1], "mean", CONCEPTS[-1]]
    text = f"| {' | '.join(head)} |\n{'|---' * len(head)}|\n"
    for factor, kind in product((0.0, -2.0), kinds):
        areas: dict[str, Scores] = {}
        for concept in CONCEPTS:
            most, least = (found.line(kind, concept, order, factor, concept) for order in ORDERS)
            if most is not None and least is not None:
                areas[concept] = (least - most).mean(0)
        if not areas:
            continue
        own = {concept: area for concept, area in areas.items() if concept != CONCEPTS[-1]}
        cells = [interval({one: areas[one]}, draws) if one in areas else "" for one in CONCEPTS]
        cells.insert(-1, interval(own, draws) if len(own) == len(CONCEPTS) - 1 else "")
        text += f"| {kind} | {factor:g} | {' | '.join(cells)} |\n"
    return text


def curves_table(found: Found, kinds: Sequence[str]) -> str:
    """What is left, as a mean over concepts, of the concept whose heads are weakened and of the others."""
    head = [f"{name}, {heads}" for name in ("own, most", "own, least", "others, most") for heads in HEADS]
    text = f"| heads of | factor | {' | '.join(head)} |\n{'|---' * (len(head) + 2)}|\n"
    for factor, kind in product((0.0, -2.0), kinds):
        rows = []
        for concept in CONCEPTS[:-1]:
            shown = [(order, [concept]) for order in ORDERS] + [(ORDERS[0], others_of(concept))]
            lines = [found.line(kind, concept, order, factor, one) for order, those in shown for one in those]
            if all(line is not None for line in lines):
                parts = [line.mean(1) for line in lines if line is not None]
                rows.append(np.concatenate([parts[0], parts[1], np.mean(parts[2:], axis=0)]))
        if len(rows) == len(CONCEPTS) - 1:
            text += f"| {kind} | {factor:g} | {' | '.join(f'{value:.2f}' for value in np.mean(rows, axis=0))} |\n"
    return text


def side_effects(found: Found, prompts: dict[str, list[Sample]], kind: str) -> SideEffects | None:
    """The matrix of a kind; None while pictures of it are missing."""
    cases = [Case(one, each.caption, each.named[one]) for one in CONCEPTS for each in prompts[prompts_of(one)]]
    rows = [np.concatenate([[float(each[one]) for each in found.plain[prompts_of(one)]] for one in CONCEPTS])]
    for concept in CONCEPTS:
        ways = {one: Way(one, kind, concept, MOST_RELEVANT_FIRST, MATRIX_HEADS, 0.0) for one in NAMED}
        if any(way not in found.sets for way in ways.values()):
            return None
        rows.append(np.concatenate([found.scores(ways[prompts_of(one)], one) for one in CONCEPTS]))
    return SideEffects(CONCEPTS, MATRIX_HEADS, 0.0, tuple(cases), np.stack(rows)[:, :, None])


def write(options: argparse.Namespace, found: Found, prompts: dict[str, list[Sample]], kinds: Sequence[str]) -> str:
    """Tables, and the pictures of the matrices; gives the text."""
    draws = drawn(options.prompts)
    right = {one: np.mean([each[one] for each in found.plain[prompts_of(one)]]) for one in CONCEPTS}
    shown = ", ".join(f"{one} {value:.2f}" for one, value in right.items())
    made = (
        f"{machine(torch.device('cpu'))}; {options.steps} steps of {' '.join(SAMPLER)}, CFG {options.cfg:g}, "
        f"{options.prompts} prompts of shapes and as many of plants. Unweakened pictures show {shown}.\n"
    )
    parts = [made, areas_table(found, kinds, draws), curves_table(found, kinds)]
    matrices = {kind: side_effects(found, prompts, kind) for kind in kinds}
    for kind, matrix in matrices.items():
        if matrix is not None:
            title = f"HRV-mini: score lost by factor 0 in {MATRIX_HEADS} heads of a concept, {kind}"
            name = f"weakening-matrix-{kind.replace(' ', '-')}.png"
            side_effects_picture(matrix, title).save(options.out / name)
            parts.append(f"{kind}, {MATRIX_HEADS} heads:\n\n{side_effects_table(matrix)}")
    text = "\n".join(parts)
    (options.out / "weakening-kinds.md").write_text(text, encoding="utf-8")
    record = {
        "made": {**vars(options), "out": "", "machine": machine(torch.device("cpu")), "torch": torch.__version__},
        "prompts": {kind: [each.caption for each in those] for kind, those in prompts.items()},
        "unweakened": found.plain,
        "ways": [{**asdict(way), "shown": shown} for way, shown in found.sets.items()],
    }
    (options.out / "weakening-kinds.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hrv", action="append", default=[], metavar="NAME=FILE", help="causal, values, all words")
    parser.add_argument("--prompts", type=int, default=64, help="of shapes, and as many of plants")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--cfg", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=5000, help="of the prompts and the first one's noise")
    parser.add_argument(
        "--part", default="1/1", metavar="I/N", help="sample every N-th set of heads from the I-th; 0/0 none"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    hrvs = {PAPER: load_hrv(PACK_ROOT / "hrv_presets" / "hrvs" / "hrv-mini.safetensors")}
    hrvs |= {name: load_hrv(Path(file)) for name, file in (one.split("=", 1) for one in options.hrv)}
    hrvs[SHUFFLED] = shuffled(hrvs[CAUSAL])
    prompts = {kind: draw_prompts(kind, options.prompts, options.seed) for kind in NAMED}
    studio = Studio(options, prompts)
    made = {"steps": options.steps, "cfg": options.cfg, "seed": options.seed, "prompts": options.prompts}
    folder = options.out / "sets"
    folder.mkdir(parents=True, exist_ok=True)

    def place(kind: str, factors: npt.NDArray[np.float32]) -> Path:
        return folder / f"{sha256(f'{kind} {made}'.encode() + factors.tobytes()).hexdigest()[:24]}.json"

    plain = np.ones(hrvs[PAPER].layout.head_count, np.float32)

    def known() -> Found:
        ways = {way: place(way.prompts, factors_of(way, hrvs)) for way in all_ways(list(hrvs))}
        there = {way: json.loads(path.read_text("utf-8")) for way, path in ways.items() if path.exists()}
        return Found(there, {kind: json.loads(place(kind, plain).read_text("utf-8")) for kind in NAMED})

    sets = {place(kind, plain): (kind, plain) for kind in NAMED}
    for way in all_ways(list(hrvs)):
        factors = factors_of(way, hrvs)
        sets.setdefault(place(way.prompts, factors), (way.prompts, factors))
    index, parts = map(int, options.part.split("/"))
    mine = list(sets.items())[index - 1 :: parts] if parts else []
    with torch.inference_mode():
        for number, (path, (kind, factors)) in enumerate(mine, start=1):
            if not path.exists():
                write_atomically(path, json.dumps(studio.shown(kind, factors, hrvs[PAPER])).encode())
                print(f"{number} of {len(mine)} sets of heads", flush=True)
    print(write(options, known(), prompts, [*hrvs, *(f"{RANDOM} {draw + 1}" for draw in range(RANDOM_DRAWS))]))


if __name__ == "__main__":
    main()
