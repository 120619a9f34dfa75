"""What is saved of a build on its way: counts of both halves of its images, how many are done, its convergence.

A state belongs to one build, told by a key over everything that its counts depend on. Files are safetensors with a
checksum and are written atomically.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .atomic_files import reason, write_atomically
from .convergence import Point, measure, next_measurement
from .errors import HRVError
from .vectors import Counts, content_digest

FORMAT = "1"
_FORMAT, _KEY, _DONE, _CURVE, _CHECKSUM = _NAMES = tuple(
    f"hrv.build.{name}" for name in ("format", "key", "done", "curve", "sha256")
)


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


def save_state(state: BuildState, path: Path) -> None:
    """Write a state; raises HRVError if the file cannot be written."""
    texts = {
        _FORMAT: FORMAT,
        _KEY: state.key,
        _DONE: str(state.done),
        _CURVE: json.dumps([vars(point) for point in state.curve]),
    }
    arrays = {"halves": state.halves}
    content = save(arrays, {**texts, _CHECKSUM: content_digest(texts, arrays)})
    try:
        write_atomically(path, content)
    except OSError as error:
        raise HRVError(
            f"Cannot save the state of the build as {path}: {reason(error)}. What was saved before is still there, and "
            "the same build will go on from it."
        ) from error


def load_state(path: Path, fresh: BuildState) -> BuildState:
    """The state in a file, or ``fresh`` if there is no file.

    Raises HRVError for a file that is damaged or belongs to another build; it is left as it is.
    """
    if not os.path.lexists(path):
        return fresh
    try:
        with safe_open(path, "numpy") as file:
            texts = dict(file.metadata() or {})
            halves = np.asarray(file.get_tensor("halves"))
        checksum = texts.pop(_CHECKSUM)
        if texts.keys() != set(_NAMES) - {_CHECKSUM} or checksum != content_digest(texts, {"halves": halves}):
            raise ValueError("it does not match its checksum")
        if texts[_FORMAT] != FORMAT or texts[_KEY] != fresh.key or halves.shape != fresh.halves.shape:
            raise ValueError("it is of another build, or of another version of the pack")
        curve = [Point(**entry) for entry in json.loads(texts[_CURVE])]
        return BuildState(fresh.key, halves, int(texts[_DONE]), curve)
    except OSError as error:
        raise HRVError(f"Cannot read the state of the build in {path}: {reason(error)}.") from error
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise HRVError(
            f"The state of the build in {path} cannot be used ({error}). Move or delete that file to begin anew."
        ) from error
