"""Editing: one word of a prompt changed, by prompt-to-prompt with and without HRVs, and by asking anew.

A source is a picture of one shape or plant that shows what its prompt says; its prompt names half of its attributes or
all of them, and of each that it names one edit names another word. "changed" has the new word; "kept" has every other
attribute, named or not, as the source's picture has it; "both" is an edit that worked. All ways get the same noise and
the same windows. "over_p2p" is how much of "both" a way has over plain prompt-to-prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

from ...mini.evaluation import table
from ..edits import MEASURES, WINDOWS, Case, Edit, Editor, Way, draw_cases, read_edits
from ..shares import paired_difference
from .hrvs import HRVs, needed
from .measured import Measured, Numbers, of_shares
from .pieces import Piece, Section, Store
from .sizes import REPORTING, Sizes
from .studio import studio

STEPS, CFG = 10, 3.0
_CROSS, _SELF, _SIZE = WINDOWS["cross 0.8, self 0.4"]
PLAIN = "p2p"
WAYS = {
    "asking_anew": Way(0.0, 0.0),
    PLAIN: Way(_CROSS, _SELF, _SIZE),
    "p2p_hrv_published": Way(_CROSS, _SELF, _SIZE, "paper"),
    "p2p_hrv_causal": Way(_CROSS, _SELF, _SIZE, "causal"),
}
# Of so many sources that are drawn for one that is wanted, enough are as asked.
_DRAWN = 2


class Editing:
    name = "editing"
    title = "Editing"

    def __init__(self, hrvs: HRVs):
        self.hrvs = hrvs

    def sources(self, named: str, sizes: Sizes) -> Piece:
        count = _DRAWN * sizes.sources
        return Piece(self.name, {"sources": count, "named": named}, 2.0 * count * (2.0 * STEPS + 1.0))

    def pieces(self, store: Store, sizes: Sizes) -> Sequence[Piece]:
        found = [self.sources(named, sizes) for named in sizes.named]
        missing = self.hrvs.missing(needed([WAYS[way].hrv for way in sizes.edit_ways]), store, sizes)
        if missing or not all(map(store.has, found)):
            return [*found, *missing]
        edits = [
            one for named in sizes.named for way in sizes.edit_ways for one in self._edits(named, way, store, sizes)
        ]
        return [*found, *edits]

    def make(self, store: Store, sizes: Sizes, what: dict[str, Any]) -> Any:
        """The sources that are as asked, of shapes and of plants in turn; or what the edits of one came to."""
        at = studio(self.hrvs.weights)
        if "sources" in what:
            editor = Editor(at.mini, {}, STEPS, CFG)
            both = [editor.as_asked(cases) for cases in draw_cases(what["sources"], REPORTING, what["named"])]
            return [asdict(case) for pair in zip_longest(*both) for case in pair if case is not None]
        way, case = WAYS[what["way"]], Case(**what["case"])
        hrvs = {way.hrv: self.hrvs.hrv(way.hrv, store, sizes)} if way.hrv else {}
        edits = read_edits(case, Editor(at.mini, hrvs, STEPS, CFG).pictures(case, way))
        return {concept: asdict(edit) for concept, edit in edits.items()}

    def section(self, store: Store, sizes: Sizes) -> Section:
        numbers: Numbers = {}
        rows, told = [], []
        for named in sizes.named:
            base = self._groups(named, PLAIN, "both", store, sizes)
            told.append(f"{len(base)} sources that name {named} of their attributes")
            for way in sizes.edit_ways:
                key = f"{self.name}.{named}.{way}"
                for measure in MEASURES:
                    numbers[f"{key}.{measure}"] = of_shares(self._groups(named, way, measure, store, sizes))
                cells = [str(numbers[f"{key}.{measure}"]) for measure in MEASURES]
                if way != PLAIN:
                    own = self._groups(named, way, "both", store, sizes)
                    numbers[f"{key}.over_p2p"] = Measured(*paired_difference(own, base), sum(map(len, base)))
                    cells.append(str(numbers[f"{key}.over_p2p"]))
                rows.append([named, way.replace("_", " "), *cells, *([""] if way == PLAIN else [])])
        text = (
            f"{' and '.join(told)}; {STEPS} steps of euler, CFG {CFG:g}. Prompt-to-prompt takes the source's maps of "
            f"words for {_CROSS:g} and of itself for {_SELF:g} of the sampling.\n\n"
            f"{table(['named', 'way', *MEASURES, 'both, over P2P'], rows)}\n"
        )
        return Section(self.title, numbers, text)

    def _edits(self, named: str, way: str, store: Store, sizes: Sizes) -> list[Piece]:
        hrv = WAYS[way].hrv
        digest = self.hrvs.hrv(hrv, store, sizes).digest if hrv else ""
        cases = store.of(self.sources(named, sizes))[: 2 * sizes.sources]
        return [
            Piece(
                self.name, {"case": case, "way": way, "hrv": digest}, (1 + len(case["targets"])) * (2.0 * STEPS + 1.0)
            )
            for case in cases
        ]

    def _groups(self, named: str, way: str, measure: str, store: Store, sizes: Sizes) -> list[list[bool]]:
        """A measure of all edits, source by source."""
        found = [store.of(piece) for piece in self._edits(named, way, store, sizes)]
        return [[getattr(Edit(**edit), measure) for edit in edits.values()] for edits in found]
