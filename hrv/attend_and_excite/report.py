"""What attend-and-excite did in a run: losses and maxima of every iteration, and the maps it ended with."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import HRVError

Floats = npt.NDArray[np.float32]

# Runs that a graph can make with one model before its reports are asked for.
_KEPT_RUNS = 16


@dataclass(frozen=True)
class Iteration:
    """One look at the maps: the ``losses`` [B] of the images and the ``maxima`` [S, B] of the subjects' maps."""

    losses: Floats
    maxima: Floats


@dataclass(frozen=True)
class ExcitedStep:
    """A step of the sampler: its number from 0, its progress and sigma, its threshold if it has one, what was seen."""

    number: int
    progress: float
    sigma: float
    threshold: float | None
    iterations: list[Iteration] = field(default_factory=list)


@dataclass
class ExcitementReport:
    """A run's steps, and per subject the last maps [B, y, x] that were looked at.

    ``subjects`` are (words, concept) pairs, the concept empty for plain attend-and-excite; ``peak_bytes`` is the most
    memory that a GPU had in use while gradients were made, or on a CPU what the process had when a graph was complete;
    None where no gradient was made.
    """

    subjects: list[tuple[str, str]]
    steps: list[ExcitedStep] = field(default_factory=list)
    maps: list[Floats] = field(default_factory=list)
    seconds: float = 0.0
    peak_bytes: int | None = None

    @property
    def updates(self) -> int:
        """How often gradients were made."""
        return sum(len(step.iterations) for step in self.steps)

    def curves(self) -> list[tuple[str, list[float]]]:
        """The loss and each subject's maximum with their names, update by update; of several images the worst.

        A subject whose prompt did not act at an update has NaN there.
        """
        iterations = [iteration for step in self.steps for iteration in step.iterations]
        curves = [("loss", [float(iteration.losses.max()) for iteration in iterations])]
        for row, (words, concept) in enumerate(self.subjects):
            name = f"maximum of {words} ({concept})" if concept else f"maximum of {words}"
            curves.append((name, [float(iteration.maxima[row].min()) for iteration in iterations]))
        return curves

    def unmet(self) -> list[str]:
        """A sentence for every threshold that an image missed when its iterations were used up."""
        sentences = []
        for step in self.steps:
            if step.threshold is None:
                continue
            maxima = step.iterations[-1].maxima
            missed = [
                f"{words!r} reached {row.min():.2f}"
                for (words, _), row in zip(self.subjects, maxima, strict=True)
                if row.min() < step.threshold
            ]
            if missed:
                sentences.append(
                    f"Step {step.number + 1}: after {len(step.iterations) - 1} iterations {', '.join(missed)} of "
                    f"{step.threshold:g}."
                )
        return sentences

    def to_json(self) -> dict[str, Any]:
        """Everything but the maps, as plain numbers and lists."""
        return {
            "subjects": [{"words": words, "concept": concept} for words, concept in self.subjects],
            "updates": self.updates,
            "seconds": round(self.seconds, 3),
            "peak_bytes": self.peak_bytes,
            "unmet": self.unmet(),
            "steps": [
                {
                    "step": step.number,
                    "progress": round(step.progress, 6),
                    "sigma": step.sigma,
                    "threshold": step.threshold,
                    "iterations": [
                        {
                            "loss": [float(loss) for loss in iteration.losses],
                            "maxima": {
                                words: [float(maximum) for maximum in row]
                                for (words, _), row in zip(self.subjects, iteration.maxima, strict=True)
                            },
                        }
                        for iteration in step.iterations
                    ],
                }
                for step in self.steps
            ],
        }


class ReportLog:
    """The reports of the last runs, found by the latents that they made."""

    def __init__(self) -> None:
        self._reports: OrderedDict[str, ExcitementReport] = OrderedDict()

    def __deepcopy__(self, memo: dict[int, Any]) -> ReportLog:
        # Hosts deep-copy what conditionings and models carry, and the log is what ties a run to its node.
        return self

    def add(self, latents: Floats, report: ExcitementReport) -> None:
        """Keep the report of the run that made ``latents`` [B, C, h, w]."""
        self._reports[_digest(latents)] = report
        while len(self._reports) > _KEPT_RUNS:
            self._reports.popitem(last=False)

    def find(self, latents: Floats) -> ExcitementReport:
        """The report of the run that made ``latents``. Raises HRVError if it made none here."""
        try:
            return self._reports[_digest(latents)]
        except KeyError:
            raise HRVError(
                "No run with this Attend and Excite made this latent: connect the LATENT of the sampler that uses its "
                "MODEL and CONDITIONING, before anything changes it."
            ) from None


def _digest(latents: Floats) -> str:
    return hashlib.sha256(np.ascontiguousarray(latents, dtype=np.float32).tobytes()).hexdigest()
