"""Work that takes long: a grid of pieces that are made one by one, saved now and then, resumed, and merged exactly.

Whatever a piece draws depends on (seed, piece) alone, never on what was made before, so it does not matter where a job
is interrupted, which machine makes which piece, or into how many shards the grid is split.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import comfy.utils

from .clock import clock
from .executor import HERE, Crew, Executor, Made, Maker, Piece
from .states import State, kept_state
from .status import Seen
from .telling import telling

AnyState = TypeVar("AnyState", bound=State)


class Job(Maker[Piece, Made], Protocol[Piece, Made, AnyState]):
    """One piece of work under way."""

    @property
    def kind(self) -> str:
        """Names it for people and in its file: "build"."""
        ...

    @property
    def unit(self) -> str:
        """What is counted, as people call several of them: "images"."""
        ...

    @property
    def units(self) -> int:
        """How many there are in the whole job."""
        ...

    @property
    def steps(self) -> int:
        """How many steps of work each takes."""
        ...

    def fresh(self) -> AnyState:
        """The state before the first piece."""
        ...

    def left(self, state: AnyState) -> Sequence[Piece]:
        """The pieces that are still to be made, in order; none if enough is there."""
        ...

    def size(self, piece: Piece) -> int:
        """How many units a piece has."""
        ...

    def keep(self, state: AnyState, piece: Piece, made: Made) -> None:
        """Put what was made into the state, in place."""
        ...

    def is_finished(self, state: AnyState) -> bool:
        """Whether the job may end before all pieces are made."""
        ...

    def detail(self, state: AnyState, piece: Piece) -> str:
        """What else people want to know after a piece, such as how settled a build is; may be empty."""
        ...

    def seen(self, state: AnyState) -> Seen:
        """What there is to see so far, asked now and then."""
        ...


@dataclass(frozen=True)
class Progress:
    """How far a job is: ``done`` of ``total`` units, and about how many ``seconds`` are left.

    ``speed`` tells how many are made in a second, and by how many workers, where there are any.
    """

    done: int
    total: int
    unit: str
    seconds: float
    detail: str = ""
    speed: str = ""

    def __str__(self) -> str:
        left = f"{clock(self.seconds)} left" if self.done < self.total else ""
        parts = [f"{self.done} of {self.total} {self.unit}", self.detail, self.speed, left]
        return ", ".join(filter(None, parts))


Report = Callable[[Progress], None]


def no_report(progress: Progress) -> None:
    """The report of a job that nobody watches."""


def run_job(
    job: Job[Piece, Made, AnyState], folder: Path, report: Report = no_report, executor: Executor = HERE
) -> AnyState:
    """Do a job, or what is left of it; its state afterwards.

    The host's progress is told step by step, ``report`` is called after every piece, the page is told of the running
    node (:mod:`.telling`), and the state is saved in ``folder`` at least once a minute and however the job ends, so
    that the same job resumes from there. Raises HRVError for a folder that can't be written, a damaged file, and a
    job that another process is doing; what making a piece raises; and the host's exception once the user has cancelled.
    """
    with kept_state(job.fresh(), folder, job.kind) as kept:
        state = kept.state
        left = job.left(state)
        done = before = job.units - sum(map(job.size, left))
        bar = comfy.utils.ProgressBar(job.units * job.steps)
        bar.update_absolute(done * job.steps)
        started = time.monotonic()
        with telling(job.kind, job.unit, job.units, lambda: job.seen(state), done=done, kept=kept.path) as teller:
            for piece, made in executor.run(job, left, bar.update):
                job.keep(state, piece, made)
                was_saved = kept.save_now_and_then()
                done += job.size(piece)
                # Workers take a while to come, which tells nothing of their speed.
                began = executor.crew.since if executor.crew else started
                each = (time.monotonic() - began) / (done - before)
                detail, speed = job.detail(state, piece), _speed(executor.crew, each, job.unit)
                progress = Progress(done, job.units, job.unit, each * (job.units - done), detail, speed)
                report(progress)
                teller.tell(done, progress.seconds, ", ".join(filter(None, [detail, speed])))
                if was_saved:
                    teller.save()
                if job.is_finished(state):
                    break
    return state


def _speed(crew: Crew | None, seconds: float, unit: str) -> str:
    """What workers make who take ``seconds`` for each; nothing of this process, where everybody sees the time."""
    if crew is None:
        return ""
    return f"{crew.workers} worker{'s' * (crew.workers != 1)}, {1 / max(seconds, 1e-9):.3g} {unit}/s"


def job_key(*parts: Any) -> str:
    """SHA-256 in hex over JSON values: the same for two jobs only if all that their results depend on is the same."""
    return hashlib.sha256(json.dumps(list(parts), sort_keys=True).encode()).hexdigest()


def shard_of(pieces: Sequence[Piece], shard: tuple[int, int]) -> Sequence[Piece]:
    """The i-th of n parts of a grid, for ``shard`` (i, n) counted from 1: consecutive pieces.

    All shards together are the whole grid, each piece once.
    """
    index, count = shard
    return pieces[len(pieces) * (index - 1) // count : len(pieces) * index // count]
