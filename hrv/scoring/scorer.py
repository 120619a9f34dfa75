"""What a scorer is: the socket HRV_SCORER carries one, and other packs can make their own (docs/scorers.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from .experiments import Case


class Scorer(Protocol):
    """Tells how well images show the target of their cases; a higher number is better.

    ``name`` is for people, such as "CLIP cosine". ``provenance`` holds what the numbers depend on, a JSON object: two
    scorers with equal name and provenance are taken for the same.
    """

    name: str
    provenance: Mapping[str, Any]

    def check(self, cases: Sequence[Case], width: int, height: int) -> None:
        """Raise HRVError if such cases or images of so many pixels cannot be scored; called before any is made."""
        ...

    def score(self, images: torch.Tensor, cases: Sequence[Case]) -> Sequence[float]:
        """One finite number for each of the images float32 [B, height, width, 3] in 0..1, which belong to B cases.

        It may raise: the images are then scored one by one, and those that fail alone are left out and counted.
        """
        ...
