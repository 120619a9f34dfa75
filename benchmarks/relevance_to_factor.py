"""Which map from relevance to the factors of heads steers HRV-mini best at equal side effects.

    python benchmarks/relevance_to_factor.py --causal FILE [--tasks NAME ...] [--out FOLDER]

A causal row has elements up to 35, so what a control multiplies by need not be the row itself. Maps are compared on
four tasks: *strengthen* makes the weaker of two contradicting words win, *adjust* settles how a word with two
meanings is read, *edit* is P2P-HRV, *subjects* is A&E-HRV (its strength is the step size). All run at the strengths
that move the factors alike (the root mean square over heads), with the same noise. "Gained" is the share of what was
wanted and did not come by itself; "lost" is how far the share of everything else falls. As a strength can be chosen
for every map, maps are compared by the most that they gain at no more than a given loss, between strengths by straight
lines. One factor for all heads is the map to beat.

The members of a family (the limit of "clamped", the share of "top heads") are chosen on the pictures of strengthening
with one seed, and all tables are made with other seeds. Intervals of 95 % by drawing prompts again. Results are written
after every prompt or batch: a run that was stopped resumes. Needs a host on COMFYUI_PATH and a causal HRV of HRV-mini
(``causal_shares.py`` makes one). Writes ``relevance-to-factor.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from host_process import enter_host
from pack_import import PACK_ROOT, import_pack

enter_host()
import_pack()

import comfy.sample
import numpy as np
import numpy.typing as npt
import torch
from hrv_pack.benchmarks.edits import Case, Editor, Way, draw_cases, shown
from hrv_pack.benchmarks.two_subjects import SubjectPrompt, draw_prompts
from hrv_pack.host.attend_and_excite.subjects import excite
from hrv_pack.host.mechanism import with_mechanism
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.prompts.carried import CONTROLS_KEY
from hrv_pack.host.prompts.encoding import encode_prompt, token_map
from hrv_pack.hrv.attend_and_excite.settings import ExcitementSettings
from hrv_pack.hrv.controls.control import Control, adjust, strengthen
from hrv_pack.hrv.progress import WHOLE
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.hrv.storage.atomic_files import write_atomically
from hrv_pack.mini.scorer import Reading, meaning, read_pictures
from hrv_pack.mini.world import OFFSETS, PATTERNS, PLAIN_COLORS, SCENE_COLORS, SCENES, SHAPES

Row = npt.NDArray[np.float32]
CHOOSE, REPORT = "choose", "report"
SEEDS = {CHOOSE: 1_000, REPORT: 50_000}
STEP_SIZES = (5.0, 20.0)
# A way that loses more than this is not tried at larger strengths.
ENOUGH = 0.15
LOSSES = (0.05, 0.1)
BATCH = 8
DRAWS = 2_000


class Found(NamedTuple):
    """What one case came to: what was wanted, and all else that was there before."""

    wanted: list[bool]
    kept: list[bool]


def top(row: Row, share: float) -> npt.NDArray[np.bool_]:
    """The fewest heads that hold a share of a row's relevance."""
    order = np.argsort(-row, kind="stable")
    count = int(np.searchsorted(np.cumsum(row[order]), share * row.sum())) + 1
    chosen = np.zeros(len(row), dtype=bool)
    chosen[order[:count]] = True
    return chosen


MAPS: dict[str, Callable[[Row], Row]] = {
    "all heads alike": lambda row: np.full_like(row, 2.0),
    "as it is": lambda row: row,
    "clamped to 2": lambda row: np.minimum(row, 2.0),
    "clamped to 4": lambda row: np.minimum(row, 4.0),
    "root, mean kept": lambda row: np.sqrt(row) / np.sqrt(row).mean(),
    "top heads with 50 %": lambda row: 1.0 + top(row, 0.5),
    "top heads with 80 %": lambda row: 1.0 + top(row, 0.8),
}
FAMILIES = {
    "all heads alike": ["all heads alike"],
    "as it is": ["as it is"],
    "clamped": ["clamped to 2", "clamped to 4"],
    "root": ["root, mean kept"],
    "top heads": ["top heads with 50 %", "top heads with 80 %"],
}
SHIPPED = "Build HRV, as it is"
BASE = "all heads alike"


