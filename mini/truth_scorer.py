"""HRV-mini's ground truth as a scorer: whether a picture shows the target, read off its pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from ..hrv.errors import HRVError, quoted
from ..hrv.relevance.vocabulary import find_concept, fold
from ..hrv.scoring.experiments import Case
from ..mini import matching, scorer, world
from .captions import Sample
from .scorer import read_pictures, score
from .world import CONCEPTS, PLANTS, SHAPES, SIZE


class MiniScorer:
    """1.0 for a picture that shows its target, else 0.0; a :class:`~..hrv.scoring.scorer.Scorer`.

    A target is looked for in the first thing from the left: in the first plant if the concept is Plants or the prompt
    names a plant and no shape, else in the first shape. A scene is the whole picture's.
    """

    name = "HRV-mini's truth"

    def __init__(self) -> None:
        self.provenance: Mapping[str, Any] = {"reader": _reader_digest()}

    def check(self, cases: Sequence[Case], width: int, height: int) -> None:
        """Raise HRVError for what the mini world does not have, and for pictures that it cannot be read off."""
        if width != height or width < SIZE or width % SIZE:
            raise HRVError(
                f"HRV-mini's truth only works on square images whose side is a multiple of {SIZE}, such as 128 x 128, "
                f"not on {width} x {height}."
            )
        for case in cases:
            _asked(case)

    def score(self, images: torch.Tensor, cases: Sequence[Case]) -> list[float]:
        """Whether each of the images [B, height, width, 3] is right; HRVError where :meth:`check` raises it."""
        readings = read_pictures(images.movedim(-1, 1))
        return [
            float(all(score(reading, _asked(case)).values())) for reading, case in zip(readings, cases, strict=True)
        ]


def _asked(case: Case) -> Sample:
    """A case as a caption that names its target alone."""
    concept = list(CONCEPTS)[find_concept(case.concept, tuple(CONCEPTS), "mini world")]
    target = next((word for word in CONCEPTS[concept] if fold(word) == fold(case.target)), None)
    if target is None:
        raise HRVError(
            f"There is no {concept} {quoted(case.target)} in the world of HRV-mini. It has: "
            f"{', '.join(CONCEPTS[concept])}."
        )
    words = set(fold(case.prompt).replace(",", " ").split())
    about_a_plant = not words.isdisjoint(PLANTS) and words.isdisjoint((*SHAPES, "shape"))
    return Sample(case.prompt, "plant" if about_a_plant else "single", {concept: target})


def _reader_digest() -> str:
    """SHA-256 in hex of the code that reads pictures."""
    files = (Path(module.__file__ or "") for module in (matching, scorer, world))
    return sha256("".join(file.read_text(encoding="utf-8") for file in files).encode()).hexdigest()
