"""Ordered weakening: what is left of a concept while the heads of HRVs of several kinds are weakened.

Prompts name every attribute of a shape ("a large red striped circle on the left, night"), so that one picture tells of
all concepts but Plants; prompts of plants name plant, position and scene. No HRV was made from any of them, and each
has a seed of its own. All words are weakened in the first heads of an order, most or least relevant first. "area" is
the mean, over the numbers of heads, of how much more of the concept is left with the least relevant heads weakened than
with the most relevant; "most" and "least" are what is left. "loss" is the concept x concept matrix: how much of a
concept (column) is lost where another's heads (row) are set to zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import groupby, product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...host.prompts.carried import CONTROLS_KEY
from ...host.prompts.encoding import encode_prompt, token_map
from ...hrv.controls.control import Control
from ...hrv.drawing.charts import Axis, Chart, Key
from ...hrv.drawing.matrix import matrix_picture
from ...hrv.relevance.orders import LEAST_RELEVANT_FIRST, MOST_RELEVANT_FIRST, RANDOM, head_order
from ...hrv.relevance.vectors import HRV
from ...hrv.scoring.experiments import parse_experiment
from ...mini.captions import Sample, draw_samples
from ...mini.evaluation import table
from ...mini.scorer import score
from .hrvs import EXPERIMENT, HRVs, captions, needed
from .measured import Numbers, Values, goals, of_means, of_shares
from .pieces import Piece, Section, Store
from .sizes import REPORTING, Sizes
from .studio import TOGETHER, Sampler, studio

SHAPES, PLANTS = "single", "plant"
NAMED = {SHAPES: 6, PLANTS: 3}
"""Kinds of captions, and how many concepts one of them can name."""

ORDERS = {"most": MOST_RELEVANT_FIRST, "least": LEAST_RELEVANT_FIRST}
MATRIX_HEADS = 12
# Four steps without CFG make nearly as many right pictures as many with it, at a tenth of the time.
SAMPLER = Sampler(4, 1.0)
# Captions to choose from; about a quarter name all they can.
_DRAWN = 4000
COLORS = {
    "paper": (150, 45, 18), "all words": (220, 121, 51), "causal": (50, 98, 169), "values": (56, 142, 112),
    "shuffled": (98, 102, 108), "random": (160, 160, 160),
}  # fmt: skip

_GOALS = (
    ("ordered_weakening.mean.causal.0.area", ">=", 0.45),
    ("ordered_weakening.mean.values.0.area", ">=", 0.3),
)


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


@cache
def draw_prompts(kind: str, count: int, images: int) -> list[Sample]:
    """So many captions that name all they can, none of which any HRV was made from."""
    experiment = parse_experiment(EXPERIMENT.read_text(encoding="utf-8"))
    known = {*captions(0, images), *(case.prompt for case in experiment.cases)}
    drawn, _ = draw_samples(_DRAWN, np.random.default_rng([REPORTING, NAMED[kind]]), kind)
    fresh = {
        sample.caption: sample for sample in drawn if len(sample.named) == NAMED[kind] and sample.caption not in known
    }
    return list(fresh.values())[:count]


def all_ways(sizes: Sizes) -> Iterator[Way]:
    """Every way but the one that weakens nothing."""
    for (factor, numbers), kind in product(sizes.weakened_heads, sizes.weakened_kinds):
        for heads, order in product(numbers, ORDERS):
            if kind == RANDOM:
                kinds = dict.fromkeys(map(prompts_of, sizes.weakened_concepts))
                yield from (Way(prompts, kind, "", order, heads, factor) for prompts in kinds)
            else:
                for concept in sizes.weakened_concepts:
                    yield Way(prompts_of(concept), kind, concept, order, heads, factor)
    for kind, concept, prompts in product(sizes.matrix_kinds, sizes.weakened_concepts, NAMED):
        yield Way(prompts, kind, concept, "most", MATRIX_HEADS, 0.0)


def factors_of(way: Way, hrv: HRV) -> npt.NDArray[np.float32]:
    """The factor of every head: float32 [H]."""
    if way.kind == RANDOM:
        order = head_order(hrv, hrv.concepts[0], RANDOM, 1)
        order = order[::-1] if way.order == "least" else order
    else:
        order = head_order(hrv, way.concept, ORDERS[way.order])
    factors = np.ones(hrv.layout.head_count, np.float32)
    factors[order[: way.heads]] = way.factor
    return factors


class OrderedWeakening:
    name = "ordered_weakening"
    title = "Ordered weakening"

    def __init__(self, hrvs: HRVs):
        self.hrvs = hrvs

    def piece(self, way: Way, store: Store, sizes: Sizes) -> Piece:
        hrv = self._hrv(way, store, sizes).digest if way.kind not in ("", RANDOM) else ""
        what = {**asdict(way), "hrv": hrv, "count": sizes.weakened_prompts, "images": sizes.images}
        return Piece(self.name, what, sizes.weakened_prompts * (SAMPLER.cost + 1.0))

    def pieces(self, store: Store, sizes: Sizes) -> Sequence[Piece]:
        missing = self.hrvs.missing(needed((*sizes.weakened_kinds, "causal")), store, sizes)
        if missing:
            return missing
        ways = dict.fromkeys(all_ways(sizes))
        ways |= dict.fromkeys(_unweakened(way.prompts) for way in tuple(ways))
        return [self.piece(way, store, sizes) for way in ways]

    def make(self, store: Store, sizes: Sizes, what: dict[str, Any]) -> Any:
        """Of every prompt, whether its picture shows each concept as it says."""
        way = Way(**{name: what[name] for name in Way.__dataclass_fields__})
        hrv = self._hrv(way, store, sizes)
        factors = factors_of(way, hrv) if way.kind else np.ones(hrv.layout.head_count, np.float32)
        samples = draw_prompts(way.prompts, what["count"], what["images"])
        at = studio(self.hrvs.weights)
        words = [token_map(at.clip, sample.caption).content_positions for sample in samples]
        found: dict[int, dict[str, bool]] = {}
        for positions, group in groupby(sorted(range(len(samples)), key=words.__getitem__), key=words.__getitem__):
            rows = list(group)
            for some in (rows[first : first + TOGETHER] for first in range(0, len(rows), TOGETHER)):
                context = torch.cat([encode_prompt(at.clip, samples[row].caption)[0][0][0] for row in some])
                positive = [[context, {CONTROLS_KEY: (Control(factors, positions, hrv.layout),)}]]
                readings = at.readings(at.model, positive, [REPORTING + row for row in some], SAMPLER)
                found |= {row: score(one, samples[row]) for row, one in zip(some, readings, strict=True)}
        return [found[row] for row in range(len(samples))]

    def section(self, store: Store, sizes: Sizes) -> Section:
        numbers: Numbers = {}
        for (factor, counts), kind in product(sizes.weakened_heads, sizes.weakened_kinds):
            areas: dict[str, Values] = {}
            for concept in sizes.weakened_concepts:
                key = f"{self.name}.{concept}.{plain(kind)}.{factor:g}"
                left = {order: self._line(kind, concept, order, factor, store, sizes) for order in ORDERS}
                for order, line in left.items():
                    for heads, shown in zip(counts, line, strict=True):
                        numbers[f"{key}.{order}.{heads}"] = of_shares([[bool(one)] for one in shown])
                areas[concept] = (left["least"] - left["most"]).mean(axis=0)
                numbers[f"{key}.area"] = of_means([areas[concept]])
            groups = [list(NAMED).index(prompts_of(concept)) for concept in areas]
            numbers[f"{self.name}.mean.{plain(kind)}.{factor:g}.area"] = of_means(list(areas.values()), groups)
        for concept in sizes.weakened_concepts:
            shown = self._shown(_unweakened(prompts_of(concept)), concept, store, sizes)
            numbers[f"{self.name}.{concept}.unweakened"] = of_shares([[bool(one)] for one in shown])
        pictures = {"ordered-weakening.png": self._curves(numbers, sizes)}
        for kind in sizes.matrix_kinds:
            matrix = self._matrix(kind, store, sizes, numbers)
            title = f"What is lost of a concept by factor 0 in {MATRIX_HEADS} heads, {kind}"
            rows = [f"heads of {concept}" for concept in sizes.weakened_concepts]
            pictures[f"side-effects-{kind.replace(' ', '-')}.png"] = matrix_picture(
                matrix, rows, sizes.weakened_concepts, "share lost", title=title
            )
        return Section(self.title, numbers, self._text(numbers, sizes), pictures)

    def _hrv(self, way: Way, store: Store, sizes: Sizes) -> HRV:
        """That of a way; any for random orders and none at all."""
        return self.hrvs.hrv("causal" if way.kind in ("", RANDOM) else way.kind, store, sizes)

    def _shown(self, way: Way, concept: str, store: Store, sizes: Sizes) -> Values:
        """Whether the pictures [prompts] of a way show a concept."""
        return np.array([float(one[concept]) for one in store.of(self.piece(way, store, sizes))])

    def _line(self, kind: str, concept: str, order: str, factor: float, store: Store, sizes: Sizes) -> Values:
        """Whether pictures [numbers of heads, prompts] show a concept along an order of its heads."""
        named, counts = "" if kind == RANDOM else concept, dict(sizes.weakened_heads)[factor]
        ways = [Way(prompts_of(concept), kind, named, order, heads, factor) for heads in counts]
        return np.stack([self._shown(way, concept, store, sizes) for way in ways])

    def _matrix(self, kind: str, store: Store, sizes: Sizes, numbers: Numbers) -> Values:
        """What is lost [weakened, scored]; all of it goes into ``numbers``."""
        matrix = np.zeros((len(sizes.weakened_concepts),) * 2)
        for (row, weakened), (column, scored) in product(*(list(enumerate(sizes.weakened_concepts)),) * 2):
            prompts = prompts_of(scored)
            plain_ones = self._shown(_unweakened(prompts), scored, store, sizes)
            left = self._shown(Way(prompts, kind, weakened, "most", MATRIX_HEADS, 0.0), scored, store, sizes)
            found = of_means([plain_ones - left])
            numbers[f"{self.name}.loss.{plain(kind)}.{weakened}.{scored}"] = found
            matrix[row, column] = found.value
        return matrix

    def _curves(self, numbers: Numbers, sizes: Sizes) -> Any:
        """What is left of a concept, mean over concepts, by how many heads are set to zero."""
        counts = dict(sizes.weakened_heads)[0.0]
        keys = {kind: Key(kind, COLORS[kind]) for kind in sizes.weakened_kinds}
        across = Axis("heads set to zero", 0.0, float(counts[-1]), (0.0, *map(float, counts)))
        chart = Chart(
            "Pictures that still show the concept, most relevant heads first; thin: least", list(keys.values()), across,
            Axis("share", 0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0)),
        )  # fmt: skip
        start = np.mean([numbers[f"{self.name}.{one}.unweakened"].value for one in sizes.weakened_concepts])
        for kind, key in keys.items():
            for order, width in (("least", 1), ("most", 3)):
                means = [
                    np.mean([
                        numbers[f"{self.name}.{one}.{plain(kind)}.0.{order}.{heads}"].value
                        for one in sizes.weakened_concepts
                    ])
                    for heads in counts
                ]  # fmt: skip
                line = Key(key.text, key.color, width)
                chart.line([0.0, *map(float, counts)], [float(start), *map(float, means)], line, dots=True)
        return chart.picture

    def _text(self, numbers: Numbers, sizes: Sizes) -> str:
        concepts = [*sizes.weakened_concepts, "mean"]
        rows = []
        for (factor, counts), kind in product(sizes.weakened_heads, sizes.weakened_kinds):
            cells = [str(numbers[f"{self.name}.{one}.{plain(kind)}.{factor:g}.area"]) for one in concepts]
            rows.append([kind, f"{factor:g}", ", ".join(map(str, counts)), *cells])
        above = all(numbers[f"{self.name}.{one}.causal.0.area"].low > 0.0 for one in sizes.weakened_concepts)
        shown = ", ".join(
            f"{one} {numbers[f'{self.name}.{one}.unweakened'].value:.2f}" for one in sizes.weakened_concepts
        )
        return (
            f"Area between least and most relevant heads first. {sizes.weakened_prompts} prompts of shapes and as many "
            f"of plants, a seed each; {SAMPLER}. Unweakened pictures show {shown}.\n\n"
            f"{table(['heads of', 'factor', 'numbers of heads', *concepts], rows)}\n"
            f"{goals(numbers, _GOALS)}"
            f"- causal at factor 0, every concept's interval above 0: {'met' if above else '**not met**'}\n"
        )


def plain(name: str) -> str:
    """A name as a part of a key."""
    return name.replace(" ", "_")


def _unweakened(prompts: str) -> Way:
    return Way(prompts, "", "", "", 0, 1.0)
