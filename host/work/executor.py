"""Where the pieces of a job are made.

An executor gets a job and the pieces that are left, and gives what was made of each: this process, or the workers of a
cluster (:mod:`.cluster`), which get the job as data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

import comfy.model_management

from .description import Description

Piece = TypeVar("Piece")
Made = TypeVar("Made")
_Piece = TypeVar("_Piece", contravariant=True)
_Made = TypeVar("_Made", covariant=True)

Tick = Callable[[int], None]
"""Told after every step of the work how many units (images, pairs) it took a step further; below 0 for lost work."""


class Maker(Protocol[_Piece, _Made]):
    """What makes pieces on one machine."""

    def maker(self, tick: Tick) -> Callable[[_Piece], _Made]:
        """Prepare what all pieces need, such as a patched model; the result makes one piece, whatever was before."""
        ...

    @property
    def key(self) -> str:
        """Tells the job from any other (:func:`.job.job_key`)."""
        ...

    def description(self) -> Description:
        """The job as data; what is made of a piece has to be plain data too: builtins and arrays."""
        ...


class Crew(NamedTuple):
    """How many workers are ready, and since when any is (``time.monotonic``)."""

    workers: int
    since: float


class Executor(Protocol):
    """One of the ways to have pieces made."""

    @property
    def crew(self) -> Crew | None:
        """The workers, or None where this process works; before the first is ready there are none of them."""
        ...

    def run(self, job: Maker[Piece, Made], pieces: Sequence[Piece], tick: Tick) -> Iterator[tuple[Piece, Made]]:
        """Every piece with what was made of it, in the order given, each as soon as it is there.

        ``tick`` is called in the caller's process. Closing the iterator ends the work. Raises what making a piece
        raises, and the host's exception once the user has cancelled; what was given before then counts.
        """
        ...


class Here:
    """In this process, one piece after the other."""

    crew = None

    def run(self, job: Maker[Piece, Made], pieces: Sequence[Piece], tick: Tick) -> Iterator[tuple[Piece, Made]]:
        """:meth:`Executor.run`. Nothing is prepared where no piece is left."""
        if not pieces:
            return
        make = job.maker(tick)
        for piece in pieces:
            comfy.model_management.throw_exception_if_processing_interrupted()
            yield piece, make(piece)


HERE = Here()