class Ways:
    """Every way to make factors, as an HRV whose rows are the factors, and what its strength is at a dose."""

    def __init__(self, causal: HRV, shipped: HRV):
        self.hrvs = {name: mapped(causal, one) for name, one in MAPS.items()}
        self.hrvs[SHIPPED] = shipped
        # The weighted mean of Attend and Excite knows no factors: heads that don't matter have no part in it.
        self.weights = dict(self.hrvs)
        for share in (0.5, 0.8):
            one = mapped(causal, lambda row, share=share: top(row, share) / top(row, share).mean())  # type: ignore[misc]
            self.weights[f"top heads with {share * 100:.0f} %"] = one

    def strength(self, way: str, dose: float) -> float:
        values = self.hrvs[way].values
        return float(dose / np.sqrt(np.square(values - 1.0).mean(axis=1)).mean())


def mapped(hrv: HRV, one: Callable[[Row], Row]) -> HRV:
    return HRV(np.stack([one(row) for row in hrv.values]), hrv.concepts, hrv.layout)


class Studio:
    """HRV-mini, sampled with one control on the same place of every prompt of a batch."""

    def __init__(self, options: argparse.Namespace):
        self.model, self.clip, self.vae = load_mini()
        self.negative = encode_prompt(self.clip, "")[0]
        self.steps = options.steps

    def positions(self, text: str, word: str) -> tuple[int, ...]:
        return tuple(token_map(self.clip, text).find(word))

    def readings(
        self, texts: Sequence[str], seeds: Sequence[int], control: Control | None, cfg: float
    ) -> list[Reading]:
        context = torch.cat([encode_prompt(self.clip, text)[0][0][0] for text in texts])
        model, extras = self.model, {}
        if control is not None:
            model, extras = with_mechanism(self.model, [control]), {CONTROLS_KEY: (control,)}
        empty = torch.zeros(1, 12, 16, 16)
        noise = torch.cat([comfy.sample.prepare_noise(empty, seed) for seed in seeds])
        samples = comfy.sample.sample(
            model, noise, self.steps, cfg, "euler", "normal", [[context, extras]], self.negative,
            torch.zeros_like(noise), disable_pbar=True, seed=0,
        )  # fmt: skip
        return read_pictures(self.vae.decode(samples).movedim(-1, 1))


class Strengthen:
    """Prompts that name everything, and one concept twice; the word that the picture doesn't follow is strengthened.

    Where a prompt says one thing of a concept, hardly a picture is wrong, and there is nothing to gain.
    """

    name, half = "strengthen", True
    words: ClassVar[dict[str, tuple[str, ...]]] = {
        "Size": ("small", "large"),
        "Color": tuple(PLAIN_COLORS),
        # The one that is left has two tokens, and all prompts have theirs at the same places.
        "Pattern": tuple(word for word in PATTERNS if word != "checkered"),
        "Shape": SHAPES,
        "Position": tuple(place for place in OFFSETS if place != "center"),
        "Scene": tuple(SCENES),
    }
    concepts = ("Color", "Shape", "Pattern", "Size", "Position")

    def __init__(self, studio: Studio, ways: Ways, options: argparse.Namespace):
        self.studio, self.ways, self.counts, self.cfg = studio, ways, options.cases, 1.0
        self.doses: Sequence[float] = options.doses

    def draw(self, concept: str, seed: int) -> tuple[dict[str, str], list[str]]:
        """A look, and the two words of the concept in the prompt; the look has neither yet."""
        rng = np.random.default_rng((seed, self.concepts.index(concept)))
        look = {one: str(rng.choice(listed)) for one, listed in self.words.items()}
        del look[concept]
        return look, [str(word) for word in rng.choice(self.words[concept], 2, replace=False)]

    def text(self, look: dict[str, str], concept: str, words: list[str]) -> str:
        said = {**look, concept: " ".join(words)}
        first = " ".join(said[one] for one in ("Size", "Color", "Pattern", "Shape"))
        return f"a {first} on the {said['Position']}, {said['Scene']}"

    def there(self, reading: Reading) -> dict[str, str]:
        found = {"Scene": reading.scene}
        for thing in reading.shapes[:1]:
            found |= {"Color": thing.color, "Shape": thing.shape, "Pattern": thing.pattern}
            found |= {"Size": thing.size, "Position": thing.position}
        return found

    def cases(self, part: str) -> list[list[Any]]:
        """Batches of (concept, which of its two words is not followed, seeds)."""
        batches = []
        for concept in self.concepts:
            found: dict[int, list[int]] = {0: [], 1: []}
            wanted, seed = self.counts[part] // len(self.concepts), SEEDS[part]
            while sum(map(len, found.values())) < wanted:
                seeds = range(seed, seed + BATCH)
                drawn = [self.draw(concept, one) for one in seeds]
                texts = [self.text(look, concept, words) for look, words in drawn]
                readings = self.studio.readings(texts, seeds, None, self.cfg)
                for one, (_, words), reading in zip(seeds, drawn, readings, strict=True):
                    shown_word = self.there(reading).get(concept)
                    if shown_word in words and sum(map(len, found.values())) < wanted:
                        found[1 - words.index(shown_word)].append(one)
                seed = seeds.stop
            print(f"{part}, {concept}: {found}", flush=True)
            batches += [
                [concept, which, so_far[first : first + BATCH]]
                for which, so_far in found.items()
                for first in range(0, len(so_far), BATCH)
            ]
        return batches

    def run(self, case: Any, way: str, dose: float) -> list[Found]:
        concept, which, seeds = case
        drawn = [self.draw(concept, seed) for seed in seeds]
        texts = [self.text(look, concept, words) for look, words in drawn]
        control = None
        if dose:
            positions = self.studio.positions(texts[0], drawn[0][1][which])
            control = strengthen(self.ways.hrvs[way], concept, positions, self.ways.strength(way, dose), WHOLE, None)
        found = []
        readings = self.studio.readings(texts, seeds, control, self.cfg)
        for (look, words), reading in zip(drawn, readings, strict=True):
            there = self.there(reading)
            kept = [there.get(one) == word for one, word in look.items()]
            found.append(Found([there.get(concept) == words[which]], kept))
        return found


