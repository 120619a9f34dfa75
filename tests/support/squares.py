"""A job whose work is adding up squares: what executors and the job loop are tested with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...host.work.description import Description
from ...host.work.executor import Tick
from ...host.work.job import job_key
from ...host.work.status import Curve, Curves, Seen
from ...hrv.storage.state_file import read_state, write_state


@dataclass
class Sum:
    """The state: squares by piece, and which pieces are there."""

    key: str
    squares: npt.NDArray[np.int64]

    def save(self, path: Path) -> None:
        write_state(path, "sum", self.key, {}, {"squares": self.squares})

    def resumed(self, path: Path) -> Sum:
        found = read_state(path, "sum", self.key, (), {"squares": self.squares})
        return self if found is None else Sum(self.key, found[1]["squares"])


@dataclass
class Squares:
    """Squares of 1, 2, 3 ...: each piece is a number, has as many units as that, and takes two steps."""

    numbers: Sequence[int]
    enough: int = 1_000
    fail_at: int = 0
    kind: str = "sum"
    unit: str = "squares"
    steps: int = 2
    made: list[int] = field(default_factory=list)
    prepared: int = 0

    @property
    def key(self) -> str:
        return job_key("squares", list(self.numbers))

    def description(self) -> Description:
        return Description("", {}, {})

    @property
    def units(self) -> int:
        return sum(self.numbers)

    def fresh(self) -> Sum:
        return Sum(self.key, np.zeros(len(self.numbers), dtype=np.int64))

    def left(self, state: Sum) -> list[int]:
        there = zip(self.numbers, state.squares, strict=True)
        return [] if self.is_finished(state) else [number for number, square in there if not square]

    def size(self, piece: int) -> int:
        return piece

    def maker(self, tick: Tick) -> Callable[[int], int]:
        self.prepared += 1

        def make(piece: int) -> int:
            if piece == self.fail_at:
                raise ArithmeticError(f"cannot square {piece}")
            for _ in range(self.steps):
                tick(piece)
            self.made.append(piece)
            return piece * piece

        return make

    def keep(self, state: Sum, piece: int, made: int) -> None:
        state.squares[self.numbers.index(piece)] = made

    def is_finished(self, state: Sum) -> bool:
        return bool(state.squares.sum() >= self.enough)

    def detail(self, state: Sum, piece: int) -> str:
        return f"at {piece}" if piece > 1 else ""

    def seen(self, state: Sum) -> Seen:
        across = [number for number in self.numbers if number in self.made]
        return Seen(Curves("number", "square", [Curve.of("squares", across, [one**2 for one in across])]))
