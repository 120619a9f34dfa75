"""What weakening one concept's heads does to every concept: a matrix of concepts x concepts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import HRVError
from ..relevance.vocabulary import fold
from ..scoring.experiments import Case
from .plan import Scores
from .statistics import Estimate, estimate


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
        scores = self._of(scored)
        lost = scores[0] - scores[1 + self.weakened.index(weakened)]
        return estimate(np.where(self._complete(scored), lost, np.nan))

    def images(self, scored: str) -> int:
        """How many images every number of a concept is the mean of."""
        return int(self._complete(scored).sum())

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
