"""Two subjects: prompts of two things, sampled plainly, with Attend and Excite, and with it weighted by HRVs.

Only kinds of prompts of which plain sampling gets at least 30 % wrong on the tuning seeds, but something right, are
reported, the first of them in the order from what the model has learnt to what it has never seen. "there" has both
things, whatever their colors; "right" has every color on its own thing as well. "over_plain" is how much of "right" a
way has over plain sampling. All ways get the same noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from ...hrv.attend_and_excite.settings import ExcitementSettings, parse_thresholds
from ...mini.evaluation import table
from ...mini.scorer import read_pictures
from ..shares import paired_difference
from ..two_subjects import KINDS, PLAIN, Studio, SubjectPrompt, draw_prompts
from .hrvs import HRVs, needed
from .measured import Measured, Numbers, of_shares
from .pieces import Piece, Section, Store
from .sizes import REPORTING, TUNING, Sizes
from .studio import studio

STEPS, CFG = 12, 4.0
WRONG, HOPELESS = 0.3, 0.9
"""Kinds of prompts are reported that plain sampling gets wrong at least so often, but not always: what the model
never learned to draw, such as two plants, no attention brings back."""

HRV_OF = {"excited": "", "excited_published": "paper", "excited_causal": "causal"}
"""Ways beside plain sampling, and the HRV that each is weighted by."""

MEASURES = ("there", "right")
_THRESHOLDS = "0: 0.05, 0.2: 0.5, 0.4: 0.8"
# Gradients and up to twenty updates at a threshold take so many times as long.
_EXCITED = 20.0


@cache
def _prompts(kind: str, count: int, seed: int) -> list[SubjectPrompt]:
    return draw_prompts(kind, count, seed)


class TwoSubjects:
    name = "two_subjects"
    title = "Two subjects"

    def __init__(self, hrvs: HRVs):
        self.hrvs = hrvs

    def piece(self, kind: str, number: int, way: str, seed: int, store: Store, sizes: Sizes) -> Piece:
        hrv = HRV_OF.get(way, "")
        what = {
            "kind": kind, "number": number, "way": way, "seed": seed, "seeds": sizes.subject_seeds,
            "hrv": self.hrvs.hrv(hrv, store, sizes).digest if hrv else "",
        }  # fmt: skip
        cost = sizes.subject_seeds * (2.0 * STEPS + 1.0)
        return Piece(self.name, what, cost if way == PLAIN else cost * _EXCITED)

    def pieces(self, store: Store, sizes: Sizes) -> Sequence[Piece]:
        hrvs = [HRV_OF[way] for way in sizes.subject_ways if HRV_OF[way]]
        tuned = [piece for kind in KINDS for piece in self._tuned(kind, store, sizes)]
        found = [*self.hrvs.missing(needed(hrvs), store, sizes), *tuned]
        if not all(map(store.has, found)):
            return found
        return [
            *tuned,
            *(
                piece
                for kind in self.kinds(store, sizes)
                for way in (PLAIN, *sizes.subject_ways)
                for piece in self._reported(kind, way, store, sizes)
            ),
        ]

    def make(self, store: Store, sizes: Sizes, what: dict[str, Any]) -> Any:
        """Of every picture [both are there, all is right]."""
        way = what["way"]
        hrv = HRV_OF.get(way, "")
        hrvs = {way: self.hrvs.hrv(hrv, store, sizes)} if hrv else {}
        settings = ExcitementSettings(thresholds=parse_thresholds(_THRESHOLDS))
        asked = _prompts(what["kind"], what["number"] + 1, what["seed"])[what["number"]]
        pictures, _ = Studio(studio(self.hrvs.weights).mini, hrvs, settings, STEPS, CFG, what["seeds"]).pictures(
            way, asked, what["seed"] + what["number"]
        )
        return [[asked.there(reading), asked.right(reading)] for reading in read_pictures(pictures)]

    def kinds(self, store: Store, sizes: Sizes) -> list[str]:
        """The kinds of prompts that are reported; the one with the most wrong if none is hard enough."""
        wrong = {kind: 1.0 - self._share(self._tuned(kind, store, sizes), store) for kind in KINDS}
        able = {kind: value for kind, value in wrong.items() if value <= HOPELESS} or wrong
        hard = [kind for kind, value in able.items() if value >= WRONG]
        return hard[: sizes.subject_kinds] or [max(able, key=able.__getitem__)]

    def section(self, store: Store, sizes: Sizes) -> Section:
        numbers: Numbers = {}
        rows = []
        kinds = self.kinds(store, sizes)
        single = [(kind, [kind]) for kind in kinds] if len(kinds) > 1 else []
        for title, those in [("all", kinds), *single]:
            base = self._groups(those, PLAIN, "right", store, sizes)
            for way in (PLAIN, *sizes.subject_ways):
                name = "plain" if way == PLAIN else way
                key = ".".join([self.name, *([] if title == "all" else [_plain(title)]), name])
                for measure in MEASURES:
                    numbers[f"{key}.{measure}"] = of_shares(self._groups(those, way, measure, store, sizes))
                cells = [str(numbers[f"{key}.{measure}"]) for measure in MEASURES]
                if way != PLAIN:
                    own = self._groups(those, way, "right", store, sizes)
                    numbers[f"{key}.over_plain"] = Measured(*paired_difference(own, base), sum(map(len, base)))
                    cells.append(str(numbers[f"{key}.over_plain"]))
                rows.append([title, name.replace("_", " "), *cells, *([""] if way == PLAIN else [])])
        text = (
            f"{sizes.subject_prompts} prompts of each kind ({'; '.join(kinds)}), such as "
            f"“{_prompts(kinds[0], 1, REPORTING)[0].text}”; seeds of each: {sizes.subject_seeds}; "
            f"{STEPS} steps of euler, "
            f"CFG {CFG:g}; thresholds {_THRESHOLDS}. Kinds chosen on {sizes.subject_tuned} other prompts.\n\n"
            f"{table(['prompts', 'way', 'both there', 'all right', 'right, over plain'], rows)}\n"
        )
        return Section(self.title, numbers, text)

    def _tuned(self, kind: str, store: Store, sizes: Sizes) -> list[Piece]:
        return [self.piece(kind, number, PLAIN, TUNING, store, sizes) for number in range(sizes.subject_tuned)]

    def _reported(self, kind: str, way: str, store: Store, sizes: Sizes) -> list[Piece]:
        return [self.piece(kind, number, way, REPORTING, store, sizes) for number in range(sizes.subject_prompts)]

    def _groups(self, kinds: Sequence[str], way: str, measure: str, store: Store, sizes: Sizes) -> list[list[bool]]:
        """A measure of all pictures, prompt by prompt."""
        place = MEASURES.index(measure)
        pieces = [piece for kind in kinds for piece in self._reported(kind, way, store, sizes)]
        return [[bool(one[place]) for one in store.of(piece)] for piece in pieces]

    def _share(self, pieces: Sequence[Piece], store: Store) -> float:
        right = [one[1] for piece in pieces for one in store.of(piece)]
        return sum(right) / len(right)


def _plain(kind: str) -> str:
    return kind.replace(",", "").replace(" ", "_")
