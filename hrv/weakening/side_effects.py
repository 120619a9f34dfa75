"""What weakening one concept's heads does to every concept: a matrix of concepts x concepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import HRVError
from ..relevance.vocabulary import fold
from ..scoring.experiments import Case, Experiment
from .plan import Scores
from .statistics import Estimate, estimate

# By the words of a target: concept -> the targets with these words.
_Targets = dict[tuple[str, ...], dict[str, set[str]]]


@dataclass(frozen=True, eq=False)
class SideEffects:
    """Scores of the same prompts and seeds, unweakened and with the heads of one concept after another weakened.

    ``weakened``    the concepts whose ``heads`` most relevant heads get ``factor``.
    ``cases``       what was scored, several cases of one prompt from the same image.
    ``scores``      float64 [1 + weakened, cases, seeds], unweakened first; NaN where the scorer failed.
    ``provenance``  what it was measured with, a JSON object.
    """

    weakened: tuple[str, ...]
    heads: int
    factor: float
    cases: tuple[Case, ...]
    scores: Scores
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def scored(self) -> tuple[str, ...]:
        """The concepts that there are cases for, those that are weakened too first and in their order."""
        there = {fold(case.concept): case.concept for case in self.cases}
        own = [there.pop(fold(concept)) for concept in self.weakened if fold(concept) in there]
        return (*own, *there.values())

    def unweakened(self, scored: str) -> float:
        """The mean score of a concept as it is, of the images that :meth:`loss` compares."""
        return float(self._of(scored)[0].mean(where=self._complete(scored)))

    def loss(self, weakened: str, scored: str) -> Estimate:
        """How much of a concept's score is lost where another's heads, or its own, are weakened.

        The interval is a bootstrap over prompts and, in each, seeds.
        """
        return self._estimates[weakened, scored]

    def images(self, scored: str) -> int:
        """How many images every number of a concept is the mean of."""
        return int(self._complete(scored).sum())

    @cached_property
    def _estimates(self) -> dict[tuple[str, str], Estimate]:
        """Every loss by (weakened, scored): intervals take a while, and pictures, tables and files all ask for them."""
        found = {}
        for scored in self.scored:
            scores, complete = self._of(scored), self._complete(scored)
            for weakened, its in zip(self.weakened, scores[1:], strict=True):
                found[weakened, scored] = estimate(np.where(complete, scores[0] - its, np.nan))
        return found

    @cached_property
    def losses(self) -> Scores:
        """Every loss: float64 [weakened, scored]."""
        return np.array([[self.loss(row, column).value for column in self.scored] for row in self.weakened])

    def _of(self, scored: str) -> Scores:
        """Scores [1 + weakened, cases, seeds] of a concept."""
        return self.scores[:, [case.concept == scored for case in self.cases]]

    def _complete(self, scored: str) -> Any:
        """Where [cases, seeds] every image could be scored. Raises HRVError if that is nowhere."""
        complete = np.isfinite(self._of(scored)).all(axis=0)
        if not complete.any():
            raise HRVError(
                f"No prompt's images could all be scored for {scored}, so nothing can be said of it. The log says why "
                "the scorer failed."
            )
        return complete


def cases_by_prompt(experiment: Experiment, concepts: Sequence[str], most: int = 0) -> list[tuple[Case, ...]]:
    """Every prompt that an experiment has for some concepts, with all that it says of them.

    Beside its own cases a prompt has one for each other concept of which it holds exactly one of the targets, as whole
    words and not within a longer one: "a large red circle", a prompt of Color, also says what Size and Shape are, if
    the experiment scores them by "large" and "circle". ``most`` takes that many cases of each concept, evenly spread; 0
    takes all. Raises HRVError for a concept without cases.
    """
    cases = [case for concept in concepts for case in experiment.of(concept, most)]
    targets: _Targets = {}
    for name in {case.concept: None for case in cases}:
        for case in experiment.of(name):
            targets.setdefault(_words(case.target), {}).setdefault(name, set()).add(case.target)
    found: dict[str, dict[Case, None]] = {}
    for case in cases:
        found.setdefault(case.prompt, {})[case] = None
    for prompt, its in found.items():
        own = {case.concept for case in its}
        for name, named in _named(prompt, targets).items():
            if name not in own and len(named) == 1:
                its[Case(name, prompt, named.pop())] = None
    return [tuple(its) for its in found.values()]


def _named(prompt: str, targets: _Targets) -> dict[str, set[str]]:
    """Of each concept the targets that a prompt holds, without those that are only there within longer ones."""
    words, lengths = _words(prompt), sorted({len(those) for those in targets} - {0}, reverse=True)
    found: dict[str, set[str]] = {name: set() for its in targets.values() for name in its}
    ends = dict.fromkeys(found, 0)
    for start in range(len(words)):
        # The longest first, so that whatever holds a target comes before it.
        for length in lengths:
            if start + length <= len(words):
                for name, its in targets.get(words[start : start + length], {}).items():
                    if start + length > ends[name]:
                        ends[name] = start + length
                        found[name] |= its
    return found


def _words(text: str) -> tuple[str, ...]:
    """The words of a text, without punctuation at their ends."""
    return tuple(word for part in fold(text).split() if (word := part.strip(".,;:!?()\"'")))
