"""Whether a model reads its words where they stand, and through which heads: measured on pairs of prompts.

Pairs, pictures and shares are those of a causal build (:mod:`..host.building.causal`). Its report tells through which
tokens the first few pairs of a concept act; here all pairs count, so that there are intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..host.building.attribution import Attribution
from ..host.building.causal import CausalSettings
from ..host.building.pair_images import NumberedPair, PairImages
from ..host.building.patching import Patch
from ..host.building.word_places import WordPlaces
from ..hrv.building.causal_state import GROUPS
from ..hrv.building.pairs import Example, draw_pairs
from ..hrv.relevance.evidence import Effects, normalised
from ..hrv.weakening.statistics import Estimate
from .evaluation import table

MEASURES = ("own word alone", "lost without it", "end and padding alone", "lost without them", "sum over heads")
"""Shares of a concept's effect: of the text at some tokens, and of what is lost where the text stays as it was."""

DRAWS = 400
"""So many times pairs are drawn again, with replacement, for the intervals."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class WordReport:
    """What pairs of prompts gave, whose ``effects`` have four columns before those of the heads.

    Those are the parts of an effect that are left if text is exchanged at the own word alone, everywhere else, at end
    and padding alone, and everywhere else.
    """

    concepts: tuple[str, ...]
    effects: Effects

    def measures(self) -> dict[str, dict[str, Estimate]]:
        """Concept -> measure (:data:`MEASURES`) -> estimate."""
        return self._estimates(_measures, MEASURES)

    def cosines(self) -> dict[str, dict[str, Estimate]]:
        """Concept -> concept -> the cosine of their causal relevances."""
        return self._estimates(_cosines, self.concepts)

    def to_json(self) -> dict[str, Any]:
        return {
            name: {row: {column: one._asdict() for column, one in cells.items()} for row, cells in found.items()}
            for name, found in (("own words", self.measures()), ("cosines", self.cosines()))
        }

    def to_markdown(self) -> str:
        """Two tables of estimates."""
        parts = []
        for head, columns, found in (
            ("Share of the effect", MEASURES, self.measures()),
            ("Cosine", self.concepts, self.cosines()),
        ):
            rows = [[row, *(_spelled(cells[column]) for column in columns)] for row, cells in found.items()]
            parts.append(table([head, *columns], rows))
        return "\n".join(parts)

    def _estimates(
        self, measure: Callable[[Numbers], Numbers], columns: Sequence[str]
    ) -> dict[str, dict[str, Estimate]]:
        """What ``measure`` makes of shares [N, 4 + H], a row for each concept, with intervals by pairs."""
        random = np.random.default_rng(0)
        whole = measure(self.effects.scores(len(self.concepts)))
        drawn = np.stack([measure(self._drawn_again(random)) for _ in range(DRAWS)])
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        return {
            concept: {
                column: Estimate(*(float(numbers[row, place]) for numbers in (whole, low, high)))
                for place, column in enumerate(columns)
            }
            for row, concept in enumerate(self.concepts)
        }

    def _drawn_again(self, random: np.random.Generator) -> Numbers:
        """Shares from as many pairs of every concept, drawn with replacement."""
        rows = self.effects.pairs[:, 0]
        own = [np.flatnonzero(rows == row) for row in range(len(self.concepts))]
        chosen = np.concatenate([random.choice(places, len(places)) for places in own])
        pairs = self.effects.pairs[chosen].copy()
        pairs[:, 1] = np.arange(len(pairs))
        return Effects(self.effects.effects[chosen], self.effects.norms[chosen], pairs).scores(len(own))


def _spelled(one: Estimate) -> str:
    """With two decimals: so few pairs tell no more."""
    return f"{one.value:.2f} ({one.low:.2f} to {one.high:.2f})"


def _measures(shares: Numbers) -> Numbers:
    own, but_own, ends, but_ends = shares[:, :4].T
    return np.stack([own, 1 - but_own, ends, 1 - but_ends, shares[:, 4:].sum(axis=1)], axis=1)


def _cosines(shares: Numbers) -> Numbers:
    relevance = normalised(shares[:, 4:]).astype(np.float64)
    units = relevance / np.maximum(np.linalg.norm(relevance, axis=1, keepdims=True), 1e-12)
    return np.asarray(units @ units.T)


def measure_words(
    model: Any,
    clip: Any,
    examples: Mapping[str, Sequence[Example]],
    settings: CausalSettings,
    report: Callable[[str], None],
) -> WordReport:
    """Measure ``settings.pairs`` pairs of every concept of ``examples``; ``report`` is told of each concept done.

    Raises HRVError as a causal build does.
    """
    attribution = Attribution(model)
    images = PairImages(model, clip, settings, settings.negative, settings.seed, settings.levels)
    places_of = WordPlaces(clip)
    effects, norms, places = [], [], []
    for row, (concept, of_concept) in enumerate(examples.items()):
        drawn = draw_pairs(concept, of_concept, places_of, settings.pairs, settings.seed)
        pairs = [NumberedPair(pair, number, number % len(settings.levels)) for number, pair in enumerate(drawn)]
        for start in range(0, len(pairs), settings.batch_size):
            batch = pairs[start : start + settings.batch_size]
            for chosen, sigma, those in images.made(batch, lambda done: None):
                own = [batch[place] for place in chosen]
                found = attribution.effects(those, sigma, _patches(images, own))
                effects.append(np.concatenate([found.patches, found.heads], axis=1))
                norms.append(found.squares)
                places += [(row, one.number, one.level) for one in own]
        report(concept)
    return WordReport(tuple(examples), Effects(np.concatenate(effects), np.concatenate(norms), np.array(places)))


def _patches(images: PairImages, pairs: Sequence[NumberedPair]) -> list[Patch]:
    """Exchanges of the text at the own word, everywhere else, at end and padding, and everywhere else."""
    groups = dict(zip(GROUPS, images.groups(pairs), strict=True))
    own, ends = groups["own word"], groups["end"] | groups["padding"]
    return [Patch(positions=positions) for positions in (own, ~own, ends, ~ends)]
