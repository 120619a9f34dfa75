"""What is saved of a build on its way: counts of both halves of its images, how many are done, its convergence.

A state belongs to one build, told by a key over everything that its counts depend on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..relevance.evidence import Counts
from ..storage.state_file import read_state, require, whole_number, write_state
from ..storage.strict_json import parse_json
from .convergence import Point, measure, next_measurement

KIND = "build"
"""What the state is of, for people and for the names in its file."""

# Far above what any build counts; sums of such counts are exact.
_MOST = 1 << 53


@dataclass
class BuildState:
    """A build under way.

    ``key``     tells the build from any other.
    ``halves``  int64 [2, N, H]: counts of images with even numbers and of those with odd numbers.
    ``ends``    how many images are counted after each batch, ascending.
    ``done``    how many images, in their order, are counted.
    ``curve``   convergence, measured now and then.
    """

    key: str
    halves: Counts
    ends: Sequence[int]
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

        Raises OSError and HRVError as :func:`~..storage.state_file.read_state` does, and HRVError for what this build
        cannot have counted; the file is left as it is.
        """
        found = read_state(path, KIND, self.key, ("done", "curve"), {"halves": self.halves})
        if found is None:
            return self
        texts, arrays = found
        halves, done = arrays["halves"], whole_number(texts["done"], "its number of images")
        require(done == 0 or done in self.ends, "its number of images isn't one at which a batch of this build ends.")
        require(bool((halves >= 0).all() and (halves <= _MOST).all()), "its counts are negative or too large.")
        require(done > 0 or not halves.any(), "it has counts of no images.")
        return BuildState(self.key, halves, self.ends, done, _curve(parse_json(texts["curve"], "convergence"), done))


def _curve(entries: Any, done: int) -> list[Point]:
    """The points that a state of so many images has as JSON; HRVError for what no build measures."""
    what = "its convergence isn't what a build measures."
    require(isinstance(entries, list), what)
    names = {one.name for one in fields(Point)}
    for entry in entries:
        require(isinstance(entry, dict) and entry.keys() == names and type(entry["images"]) is int, what)
        others = [value for name, value in entry.items() if name != "images"]
        # Correlations, but for rounding.
        require(all(type(value) is float and abs(value) <= 1.0 + 1e-6 for value in others), what)
    images = [entry["images"] for entry in entries]
    require(all(0 < one <= done for one in images) and all(one < other for one, other in pairwise(images)), what)
    return [Point(**entry) for entry in entries]
