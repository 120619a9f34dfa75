"""What keeps an edit to one place, and the masks that a run made of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..errors import HRVError
from ..progress import Window

Positions = tuple[int, ...]


class BlendRecord:
    """The masks of the last run of an edit, with what it sampled, so that nobody takes them for another run's."""

    def __init__(self) -> None:
        self._made: tuple[torch.Tensor, torch.Tensor] | None = None
        self._why_none = "Nothing has been sampled with this edit yet: connect the sampler's LATENT."

    def keep_none(self, why: str) -> None:
        """Keep that the last run made no masks."""
        self._made, self._why_none = None, why

    def keep(self, samples: torch.Tensor, masks: torch.Tensor) -> None:
        """Keep the masks, bool [edits, height, width] in pixels, of the run that gave these samples."""
        self._made = samples.cpu(), masks.cpu()

    def masks_of(self, samples: torch.Tensor) -> torch.Tensor:
        """The masks of the run that gave these samples. Raises HRVError if it made none or was not the last one."""
        if self._made is None:
            raise HRVError(self._why_none)
        sampled, masks = self._made
        if samples.shape != sampled.shape or not torch.equal(samples.cpu(), sampled.to(samples.dtype)):
            raise HRVError(
                "This latent was changed after sampling, or another sampler has used the same edit since. Connect the "
                "sampler's LATENT directly, and give every sampler its own Local Blend."
            )
        return masks


@dataclass(frozen=True, eq=False)
class Blend:
    """Where the edits of a group of rows may differ from their source.

    ``words``      for every edit, the positions of words in the source's context and in its own.
    ``threshold``  share of the highest attention to the words from which a place is inside.
    ``window``     when it acts; attention is gathered before too.
    ``size``       the largest cross-attention layers that are asked, as a share of the latent's positions.

    Raises HRVError for a threshold that is not between 0 and 1, and for a size of 0.
    """

    words: tuple[tuple[Positions, Positions], ...]
    threshold: float
    window: Window
    size: float
    record: BlendRecord = field(default_factory=BlendRecord)

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold < 1.0:
            raise HRVError(f"The threshold of a mask must be 0 or more and below 1, not {self.threshold}.")
        if not 0.0 < self.size <= 1.0:
            raise HRVError(
                f"The size of a local blend, that of its largest cross-attention layers, must be a share of the "
                f"latent's positions above 0 and at most 1, not {self.size}: 0.0625 is 16x16 of 64x64."
            )
