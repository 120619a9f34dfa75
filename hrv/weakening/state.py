"""What is saved of an ordered weakening analysis on its way: the scores so far, and the small pictures of its sheet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..drawing.paper import Pixels
from ..storage.state_file import read_state, require, whole_number, write_state
from .plan import Scores

KIND = "analysis"
"""What the state is of, for people and for the names in its file."""


@dataclass
class WeakeningState:
    """An analysis under way.

    ``key``     tells the analysis from any other.
    ``scores``  float64 [scores], one or more of each image; NaN where the scorer failed and of images not yet made.
    ``sheet``   uint8 [pictures, height, width, 3], those of the contact sheet.
    ``batches`` how many batches there are.
    ``done``    how many batches, in their order, are finished.
    """

    key: str
    scores: Scores
    sheet: Pixels
    batches: int
    done: int = 0

    @classmethod
    def beginning(cls, key: str, scores: int, batches: int, sheet: tuple[int, int, int]) -> WeakeningState:
        """The state before the first image, for so many ``scores``; ``sheet`` is pictures, height and width."""
        return cls(key, np.full(scores, np.nan), np.zeros((*sheet, 3), dtype=np.uint8), batches)

    def save(self, path: Path) -> None:
        """Write the state; raises HRVError if the file cannot be written."""
        write_state(path, KIND, self.key, {"done": str(self.done)}, {"scores": self.scores, "sheet": self.sheet})

    def resumed(self, path: Path) -> WeakeningState:
        """The state of the same analysis in a file, or this one if there is no file.

        Raises OSError and HRVError as :func:`~..storage.state_file.read_state` does, and HRVError for what this
        analysis cannot have measured; the file is left as it is.
        """
        found = read_state(path, KIND, self.key, ("done",), {"scores": self.scores, "sheet": self.sheet})
        if found is None:
            return self
        texts, arrays = found
        scores, done = arrays["scores"], whole_number(texts["done"], "its number of batches")
        require(done <= self.batches, f"it has {done} batches, and this analysis has {self.batches}.")
        # A batch whose images could not be kept has scores and isn't done: it will be made again.
        require(not np.isinf(scores).any(), "its scores are infinite.")
        return WeakeningState(self.key, scores, arrays["sheet"], self.batches, done)
