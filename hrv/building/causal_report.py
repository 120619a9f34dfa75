"""What a causal build found besides the HRV: how complete it is, how sure, and through which tokens a concept acts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..drawing.matrix import matrix_picture
from ..relevance.evidence import Effects, Scores
from ..relevance.ranking import top_count
from .causal_state import GROUPS
from .convergence import expected_agreement

THROUGH_OWN_WORD = 0.5
"""With less of its effect through its own word, a concept is said to go through other tokens."""

OUT_OF_REACH = 0.1
"""With less than that, it is said to be out of reach of controls on that word."""

_COLUMNS = ("sum over heads", "own word", "other words", "end", "padding", "top heads", "top heads, true", "agreement")
_MOST_ROWS = 60
# So many pairs are named in a sentence.
_NAMED = 3
_NAMED_WORDS = 6


@dataclass(frozen=True)
class ConceptReport:
    """What was found for one concept; numbers that were not measured are None.

    ``pairs``        how many pairs were measured, ``different`` how many of them differ in their prompts.
    ``complete``     the sum of all heads' shares, 1.0 if the estimate accounts for the whole effect.
    ``by_level``     the same at each noise level at which the concept was measured, by its sampling progress.
    ``silent``       pairs whose words change nothing, each "A / B": they are left out of everything else.
    ``groups``       the share of the effect that goes through each group of tokens (:data:`~.causal_state.GROUPS`).
    ``top``          the share that the estimate gives the top heads together, ``top_true`` what patching them does,
                     both in the same ``checked`` pairs.
    ``agreement``    expected correlation of the shares with those of an endless build, from two halves of the pairs.
    ``alone``        words that make no pair with any other word of the concept.
    """

    concept: str
    pairs: int
    different: int
    complete: float
    groups: Mapping[str, float | None]
    top: float | None
    top_true: float | None
    checked: int
    agreement: float | None
    by_level: Mapping[str, float] = field(default_factory=dict)
    silent: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()

    @property
    def own_word(self) -> float | None:
        return self.groups[GROUPS[0]]

    def sentences(self) -> list[str]:
        """What a user must know before using this concept; nothing if all is well."""
        said = []
        if self.own_word is not None and self.own_word < THROUGH_OWN_WORD:
            through = max((name for name in GROUPS[1:]), key=lambda name: self.groups[name] or 0.0)
            reached = "can't reach it" if self.own_word < OUT_OF_REACH else "reach no more of it than that"
            said.append(
                f"Only {max(self.own_word, 0.0):.0%} of what {self.concept} does goes through its own word (most of "
                f"the rest: {through}), so controls on that word {reached}."
            )
        if not _is_complete(self.complete):
            said.append(f"{self.concept}: the heads' shares add up to {self.complete:.2f} instead of about 1.")
        if off := [f"{total:.2f} at {level}" for level, total in self.by_level.items() if not _is_complete(total)]:
            said.append(
                f"{self.concept}: at some noise levels the heads' shares do not add up to about 1: "
                f"{', '.join(off)}. Which heads come first is less sure there."
            )
        if self.silent:
            more = " ..." if len(self.silent) > _NAMED else "."
            said.append(
                f"{self.concept}: {len(self.silent)} of {self.pairs} pairs change nothing and are left out: "
                f"{', '.join(self.silent[:_NAMED])}{more}"
            )
        if self.different < self.pairs:
            said.append(
                f"{self.concept} has {self.different} different pairs of prompts, so some were measured again on other "
                f"images. More words or sentences make it surer.{self._alone()}"
            )
        return said

    def _alone(self) -> str:
        """Which words to add partners for."""
        if not self.alone:
            return ""
        more = ", ..." if len(self.alone) > _NAMED_WORDS else ""
        return (
            " No other word of the concept has as many tokens in the same sentence as: "
            f"{', '.join(self.alone[:_NAMED_WORDS])}{more}."
        )


@dataclass(frozen=True)
class CausalReport:
    """The reports of all concepts, in order."""

    concepts: tuple[ConceptReport, ...]
    top_heads: int

    def text(self) -> str:
        """One line a concept, then what must be known."""
        lines = [
            f"{one.concept}: {one.pairs} pairs, sum {one.complete:.2f}, own word {_share(one.own_word)}, "
            f"agreement {_number(one.agreement)}"
            for one in self.concepts
        ]
        return "\n".join([*lines, *self.sentences()])

    def sentences(self) -> list[str]:
        return [sentence for one in self.concepts for sentence in one.sentences()]

    def to_json(self) -> str:
        return json.dumps(
            {
                "top_heads": self.top_heads,
                "concepts": [asdict(one) for one in self.concepts],
                "sentences": self.sentences(),
            },
            indent=1,
        )

    def picture(self) -> Image.Image:
        """A row for each concept (the first 60), a column for each number."""
        shown = self.concepts[:_MOST_ROWS]
        rows = [
            [one.complete, *(one.groups[name] for name in GROUPS), one.top, one.top_true, one.agreement]
            for one in shown
        ]
        numbers = np.array([[math.nan if value is None else value for value in row] for row in rows])
        return matrix_picture(
            numbers, [one.concept for one in shown], _COLUMNS, "share of a concept's effect", title="Causal HRV"
        )


def _is_complete(total: float) -> bool:
    """Whether shares that add up to ``total`` account for the effect."""
    return 0.8 <= total <= 1.25


def agreements(evidence: Effects, concepts: int) -> list[float | None]:
    """The expected correlation of each concept's shares with those of an endless build; None for less than two pairs.

    The pairs of a concept go to two halves in turn, noise level by noise level; of halves that correlate by r the whole
    is expected to correlate by sqrt(2r / (1 + r)) with an endless build (:mod:`.convergence`).
    """
    rows, numbers, levels = evidence.pairs.T
    turn = np.zeros(len(rows), dtype=np.int64)
    for row in range(concepts):
        own = np.flatnonzero(rows == row)
        turn[own[np.lexsort((numbers[own], levels[own]))]] = np.arange(len(own)) % 2
    halves = [half.scores(concepts) for half in (evidence.chosen(turn == 0), evidence.chosen(turn == 1)) if half]
    if len(halves) < 2:
        return [None] * concepts
    found = expected_agreement(_correlations(halves[0], halves[1]))
    return [float(found[row]) if (rows == row).sum() > 1 else None for row in range(concepts)]


def group_shares(effects: Effects, groups: npt.NDArray[np.float32]) -> dict[str, float | None]:
    """The share of one concept's effect through each group of tokens, of the parts [P, 4] in the same pairs.

    Pairs in which they were not measured, NaN, are left out.
    """
    there = ~np.isnan(groups).any(axis=1)
    if not there.any() or not effects.norms[there].any():
        return dict.fromkeys(GROUPS)
    # Groups share an effect as heads do.
    parts = Effects(groups[there], effects.norms[there], effects.pairs[there])
    return dict(zip(GROUPS, map(float, parts.scores(int(parts.pairs[:, 0].max()) + 1)[-1]), strict=True))


def top_heads(scores: Scores) -> list[frozenset[int]]:
    """The top heads of every concept (:func:`~..relevance.ranking.top_count`), from scores [N, H]."""
    number = top_count(scores.shape[1])
    return [frozenset(np.argsort(-row, kind="stable")[:number].tolist()) for row in scores]


def _correlations(one: Scores, other: Scores) -> Scores:
    """Pearson's correlation of every row of two arrays [N, H]; 0 where a row is constant."""
    a, b = (scores - scores.mean(axis=1, keepdims=True) for scores in (one, other))
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), scale, out=np.zeros(len(scale)), where=scale > 0)


def _share(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.0%}"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
