"""Sampling progress: 0.0 is pure noise, 1.0 the finished image."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import HRVError


@dataclass(frozen=True)
class Window:
    """The part of sampling in which a control acts, as the host counts progress: 0.0 is pure noise, 1.0 the end."""

    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.start <= self.end <= 1.0:
            raise HRVError(
                f"A window of sampling progress must run from a start to an end between 0 and 1, not from {self.start} "
                f"to {self.end}."
            )

    @property
    def is_whole(self) -> bool:
        """Whether every moment of sampling is inside."""
        return self.start == 0.0 and self.end == 1.0


WHOLE = Window()
"""All of sampling."""
