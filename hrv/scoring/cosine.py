"""Scoring by the cosine between the vectors of an image and of its target, as CLIP does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ..errors import HRVError, quoted
from .experiments import Case

BATCH = 16
"""Images encoded at a time, to bound the memory."""

PLAIN_COLORS: dict[str, tuple[float, float, float]] = {
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 0.6, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "yellow": (1.0, 1.0, 0.0),
    "black": (0.0, 0.0, 0.0),
    "white": (1.0, 1.0, 1.0),
}
"""What two encoders of one space are expected to tell apart."""

_SWATCH_SIZE = 64


class CosineScorer(ABC):
    """A :class:`~.scorer.Scorer` over two encoders into one space; subclasses are the encoders.

    Every target is encoded once, as it is written, and kept as long as the scorer. ``name`` and ``provenance`` are
    those of a scorer; ``most_tokens`` is the longest target that the text encoder takes.
    """

    def __init__(self, name: str, provenance: Mapping[str, Any], most_tokens: int):
        self.name = name
        self.provenance = provenance
        self._most_tokens = most_tokens
        self._targets: dict[str, torch.Tensor] = {}

    @abstractmethod
    def count_tokens(self, text: str) -> int:
        """How many tokens a text has, without start and end."""

    @abstractmethod
    def encode_text(self, text: str) -> torch.Tensor:
        """The vector [C] of a text, of any length above 0."""

    @abstractmethod
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """The vectors [B, C] of images float32 [B, height, width, 3] in 0..1."""

    def check(self, cases: Sequence[Case], width: int, height: int) -> None:
        """Raise HRVError for a target without a word, or with more than the text encoder reads; any size will do."""
        for target in dict.fromkeys(case.target for case in cases):
            count = self.count_tokens(target)
            if count == 0:
                raise HRVError(
                    f"The target {quoted(target)} has no words to compare images with: write some, such as 'red'."
                )
            if count > self._most_tokens:
                raise HRVError(
                    f"The target {quoted(target)} has {count} tokens, and this CLIP reads {self._most_tokens}: "
                    "write a shorter one."
                )

    @torch.inference_mode()
    def score(self, images: torch.Tensor, cases: Sequence[Case]) -> list[float]:
        """The cosine of each image with its target, from -1 to 1; pairs of a good CLIP lie around 0.2 to 0.3."""
        for case in cases:
            if case.target not in self._targets:
                self._targets[case.target] = _unit(self.encode_text(case.target))
        wanted = torch.stack([self._targets[case.target] for case in cases])
        return (self._unit_images(images) * wanted).sum(1).tolist()

    @torch.inference_mode()
    def recognised_colors(self) -> list[str]:
        """Which of :data:`PLAIN_COLORS` are nearest to their own names, once what all images or names share is out.

        Encoders that were trained together find most of them; those that were not find one by luck.
        """
        names = list(PLAIN_COLORS)
        swatches = torch.tensor(list(PLAIN_COLORS.values()))[:, None, None].repeat(1, _SWATCH_SIZE, _SWATCH_SIZE, 1)
        texts = torch.stack([_unit(self.encode_text(f"the color {name}")) for name in names])
        cosines = self._unit_images(swatches) @ texts.T
        cosines = cosines - cosines.mean(0, keepdim=True) - cosines.mean(1, keepdim=True)
        return [name for row, name in enumerate(names) if int(cosines[row].argmax()) == row]

    def _unit_images(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([_unit(self.encode_images(batch)) for batch in images.split(BATCH)])


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors of length 1, as float64 on the CPU."""
    return F.normalize(vectors.cpu().double(), dim=-1)
