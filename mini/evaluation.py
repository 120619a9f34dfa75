"""How often pictures show what their captions say: shares per concept, for pairs and for words with two meanings.

Any source of pictures can be measured: :func:`evaluate` takes a function from captions to pictures. With the renderer
as the source, the same table is the scorer's own accuracy.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .captions import Sample, draw_samples
from .scorer import Reading, describe, meaning, pair_correct, read_pictures, score
from .world import CONCEPTS, PLANT_COLORS, SCENE_COLORS, TWO_MEANINGS, Pictures, draw

SINGLE, PAIR = "single", "pair"
AMBIGUOUS = {"color or scene": SCENE_COLORS, "color or plant": PLANT_COLORS}
"""Kinds of captions in which a word has two meanings, and the words."""

EVALUATED_KINDS = (SINGLE, PAIR, "plant", "colored", *AMBIGUOUS, "shape and plant")
PAIR_MEASURES = ("ordered", "bound", "present")

PicturesFor = Callable[[list[str]], torch.Tensor]
"""Captions to pictures [B, 3, 32n, 32n] in 0..1."""


def wilson_interval(right: float, total: float) -> tuple[float, float]:
    """The 95 % interval (Wilson's) of a share of ``right`` in ``total``; of no samples it is 0 to 1."""
    if not total:
        return 0.0, 1.0
    z = 1.959964
    share, spread = right / total, z**2 / total
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Asked:
    """Captions of one kind, what they name, and the renderer's pictures of them."""

    kind: str
    samples: list[Sample]
    truth: Pictures

    @property
    def captions(self) -> list[str]:
        return [sample.caption for sample in self.samples]


def ask(count: int, seed: int, kinds: Sequence[str] = EVALUATED_KINDS) -> list[Asked]:
    """Draw ``count`` captions of every kind; each kind has its own generator."""
    streams = zip(kinds, np.random.SeedSequence(seed).spawn(len(kinds)), strict=True)
    return [Asked(kind, *draw_samples(count, np.random.default_rng(stream), kind)) for kind, stream in streams]


@dataclass
class Tally:
    """``right`` of ``total`` samples."""

    right: int = 0
    total: int = 0

    def add(self, right: bool) -> None:
        self.right += right
        self.total += 1

    def to_json(self) -> dict[str, Any]:
        return {"right": self.right, "total": self.total, "interval": wilson_interval(self.right, self.total)}

    def __str__(self) -> str:
        if not self.total:
            return ""
        low, high = wilson_interval(self.right, self.total)
        return f"{self.right / self.total:.3f} ({low:.3f} to {high:.3f})"


@dataclass
class Report:
    """Tallies per kind of caption and concept, per measure of pairs, and readings per word with two meanings."""

    concepts: dict[str, dict[str, Tally]] = field(default_factory=dict)
    pairs: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in PAIR_MEASURES})
    meanings: dict[str, Counter[str]] = field(default_factory=lambda: {word: Counter() for word in TWO_MEANINGS})

    def add(self, asked: Asked, readings: Sequence[Reading]) -> None:
        """Score the readings of the pictures of ``asked``."""
        tallies = self.concepts.setdefault(asked.kind, {})
        for sample, reading, truth in zip(asked.samples, readings, describe(asked.truth), strict=True):
            for concept, right in score(reading, sample).items():
                tallies.setdefault(concept, Tally()).add(right)
            if asked.kind == PAIR:
                found = pair_correct(reading, [(thing.color, thing.shape) for thing in truth.shapes])
                for name in PAIR_MEASURES:
                    self.pairs[name].add(getattr(found, name))
            if asked.kind in AMBIGUOUS:
                word = next(word for word in sample.caption.split() if word in AMBIGUOUS[asked.kind])
                self.meanings[word][meaning(reading, word)] += 1

    def to_json(self) -> dict[str, Any]:
        return {
            "concepts": {
                kind: {concept: tally.to_json() for concept, tally in tallies.items()}
                for kind, tallies in self.concepts.items()
            },
            "pairs": {name: tally.to_json() for name, tally in self.pairs.items()},
            "meanings": {
                word: {name: self.meanings[word][name] for name in _meanings(kind)}
                for kind, words in AMBIGUOUS.items()
                for word in words
            },
        }

    def to_markdown(self) -> str:
        """Tables of shares with their 95 % intervals."""
        rows = [
            [concept, *(str(tallies.get(concept, Tally())) for tallies in self.concepts.values())]
            for concept in CONCEPTS
        ]
        parts = [table(["Share right", *self.concepts], rows)]
        if PAIR in self.concepts:
            parts.append(table(["Pairs", *self.pairs], [["share", *map(str, self.pairs.values())]]))
        for kind in [kind for kind in AMBIGUOUS if kind in self.concepts]:
            names = _meanings(kind)
            rows = [_shares(word, self.meanings[word], names) for word in AMBIGUOUS[kind]]
            parts.append(table(["Read as", *names], rows))
        return "\n".join(parts)


def _meanings(kind: str) -> tuple[str, ...]:
    """How the words of an ambiguous kind can be read."""
    return (*kind.split(" or "), "both", "neither")


def _shares(word: str, found: Counter[str], names: Sequence[str]) -> list[str]:
    return [word, *(str(Tally(found[name], found.total())) for name in names)]


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def evaluate(pictures_for: PicturesFor, asked: Sequence[Asked]) -> Report:
    """Have all captions drawn and tell how often the pictures show what they say."""
    report = Report()
    for part in asked:
        report.add(part, read_pictures(pictures_for(part.captions)))
    return report


def evaluate_scorer(asked: Sequence[Asked]) -> Report:
    """The same for the renderer's own pictures: where this is not 1, the scorer is wrong."""
    report = Report()
    for part in asked:
        report.add(part, read_pictures(draw(part.truth)))
    return report
