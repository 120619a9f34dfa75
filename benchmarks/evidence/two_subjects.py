"""Two subjects: prompts of two things, sampled plainly, with Attend and Excite, and with it weighted by HRVs.

Only prompts of which plain sampling gets at least 30 % wrong, but something right, are reported: each of several kinds
is tried with noise of tuning seeds, and those that are found get other noise. "there" has both things, whatever their
colors; "right" has every color on its own thing as well. "over_plain" is how much of "right" a way has over plain
sampling. All ways get the same noise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from ...hrv.attend_and_excite.settings import ExcitementSettings, parse_thresholds
from ...mini.evaluation import table
from ...mini.scorer import read_pictures
from ..shares import paired_difference
from ..two_subjects import KINDS, PLAIN, Studio, SubjectPrompt, draw_prompts
from .hrvs import HRVs, needed
from .measured import Measured, Numbers, goals, of_shares
from .pieces import Piece, Section, Store
from .sizes import REPORTING, TUNING, Sizes
from .studio import studio

STEPS, CFG = 12, 4.0
WRONG, HOPELESS = 0.3, 0.9
"""Prompts are reported that plain sampling gets wrong at least so often, but not always: what the model never learned
to draw, such as two plants, no attention brings back."""

HRV_OF = {"excited": "", "excited_published": "paper", "excited_causal": "causal"}
"""Ways beside plain sampling, and the HRV that each is weighted by."""

MEASURES = ("there", "right")
_GOALS = (("two_subjects.plain.right", "<=", 1.0 - WRONG),)
_THRESHOLDS = "0: 0.05, 0.2: 0.5, 0.4: 0.8"
# Gradients and up to twenty updates at a threshold take so many times as long.
_EXCITED = 20.0


class Asked(NamedTuple):
    """A prompt: its kind, and which of its kind."""

    kind: str
    number: int


@cache
def _prompts(kind: str, count: int) -> list[SubjectPrompt]:
    return draw_prompts(kind, count, REPORTING)


class TwoSubjects:
    name = "two_subjects"
    title = "Two subjects"

    def __init__(self, hrvs: HRVs):
        self.hrvs = hrvs

    def piece(self, asked: Asked, way: str, seed: int, seeds: int, store: Store, sizes: Sizes) -> Piece:
        hrv = HRV_OF.get(way, "")
        what = {
            **asked._asdict(), "way": way, "seed": seed, "seeds": seeds,
            "hrv": self.hrvs.hrv(hrv, store, sizes).digest if hrv else "",
        }  # fmt: skip
        cost = seeds * (2.0 * STEPS + 1.0)
        return Piece(self.name, what, cost if way == PLAIN else cost * _EXCITED)

    def pieces(self, store: Store, sizes: Sizes) -> Sequence[Piece]:
        hrvs = [HRV_OF[way] for way in sizes.subject_ways if HRV_OF[way]]
        tried = self._tried(store, sizes)
        found = [*self.hrvs.missing(needed(hrvs), store, sizes), *tried.values()]
        if not all(map(store.has, found)):
            return found
        prompts = self.prompts(store, sizes)
        ways = (PLAIN, *sizes.subject_ways)
        return [*tried.values(), *(piece for way in ways for piece in self._reported(prompts, way, store, sizes))]

    def make(self, store: Store, sizes: Sizes, what: dict[str, Any]) -> Any:
        """Of every picture [both are there, all is right]."""
        way = what["way"]
        hrv = HRV_OF.get(way, "")
        hrvs = {way: self.hrvs.hrv(hrv, store, sizes)} if hrv else {}
        settings = ExcitementSettings(thresholds=parse_thresholds(_THRESHOLDS))
        asked = _prompts(what["kind"], what["number"] + 1)[what["number"]]
        pictures, _ = Studio(studio(self.hrvs.weights).mini, hrvs, settings, STEPS, CFG, what["seeds"]).pictures(
            way, asked, what["seed"] + what["number"]
        )
        return [[asked.there(reading), asked.right(reading)] for reading in read_pictures(pictures)]

    def prompts(self, store: Store, sizes: Sizes) -> list[Asked]:
        """The prompts that are reported, of all kinds by turns; the one with the most wrong if none is hard enough."""
        wrong = {}
        for asked, piece in self._tried(store, sizes).items():
            right = [one[MEASURES.index("right")] for one in store.of(piece)]
            wrong[asked] = 1.0 - sum(right) / len(right)
        able = {asked: value for asked, value in wrong.items() if value <= HOPELESS} or wrong
        hard = [asked for asked, value in able.items() if value >= WRONG]
        return hard[: sizes.subject_prompts] or [max(able, key=able.__getitem__)]

    def section(self, store: Store, sizes: Sizes) -> Section:
        numbers: Numbers = {}
        rows = []
        prompts = self.prompts(store, sizes)
        base = self._groups(prompts, PLAIN, "right", store, sizes)
        for way in (PLAIN, *sizes.subject_ways):
            key = f"{self.name}.{'plain' if way == PLAIN else way}"
            for measure in MEASURES:
                numbers[f"{key}.{measure}"] = of_shares(self._groups(prompts, way, measure, store, sizes))
            cells = [str(numbers[f"{key}.{measure}"]) for measure in MEASURES]
            if way != PLAIN:
                own = self._groups(prompts, way, "right", store, sizes)
                numbers[f"{key}.over_plain"] = Measured(*paired_difference(own, base), sum(map(len, base)))
                cells.append(str(numbers[f"{key}.over_plain"]))
            rows.append([way.replace("_", " "), *cells, *([""] if way == PLAIN else [])])
        kinds = Counter(asked.kind for asked in prompts)
        first = prompts[0]
        text = (
            f"{len(prompts)} prompts, such as “{_prompts(first.kind, first.number + 1)[-1].text}”, that plain sampling "
            f"got wrong in {math.ceil(WRONG * sizes.subject_tried_seeds)} or more of {sizes.subject_tried_seeds} "
            f"tries, but not in all; tried were {sizes.subject_tried} of each kind. By kind: "
            f"{', '.join(f'{kind} {count}' for kind, count in kinds.items())}. All numbers are of other noise, "
            f"{sizes.subject_seeds} of each prompt; {STEPS} steps of euler, CFG {CFG:g}; thresholds {_THRESHOLDS}.\n\n"
            f"{table(['way', 'both there', 'all right', 'right, over plain'], rows)}\n{goals(numbers, _GOALS)}"
        )
        return Section(self.title, numbers, text)

    def _tried(self, store: Store, sizes: Sizes) -> dict[Asked, Piece]:
        """All prompts in the order in which they are reported, sampled plainly with noise of tuning seeds."""
        every = [Asked(kind, number) for number in range(sizes.subject_tried) for kind in KINDS]
        return {one: self.piece(one, PLAIN, TUNING, sizes.subject_tried_seeds, store, sizes) for one in every}

    def _reported(self, prompts: Sequence[Asked], way: str, store: Store, sizes: Sizes) -> list[Piece]:
        return [self.piece(asked, way, REPORTING, sizes.subject_seeds, store, sizes) for asked in prompts]

    def _groups(self, prompts: Sequence[Asked], way: str, measure: str, store: Store, sizes: Sizes) -> list[list[bool]]:
        """A measure of all pictures, prompt by prompt."""
        place = MEASURES.index(measure)
        return [[bool(one[place]) for one in store.of(piece)] for piece in self._reported(prompts, way, store, sizes)]
