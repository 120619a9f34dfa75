"""What is saved of a build on its way: counts of both halves of its images, how many are done, its convergence.

A state belongs to one build, told by a key over everything that its counts depend on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..relevance.evidence import Counts
from ..storage.state_file import UNUSABLE, read_state, unusable, write_state
from .convergence import Point, measure, next_measurement

KIND = "build"
"""What the state is of, for people and for the names in its file."""


@dataclass
class BuildState:
    """A build under way.

    ``key``     tells the build from any other.
    ``halves``  int64 [2, N, H]: counts of images with even numbers and of those with odd numbers.
    ``done``    how many images, in their order, are counted.
    ``curve``   convergence, measured now and then.
    """

    key: str
    halves: Counts
    done: int = 0
    curve: list[Point] = field(default_factory=list)

    def add(self, counts: Counts, images: Sequence[int]) -> None:
        """Count the next images [2, N, H]; measures convergence at numbers of images that depend on nothing else."""
        self.halves = self.halves + counts
        self.done += len(images)
        measured = self.curve[-1].images if self.curve else 0
        if self.done >= next_measurement(measured) and (point := measure(self.done, self.halves)):
            self.curve.append(point)

    @property
    def counts(self) -> Counts:
        """Counts [N, H] of all images so far."""
        return self.halves.sum(axis=0)

    def save(self, path: Path) -> None:
        """Write the state; raises HRVError if the file cannot be written."""
        texts = {"done": str(self.done), "curve": json.dumps([vars(point) for point in self.curve])}
        write_state(path, KIND, self.key, texts, {"halves": self.halves})

    def resumed(self, path: Path) -> BuildState:
        """The state of the same build in a file, or this one if there is no file.

        Raises HRVError for a file that is damaged or belongs to another build; it is left as it is.
        """
        found = read_state(path, KIND, self.key, ("done", "curve"), {"halves": self.halves.shape})
        if found is None:
            return self
        texts, arrays = found
        try:
            curve = [Point(**entry) for entry in json.loads(texts["curve"])]
            return BuildState(self.key, arrays["halves"], int(texts["done"]), curve)
        except UNUSABLE as error:
            raise unusable(path, KIND, error) from error
