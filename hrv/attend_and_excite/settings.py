"""Attend-and-excite: what every word of a list owes to a picture, and how far a latent is from it.

Plain attend-and-excite is arXiv 2301.13826; weighting heads with HRVs is arXiv 2412.02237, section 5.3. Settings are
in sampling progress (0 is pure noise, 1 the finished image), so that any number of steps works; the defaults are the
published 50 steps: updates in the first 25, thresholds at steps 0, 10 and 20.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import HRVError, quoted
from ..progress import Window


@dataclass(frozen=True)
class Threshold:
    """At the first step from ``progress`` on, repeat until every subject's maximum reaches ``maximum``."""

    progress: float
    maximum: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.progress < 1.0:
            raise HRVError(
                f"A threshold must begin at a sampling progress of 0 or more and below 1, not at {self.progress:g}."
            )
        if not 0.0 < self.maximum <= 1.0:
            raise HRVError(
                f"A threshold is the share of attention that every subject must reach: above 0 and at "
                f"most 1, not {self.maximum:g}."
            )


PUBLISHED_WINDOW = Window(0.0, 0.5)
PUBLISHED_THRESHOLDS = (Threshold(0.0, 0.05), Threshold(0.2, 0.5), Threshold(0.4, 0.8))


@dataclass(frozen=True)
class ExcitementSettings:
    """How latents are moved.

    ``step_size``   of an update at progress 0, in units of what the network sees; 0 moves nothing.
    ``decay``       what is left at progress 1 of the number whose root the step size has as a factor.
    ``thresholds``  by ascending progress.
    ``iterations``  updates at most in the step of a threshold.
    ``window``      steps whose progress is inside are updated.
    ``resolution``  side of a square picture's maps for subjects with a concept; other pictures have about as many
                    places.
    ``smoothing``   sigma of the 3 x 3 Gaussian over the maps, in places; 0 for none.

    Raises HRVError for anything else than such numbers.
    """

    step_size: float = 20.0
    decay: float = 0.5
    thresholds: tuple[Threshold, ...] = PUBLISHED_THRESHOLDS
    iterations: int = 20
    window: Window = PUBLISHED_WINDOW
    resolution: int = 8
    smoothing: float = 0.5

    def __post_init__(self) -> None:
        if not (math.isfinite(self.step_size) and self.step_size >= 0):
            raise HRVError(f"The step size must be 0 or more, not {self.step_size:g}.")
        if not 0.0 <= self.decay <= 1.0:
            raise HRVError(f"The decay of the step size must be from 0 to 1, not {self.decay:g}.")
        if not 1 <= self.iterations <= 1000:
            raise HRVError(f"A threshold must have 1 to 1000 iterations, not {self.iterations}.")
        if not 2 <= self.resolution <= 64:
            raise HRVError(f"The resolution of the maps must be from 2 to 64, not {self.resolution}.")
        if not 0.0 <= self.smoothing <= 10.0:
            raise HRVError(f"The smoothing must be a sigma from 0 to 10, not {self.smoothing:g}.")
        progresses = [threshold.progress for threshold in self.thresholds]
        if sorted(set(progresses)) != progresses:
            raise HRVError("Thresholds must be in the order of their progress, each progress once.")

    def step_at(self, progress: float) -> float:
        """The published step size: 20 sqrt(s), with s falling linearly from 1 to 0.5 over the run."""
        return self.step_size * math.sqrt(1.0 + (self.decay - 1.0) * progress)

    def maximum_at(self, before: float, progress: float) -> float | None:
        """What subjects shall reach in a step at ``progress``, after one at ``before``; None without a threshold.

        Where a run has so few steps that several thresholds fall into one, the last of them counts.
        """
        reached = [threshold for threshold in self.thresholds if before < threshold.progress <= progress]
        return reached[-1].maximum if reached else None


def parse_thresholds(text: str) -> tuple[Threshold, ...]:
    """Read "0: 0.05, 0.2: 0.5" as thresholds by progress; an empty text is none. Raises HRVError for anything else."""
    thresholds = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        try:
            progress, maximum = (float(number) for number in part.split(":"))
        except ValueError:
            raise HRVError(
                "Write thresholds as 'progress: maximum' pairs, as in '0: 0.05, 0.2: 0.5, 0.4: 0.8', not "
                f"{quoted(part)}."
            ) from None
        thresholds.append(Threshold(progress, maximum))
    return tuple(thresholds)
