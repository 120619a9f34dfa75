"""Two subjects: prompts of two things, sampled plainly, with Attend and Excite, and with it weighted by HRVs.

Several kinds of prompts are tried plainly with noise of tuning seeds. Of the kinds that come out neither right nor
wrong every time, the prompts that were wrong in at least 30 % are reported, with other noise: there A&E has something
to bring back; and the others, where it has something to spoil. "there" has both things, whatever their colors; "right"
has every color on its own thing as well. "over_plain" is how much of "right" a way has over plain sampling. All ways
get the same noise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from statistics import mean
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
WRONG = 0.3
"""A prompt is hard if plain sampling gets it wrong at least so often."""
ABLE = (0.1, 0.9)
"""A kind is reported if plain sampling gets it wrong at least and at most so often: what the model never learned to
draw, such as two plants, no attention brings back."""

HRV_OF = {"excited": "", "excited_published": "paper", "excited_causal": "causal"}
"""Ways beside plain sampling, and the HRV that each is weighted by."""

MEASURES = ("there", "right")
HARD, OTHERS = "hard", "others"
_GOALS = ((f"two_subjects.{HARD}.plain.right", "<=", 1.0 - WRONG),)
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
        prompts = [asked for those in self.prompts(store, sizes).values() for asked in those]
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

    def prompts(self, store: Store, sizes: Sizes) -> dict[str, list[Asked]]:
        """The prompts that are reported, hard ones and others, of all kinds by turns; what has none is left out.

        They are of the kind with the most wrong where none is in the range.
        """
        wrong = {asked: 1.0 - _right(piece, store) for asked, piece in self._tried(store, sizes).items()}
        kinds = {kind: mean(value for asked, value in wrong.items() if asked.kind == kind) for kind in KINDS}
        able = [kind for kind, value in kinds.items() if ABLE[0] <= value <= ABLE[1]]
        learned = {kind: value for kind, value in kinds.items() if value <= ABLE[1]} or kinds
        able = able or [max(learned, key=learned.__getitem__)]
        found: dict[str, list[Asked]] = {HARD: [], OTHERS: []}
        for asked, value in wrong.items():
            if asked.kind in able:
                found[HARD if value >= WRONG else OTHERS].append(asked)
        return {name: those[: sizes.subject_prompts] for name, those in found.items() if those}

    def section(self, store: Store, sizes: Sizes) -> Section:
        numbers: Numbers = {}
        rows = []
        prompts = self.prompts(store, sizes)
        for name, those in prompts.items():
            base = self._groups(those, PLAIN, "right", store, sizes)
            for way in (PLAIN, *sizes.subject_ways):
                key = f"{self.name}.{name}.{'plain' if way == PLAIN else way}"
                for measure in MEASURES:
                    numbers[f"{key}.{measure}"] = of_shares(self._groups(those, way, measure, store, sizes))
                cells = [str(numbers[f"{key}.{measure}"]) for measure in MEASURES]
                if way != PLAIN:
                    own = self._groups(those, way, "right", store, sizes)
                    numbers[f"{key}.over_plain"] = Measured(*paired_difference(own, base), sum(map(len, base)))
                    cells.append(str(numbers[f"{key}.over_plain"]))
                rows.append([name, way.replace("_", " "), *cells, *([""] if way == PLAIN else [])])
        counts = [
            f"{name} {sum(map(len, self._groups(those, PLAIN, 'right', store, sizes)))} ("
            + ", ".join(f"{kind} {count}" for kind, count in Counter(asked.kind for asked in those).items())
            + ")"
            for name, those in prompts.items()
        ]
        first = next(iter(prompts.values()))[0]
        low, high = ABLE
        text = (
            f"Prompts such as “{_prompts(first.kind, first.number + 1)[-1].text}”. {sizes.subject_tried} of each of "
            f"{len(KINDS)} kinds were tried plainly {sizes.subject_tried_seeds} times. Of the kinds that came out "
            f"wrong in {low:g} to {high:g}, prompts are hard if they came out wrong in {WRONG:g} or more. All numbers "
            f"are of other noise, {sizes.subject_seeds} of each prompt; pictures: {'; '.join(counts)}. {STEPS} steps "
            f"of euler, CFG {CFG:g}; thresholds {_THRESHOLDS}.\n\n"
            f"{table(['prompts', 'way', 'both there', 'all right', 'right, over plain'], rows)}\n"
            f"{goals(numbers, _GOALS)}"
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


def _right(piece: Piece, store: Store) -> float:
    """The share of a piece's pictures that are right."""
    return mean(one[MEASURES.index("right")] for one in store.of(piece))
