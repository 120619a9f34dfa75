"""Which worker makes which piece: the rules, without any cluster.

Pieces are dealt in order to whoever is free. What a lost worker had goes to the next one. A piece that takes far longer
than others is given to a second worker too; the first to make it counts, and pieces are told by their numbers, so
nothing counts twice.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field

AHEAD = 64
"""So many pieces at least, and four for each worker, may be made beyond the first that is missing: they wait in memory
until they can be saved in order."""

TRIES = 3
"""So many workers may be lost over one piece."""

_SLOW = 4.0
"""Times the usual duration after which a piece is given to a second worker."""

_SOON = 2.0
"""Seconds that any piece may take before that."""

Worker = Hashable


@dataclass
class _Hand:
    """What a worker has: a piece, since when, and how far it is."""

    piece: int
    since: float
    steps: int = 0


@dataclass
class Dealing:
    """Deals the pieces 0 .. ``pieces`` - 1; times are seconds of any clock."""

    pieces: int
    hands: dict[Worker, _Hand] = field(default_factory=dict)
    made: set[int] = field(default_factory=set)
    _returned: list[int] = field(default_factory=list)
    _tries: dict[int, int] = field(default_factory=dict)
    _next: int = 0
    _first: int = 0
    _spent: float = 0.0
    _whole: int = 0
    _told: int = 0

    @property
    def is_over(self) -> bool:
        return len(self.made) == self.pieces

    def deal(self, worker: Worker, workers: int, now: float) -> int | None:
        """A piece for a free worker, one of so many; None if there is none for it now."""
        piece = self._to_deal(worker, workers, now)
        if piece is not None:
            self.hands[worker] = _Hand(piece, now)
        return piece

    def _to_deal(self, worker: Worker, workers: int, now: float) -> int | None:
        while self._returned:
            piece = heapq.heappop(self._returned)
            if piece not in self.made:
                return piece
        if self._next < min(self.pieces, self._first + max(AHEAD, 4 * workers)):
            self._next += 1
            return self._next - 1
        return self._stuck(now)

    def _stuck(self, now: float) -> int | None:
        """The first piece that one worker has for far too long."""
        if not self.made:
            return None
        limit = max(_SOON, _SLOW * self._spent / len(self.made))
        held = Counter(hand.piece for hand in self.hands.values())
        late = [hand.piece for hand in self.hands.values() if now - hand.since > limit and held[hand.piece] == 1]
        return min((piece for piece in late if piece not in self.made), default=None)

    def finish(self, worker: Worker, steps: int, now: float) -> int | None:
        """The piece that a worker has made in so many units times steps; None if another made it before."""
        hand = self.hands.pop(worker)
        if hand.piece in self.made:
            return None
        self.made.add(hand.piece)
        self._whole += steps
        self._spent += now - hand.since
        while self._first in self.made:
            self._first += 1
        return hand.piece

    def lose(self, worker: Worker) -> int | None:
        """Take back what a worker had; the piece if by now too many were lost over it."""
        hand = self.hands.pop(worker, None)
        if hand is None or hand.piece in self.made:
            return None
        if all(other.piece != hand.piece for other in self.hands.values()):
            heapq.heappush(self._returned, hand.piece)
        self._tries[hand.piece] = self._tries.get(hand.piece, 0) + 1
        return hand.piece if self._tries[hand.piece] >= TRIES else None

    def advance(self, worker: Worker, steps: int) -> None:
        """A worker is so many units times steps into its piece."""
        if worker in self.hands:
            self.hands[worker].steps = steps

    def news(self) -> int:
        """How many units times steps all pieces have come further since this was asked last; below 0 for lost work."""
        begun: dict[int, int] = {}
        for hand in self.hands.values():
            if hand.piece not in self.made:
                begun[hand.piece] = max(hand.steps, begun.get(hand.piece, 0))
        before, self._told = self._told, self._whole + sum(begun.values())
        return self._told - before