class Adjust:
    """ "a large forest circle" and its like, read as a color and as a scene."""

    name, half = "adjust", True

    def __init__(self, studio: Studio, ways: Ways, options: argparse.Namespace):
        self.studio, self.ways, self.count, self.cfg = studio, ways, options.words, 1.0
        self.doses: Sequence[float] = options.doses

    def cases(self, part: str) -> list[list[Any]]:
        """Batches of (desired, prompts, seeds)."""
        pairs = [(word, shape) for word in SCENE_COLORS for shape in SHAPES][: self.count]
        return [
            [desired, pairs[first : first + BATCH], SEEDS[part] + first]
            for desired in ("Color", "Scene")
            for first in range(0, len(pairs), BATCH)
        ]

    def run(self, case: Any, way: str, dose: float) -> list[Found]:
        desired, pairs, first = case
        texts = [f"a large {word} {shape}" for word, shape in pairs]
        control = None
        if dose:
            undesired = {"Color": "Scene", "Scene": "Color"}[desired]
            control = adjust(
                self.ways.hrvs[way], desired, undesired, self.studio.positions(texts[0], pairs[0][0]),
                self.ways.strength(way, dose), WHOLE, None,
            )  # fmt: skip
        wanted = {"Color": "color", "Scene": "scene"}[desired]
        readings = self.studio.readings(texts, range(first, first + len(texts)), control, self.cfg)
        return [
            Found(
                [meaning(reading, word) == wanted],
                [any(thing.shape == shape for thing in reading.shapes)],
            )
            for (word, shape), reading in zip(pairs, readings, strict=True)
        ]


class Edits:
    """P2P-HRV: pictures of half-named prompts, one word changed."""

    name, half = "edit", True

    def __init__(self, studio: Studio, ways: Ways, options: argparse.Namespace):
        self.ways, self.count = ways, options.sources
        self.editor = Editor(load_mini(), ways.hrvs, options.steps, 1.0)
        self.doses: Sequence[float] = options.doses

    def cases(self, part: str) -> list[list[Any]]:
        shapes, _ = draw_cases(2 * self.count, SEEDS[part], "half")
        return [[asdict(case)] for case in self.editor.as_asked(shapes)[: self.count]]

    def run(self, case: Any, way: str, dose: float) -> list[Found]:
        asked = Case(**case[0])
        strength = self.ways.strength(way, dose) if dose else 0.0
        pictures = self.editor.pictures(asked, Way(0.8, 0.4, hrv=way, strength=strength))
        wanted, kept = [], []
        for reading, (concept, word) in zip(read_pictures(pictures)[1:], asked.targets.items(), strict=True):
            there = shown(reading)
            wanted.append(there.get(concept) == word)
            kept += [there.get(other) == value for other, value in asked.shown.items() if other != concept]
        return [Found(wanted, kept)]


