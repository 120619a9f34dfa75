"""What is saved of an ordered weakening analysis on its way: the scores so far, and the small pictures of its sheet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..drawing.paper import Pixels
from ..storage.state_file import read_state, write_state
from .plan import Scores

KIND = "analysis"
"""What the state is of, for people and for the names in its file."""


@dataclass
class WeakeningState:
    """An analysis under way.

    ``key``     tells the analysis from any other.
    ``scores``  float64 [images], NaN where the scorer failed and of images not yet made.
    ``sheet``   uint8 [pictures, height, width, 3], those of the contact sheet.
    ``done``    how many batches, in their order, are finished.
    """

    key: str
    scores: Scores
    sheet: Pixels
    done: int = 0

    @classmethod
    def beginning(cls, key: str, images: int, sheet: tuple[int, int, int]) -> WeakeningState:
        """The state before the first of ``images`` images; ``sheet`` is pictures, height and width."""
        return cls(key, np.full(images, np.nan), np.zeros((*sheet, 3), dtype=np.uint8))

    def save(self, path: Path) -> None:
        """Write the state; raises HRVError if the file cannot be written."""
        write_state(path, KIND, self.key, {"done": str(self.done)}, {"scores": self.scores, "sheet": self.sheet})

    def resumed(self, path: Path) -> WeakeningState:
        """The state of the same analysis in a file, or this one if there is no file.

        Raises HRVError for a file that is damaged or belongs to another analysis; it is left as it is.
        """
        shapes = {"scores": self.scores.shape, "sheet": self.sheet.shape}
        found = read_state(path, KIND, self.key, ("done",), shapes)
        if found is None:
            return self
        texts, arrays = found
        return WeakeningState(self.key, arrays["scores"], arrays["sheet"], int(texts["done"]))
