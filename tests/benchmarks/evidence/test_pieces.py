"""Pieces of a measurement: kept by what they are, and known once what they depend on is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hrv_pack.benchmarks.evidence.pieces import Piece, Section, Store, missing
from hrv_pack.benchmarks.evidence.sizes import FULL, QUICK, Sizes


class Tuned:
    """A part that measures with the best of two settings."""

    name = "tuned"
    title = "Tuned"
    first = (Piece("tuned", {"setting": 1}, 2.0), Piece("tuned", {"setting": 2}, 5.0))

    def pieces(self, store: Store, sizes: Sizes) -> Sequence[Piece]:
        if not all(map(store.has, self.first)):
            return self.first
        best = max(self.first, key=store.of)
        return [*self.first, Piece("tuned", {"setting": best.what["setting"], "reported": True}, 1.0)]

    def make(self, store: Store, sizes: Sizes, what: dict[str, Any]) -> Any:
        raise AssertionError

    def section(self, store: Store, sizes: Sizes) -> Section:
        raise AssertionError


def test_pieces_are_missing_until_they_are_kept(tmp_path: Path) -> None:
    part = Tuned()
    assert [piece.what["setting"] for piece in missing([part, part], Store(tmp_path), QUICK)] == [2, 1]
    Store(tmp_path).keep(Piece("tuned", {"setting": 2}, 0.0), 7, 1.5)
    assert [piece.what for piece in missing([part], Store(tmp_path), QUICK)] == [{"setting": 1}]
    store = Store(tmp_path)
    store.keep(part.first[0], 3, 0.5)
    (reported,) = missing([part], store, QUICK)
    assert reported.what == {"setting": 2, "reported": True}
    store.keep(reported, [1, None], 1.0)
    assert missing([part], store, QUICK) == [] and store.of(reported) == [1, None] and store.seconds() == 3.0


def test_a_piece_is_told_by_what_it_is_and_not_by_its_cost() -> None:
    one = Piece("a", {"x": 1, "y": "z"}, 1.0)
    assert one.name == Piece("a", {"y": "z", "x": 1}, 2.0).name
    assert one.name not in (Piece("b", one.what, 1.0).name, Piece("a", {"x": 2, "y": "z"}, 1.0).name)


def test_the_full_scale_is_what_the_goals_ask_for() -> None:
    assert FULL.weakened_prompts >= 64 and FULL.read_pairs >= 128
    assert FULL.two_meaning_prompts >= 10 and FULL.two_meaning_seeds >= 50
    assert {factor for factor, _ in FULL.weakened_heads} == {0.0, -2.0}