class Subjects:
    """A&E-HRV: prompts of two things, of the kinds of which some come out right by themselves and some do not."""

    name, half = "subjects", False

    def __init__(self, studio: Studio, ways: Ways, options: argparse.Namespace):
        self.studio, self.ways, self.count, self.pictures = studio, ways, options.prompts, options.pictures
        self.plain: dict[int, list[bool]] = {}
        self.doses: Sequence[float] = STEP_SIZES

    def cases(self, part: str) -> list[list[Any]]:
        kinds = ("shape and plant", "shape and plant on sides", "colored shapes, one side")
        drawn = [asked for kind in kinds for asked in draw_prompts(kind, self.count // len(kinds), SEEDS[part])]
        return [[asked.text, asked.things, SEEDS[part] + number] for number, asked in enumerate(drawn)]

    def run(self, case: Any, way: str, dose: float) -> list[Found]:
        text, things, seed = case
        asked = SubjectPrompt(text, things)
        if seed not in self.plain:
            self.plain[seed] = self.right(asked, seed, None, 0.0)
        plain = self.plain[seed]
        right = self.right(asked, seed, way, dose) if dose else plain
        both = list(zip(plain, right, strict=True))
        return [Found([after for before, after in both if not before], [after for before, after in both if before])]

    def right(self, asked: SubjectPrompt, seed: int, way: str | None, step_size: float) -> list[bool]:
        model, positive = self.studio.model, encode_prompt(self.studio.clip, asked.text)[0]
        if way is not None:
            concepts = [(name, "Shape" if name in SHAPES else "Plants") for _, name in asked.things]
            settings = ExcitementSettings(step_size=step_size, iterations=5)
            model, positive, _ = excite(model, positive, concepts, self.ways.weights[way], settings)
        latent = torch.zeros(self.pictures, 12, 16, 16)
        samples = comfy.sample.sample(
            model, comfy.sample.prepare_noise(latent, seed), self.studio.steps, 4.0, "euler", "normal", positive,
            self.studio.negative, latent, disable_pbar=True, seed=0,
        )  # fmt: skip
        return [asked.right(one) for one in read_pictures(self.studio.vae.decode(samples).movedim(-1, 1))]


Curve = list[list[Found]]
"""Of the strengths from 0 up, what every case came to."""


def means(found: Sequence[Found], weights: npt.NDArray[np.int64]) -> tuple[float, float]:
    """The shares of what was wanted and of what was kept, each case counting so many times."""
    parts = []
    for samples in ([one.wanted for one in found], [one.kept for one in found]):
        right = int(np.array([sum(one) for one in samples]) @ weights)
        total = int(np.array([len(one) for one in samples]) @ weights)
        parts.append(right / max(total, 1))
    return parts[0], parts[1]


def gained(curve: Curve, loss: float, weights: npt.NDArray[np.int64]) -> float:
    """The most that is gained over strength 0 at no more than a loss, with straight lines between strengths."""
    points = [means(found, weights) for found in curve]
    start = points[0]
    line = [(start[1] - kept, wanted - start[0]) for wanted, kept in points]
    best = 0.0
    for (loss_a, gain_a), (loss_b, gain_b) in pairwise(line):
        if loss_b <= loss:
            best = max(best, gain_b)
        elif loss_a <= loss:
            best = max(best, gain_a + (gain_b - gain_a) * (loss - loss_a) / (loss_b - loss_a))
    return best


def compared(curve: Curve, base: Curve, loss: float) -> tuple[str, str]:
    """The gain at a loss with its interval, and that of the difference from the base."""
    cases = len(curve[0])
    one = np.ones(cases, dtype=np.int64)
    drawn = np.random.default_rng(0).multinomial(cases, np.full(cases, 1 / cases), DRAWS)
    own, others = ([gained(what, loss, weights) for weights in drawn] for what in (curve, base))
    cells = []
    for value, draws in (
        (gained(curve, loss, one), np.array(own)),
        (gained(curve, loss, one) - gained(base, loss, one), np.array(own) - np.array(others)),
    ):
        low, high = np.quantile(draws, (0.025, 0.975))
        cells.append(f"{value:+.2f} ({low:+.2f} to {high:+.2f})")
    return cells[0], cells[1]


class Record:
    """All results so far, on disk."""

    def __init__(self, path: Path, made: dict[str, Any]):
        self.path = path
        before = json.loads(path.read_text("utf-8")) if path.exists() else {"made": made, "cases": {}, "found": {}}
        if before["made"] != made:
            raise SystemExit(f"{path} was made with other settings or HRVs: choose another folder with --out.")
        self.made, self.cases, self.found = made, before["cases"], before["found"]

    def save(self) -> None:
        record = {"made": self.made, "cases": self.cases, "found": self.found}
        write_atomically(self.path, json.dumps(record).encode())


def curves(record: Record, task: Any, part: str, names: Sequence[str]) -> dict[str, Curve]:
    """What every way came to at every strength, measured where the record lacks it."""
    key = f"{task.name}/{part}"
    if key not in record.cases:
        record.cases[key] = task.cases(part)
        record.save()
    cases = record.cases[key]
    made: dict[str, Curve] = {}
    for way in names:
        curve: Curve = []
        for dose in (0.0, *task.doses):
            name = f"{key}/{way if dose else 'unsteered'}/{dose:g}"
            rows = record.found.setdefault(name, [])
            for case in cases[len(rows) :]:
                rows.append(task.run(case, way, dose))
                record.save()
            curve.append([Found(*one) for of_case in rows for one in of_case])
            ones = np.ones(len(curve[0]), dtype=np.int64)
            before, now = means(curve[0], ones), means(curve[-1], ones)
            print(f"{name}: wanted {now[0]:.3f}, kept {now[1]:.3f}", flush=True)
            if before[1] - now[1] > ENOUGH:
                break
        made[way] = curve
    return made


def table(made: dict[str, Curve]) -> str:
    head = "".join(f" at a loss of {loss:g} | over {BASE} |" for loss in LOSSES)
    lines = [f"| way |{head}", f"|---|{'---|---|' * len(LOSSES)}"]
    for way, curve in made.items():
        cells = [cell for loss in LOSSES for cell in compared(curve, made[BASE], loss)]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tasks = {one.name: one for one in (Strengthen, Edits, Adjust, Subjects)}
    parser.add_argument("--causal", type=Path, required=True, help="a causal HRV of HRV-mini")
    parser.add_argument("--tasks", nargs="+", choices=list(tasks), default=list(tasks))
    parser.add_argument("--choosing", type=int, default=40, help="pictures to strengthen that choose within families")
    parser.add_argument("--strengthened", type=int, default=80, help="pictures to strengthen")
    parser.add_argument("--sources", type=int, default=32, help="pictures to edit")
    parser.add_argument("--words", type=int, default=18, help="prompts with a word of two meanings")
    parser.add_argument("--prompts", type=int, default=60, help="prompts of two subjects")
    parser.add_argument("--pictures", type=int, default=1, help="pictures of each prompt of two subjects")
    parser.add_argument(
        "--doses", type=float, nargs="+", default=[0.5, 1.0, 2.0, 4.0], help="strengths, of like effect"
    )
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    options.cases = {CHOOSE: options.choosing, REPORT: options.strengthened}
    options.shipped = PACK_ROOT / "hrv_presets" / "hrvs" / "hrv-mini.safetensors"
    options.out.mkdir(parents=True, exist_ok=True)
    causal, shipped = load_hrv(options.causal), load_hrv(options.shipped)
    sizes = {name: getattr(options, name) for name in ("choosing", "strengthened", "sources", "words", "prompts")}
    made = {**sizes, "pictures": options.pictures, "steps": options.steps, "causal": causal.digest}
    record = Record(options.out / "relevance-to-factor.json", made)
    with torch.inference_mode():
        studio, ways = Studio(options), Ways(causal, shipped)
        first = Strengthen(studio, ways, options)
        with torch.autocast("cpu", torch.bfloat16):
            chosen = curves(record, first, CHOOSE, list(MAPS))
        ones = np.ones(len(chosen[BASE][0]), dtype=np.int64)
        best = [
            max(members, key=lambda one: sum(gained(chosen[one], loss, ones) for loss in LOSSES))
            for members in FAMILIES.values()
        ]
        text = f"Chosen: {', '.join(best)}.\n"
        for name in options.tasks:
            task = first if name == first.name else tasks[name](studio, ways, options)
            # Half as long on processors that know bfloat16, and all ways share what it costs in precision.
            with torch.autocast("cpu", torch.bfloat16, enabled=task.half):
                found = curves(record, task, REPORT, [*best, SHIPPED])
            text += f"\n{name}, {len(found[BASE][0])} cases:\n\n{table(found)}\n"
            write_atomically(options.out / "relevance-to-factor.md", text.encode())
    print(text)


if __name__ == "__main__":
    main()
