"""Read by Concept: the heads of one concept read a second prompt, all others the first.

Two prompts name every attribute of one shape and differ in color, shape, pattern, size and position; their scene is the
same, but for Scene it differs too. For Plants they name a potted plant, its position and a scene, and differ in plant
and position. "taken" has the concept as the second prompt says, "kept" is the share of the other attributes in which
the prompts differ that are as the first one says, "both" has the concept taken and all others kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from ...mini.evaluation import table
from ..read_by_concept import BATCH, MEASURES, RANDOM, Pair, Reader, counted, draw_pairs
from .hrvs import HRVs, needed
from .measured import Numbers, goals, of_shares
from .ordered_weakening import plain
from .pieces import Piece, Section, Store
from .sizes import REPORTING, Sizes
from .studio import studio

_GOALS = (
    ("read_by_concept.Shape.causal.8.taken", ">=", 0.81),
    ("read_by_concept.Shape.causal.8.kept", ">=", 0.79),
    ("read_by_concept.Shape.causal.8.both", ">=", 0.72),
)
STEPS, CFG = 8, 3.0


@cache
def reported_pairs(concept: str, count: int) -> list[Pair]:
    return draw_pairs(concept, count, REPORTING)


class ReadByConcept:
    name = "read_by_concept"
    title = "Read by Concept"

    def __init__(self, hrvs: HRVs):
        self.hrvs = hrvs

    def piece(self, kind: str, concept: str, heads: int, first: int, store: Store, sizes: Sizes) -> Piece:
        hrv = "" if kind == RANDOM else self.hrvs.hrv(kind, store, sizes).digest
        what = {"kind": kind, "concept": concept, "heads": heads, "first": first, "pairs": sizes.read_pairs, "hrv": hrv}
        return Piece(self.name, what, BATCH * (2.0 * STEPS + 2.0))

    def pieces(self, store: Store, sizes: Sizes) -> Sequence[Piece]:
        return self.hrvs.missing(needed((*sizes.read_kinds, "causal")), store, sizes) or [
            piece
            for concept in sizes.read_concepts
            for kind in sizes.read_kinds
            for heads in sizes.read_heads
            for piece in self._of(kind, concept, heads, store, sizes)
        ]

    def make(self, store: Store, sizes: Sizes, what: dict[str, Any]) -> Any:
        """The looks of a batch's pictures."""
        # Random heads are of the layout of any HRV.
        kind = "causal" if what["kind"] == RANDOM else what["kind"]
        reader = Reader(studio(self.hrvs.weights).mini, {kind: self.hrvs.hrv(kind, store, sizes)}, STEPS, CFG)
        pairs = reported_pairs(what["concept"], what["pairs"])[what["first"] : what["first"] + BATCH]
        return reader.looks(pairs, reader.reading(what["kind"], what["concept"], what["heads"]))

    def section(self, store: Store, sizes: Sizes) -> Section:
        numbers: Numbers = {}
        rows = []
        for concept in sizes.read_concepts:
            for kind in sizes.read_kinds:
                cells = []
                for heads in sizes.read_heads:
                    looks = [look for piece in self._of(kind, concept, heads, store, sizes) for look in store.of(piece)]
                    key = f"{self.name}.{concept}.{plain(kind)}.{heads}"
                    pairs = reported_pairs(concept, sizes.read_pairs)
                    for measure, groups in counted(pairs, looks, concept).items():
                        numbers[f"{key}.{measure}"] = of_shares(groups)
                    cells += [str(numbers[f"{key}.{measure}"]) for measure in MEASURES]
                rows.append([concept, kind, *cells])
        all_heads = self.hrvs.hrv("causal", store, sizes).layout.head_count
        several = len(sizes.read_heads) > 1
        columns = [
            f"{measure}, {heads} heads" if several else measure for heads in sizes.read_heads for measure in MEASURES
        ]
        text = (
            f"{sizes.read_pairs} pairs of prompts, a seed each; {' or '.join(map(str, sizes.read_heads))} of "
            f"{all_heads} heads read the second one; {STEPS} steps of euler, CFG {CFG:g}. The prompts "
            "of a pair differ in color, shape, pattern, size and position and share their scene; for Scene they differ "
            "in that too, and for Plants they differ in plant and position. “taken” has the concept as the second "
            "prompt says; “kept” is the share of the other attributes in which the prompts differ that are as the "
            "first one says, for Plants that of the position alone; “both” has the concept taken and all others "
            "kept.\n\n"
            f"{table(['concept', 'heads of', *columns], rows)}\n"
            f"{goals(numbers, _GOALS)}"
        )
        return Section(self.title, numbers, text)

    def _of(self, kind: str, concept: str, heads: int, store: Store, sizes: Sizes) -> list[Piece]:
        return [self.piece(kind, concept, heads, first, store, sizes) for first in range(0, sizes.read_pairs, BATCH)]
