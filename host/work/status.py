"""How far work on a node is, as the page shows it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ...hrv.relevance.vectors import HRV


@dataclass(frozen=True)
class Curve:
    """Points from left to right; ``up`` is None where nothing is known."""

    name: str
    across: Sequence[float]
    up: Sequence[float | None]

    @classmethod
    def of(cls, name: str, across: Iterable[float], up: Iterable[float]) -> Curve:
        """A curve of numbers, those that are not finite being unknown."""
        known = [float(f"{value:.5g}") if math.isfinite(value) else None for value in up]
        return cls(name, list(across), known)


@dataclass(frozen=True)
class Curves:
    """Curves with the names of their axes."""

    across: str
    up: str
    curves: Sequence[Curve]


class Seen(NamedTuple):
    """What there is to see of work under way, as far as there is anything."""

    curves: Curves | None = None
    hrv: HRV | None = None


RUNNING, CANCELLED, FAILED, INTERRUPTED, DONE = "running", "cancelled", "failed", "interrupted", "done"
STATES = (RUNNING, CANCELLED, FAILED, INTERRUPTED, DONE)
"""``INTERRUPTED`` is work that was running when its process ended."""


@dataclass(frozen=True)
class Status:
    """How far some work is.

    ``workflow``, ``prompt_id`` and ``node`` say whose it is (:class:`~..page.running.RunningNode`), ``kind`` and
    ``unit`` what it is, as people call it. ``done`` of ``total`` are made, and about ``seconds`` are left if that is
    known. ``kept`` is the file that the work resumes from, empty if there is none. ``curves`` are :class:`Curves` as
    plain data, ``hrv`` is the digest of the HRV so far; ``at`` is the time of the status.
    """

    workflow: str
    prompt_id: str
    node: str
    kind: str
    unit: str
    total: int
    kept: str = ""
    state: str = RUNNING
    done: int = 0
    seconds: float | None = None
    detail: str = ""
    curves: dict[str, Any] | None = None
    hrv: str | None = None
    at: float = 0.0

    def public(self) -> dict[str, Any]:
        """What the page gets: of the file only whether it is there."""
        return {**asdict(self), "kept": bool(self.kept) and Path(self.kept).is_file()}
