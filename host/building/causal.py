"""Building a causal HRV: how much of what a concept's words do to the image goes through each head.

Pairs of prompts that differ in a word of the concept are measured on the model's own images (:mod:`.attribution`).
Every pair is a sample of its own, told by (seed, concept, number), so all splits of a build give the same HRV.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...hrv.building.causal_report import CausalReport, ConceptReport, agreements, group_shares, top_heads
from ...hrv.building.causal_state import GROUPS, KIND, CausalState
from ...hrv.building.convergence import next_measurement
from ...hrv.building.pairs import MOST_PAIRS, Example, draw_pairs, pair_seed, words_without_partner
from ...hrv.errors import HRVError
from ...hrv.relevance.evidence import Effects, normalised
from ...hrv.relevance.factors import CAUSAL
from ...hrv.relevance.files import require_savable
from ...hrv.relevance.vectors import HRV
from ...hrv.relevance.vocabulary import Vocabulary
from ..models.capabilities import Capability
from ..models.layouts import head_layout
from ..work.description import Description
from ..work.executor import HERE, Executor, Tick
from ..work.job import Report, job_key, no_report, run_job, shard_of
from ..work.memory import require_room
from ..work.states import states_folder
from ..work.status import Curve, Curves, Seen
from .attribution import Attribution
from .causal_checks import TopHeadChecks
from .pair_images import NumberedPair, PairImages
from .patching import Patch
from .provenance import made_from
from .word_places import WordPlaces

LEVELS = (0.06, 0.24, 0.44, 0.68)
"""Sampling progress of the noise levels: the timesteps 940, 760, 560 and 320 of 1000."""

STEPS = 8
"""Sampling steps of an image unless others are asked for: it is only made as far as a noise level, and more steps find
no other heads on HRV-mini (docs/building.md)."""

MOST_LEVELS = 16

CHECKED = 4
"""So many pairs of each concept also tell through which tokens it acts, and what its top heads really do; they are
spread over the noise levels."""

_Measured = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Effects, norms and groups of some pairs, as in :class:`~...hrv.building.causal_state.CausalState`."""

# An early stop before so many pairs of each concept would be chance.
_FEWEST = 4


@dataclass(frozen=True)
class CausalSettings:
    """How the images of a causal build are made, and what is measured on them; ``width`` and ``height`` are pixels.

    ``pairs`` are measured of each concept, each at one of the noise ``levels`` (sampling progress), in turn. ``shard``
    (i, n) makes only the i-th of n parts, counted from 1. ``stop_at`` ends the build when every concept's shares are
    expected to correlate so much with those of an endless build; 0 never does. Raises HRVError for settings that make
    no sense.
    """

    pairs: int
    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    width: int
    height: int
    batch_size: int = 1
    negative: str = ""
    levels: tuple[float, ...] = LEVELS
    shard: tuple[int, int] = (1, 1)
    stop_at: float = 0.0

    def __post_init__(self) -> None:
        index, count = self.shard
        if not 1 <= self.pairs <= MOST_PAIRS:
            raise HRVError(f"A causal build takes 1 to {MOST_PAIRS} pairs of each concept, not {self.pairs}.")
        if not 1 <= index <= count:
            raise HRVError(f"There is no shard {index} of {count}: shards are counted from 1.")
        if not 1 <= len(self.levels) <= MOST_LEVELS or not all(0.0 < level < 1.0 for level in self.levels):
            raise HRVError(
                f"Noise levels are 1 to {MOST_LEVELS} numbers between 0 (pure noise) and 1 (the finished image), such "
                f"as {', '.join(map(str, LEVELS))}."
            )
        if not 0 <= self.stop_at < 1:
            raise HRVError(f"A build can stop at an agreement below 1, such as 0.98, not at {self.stop_at:g}.")
        if self.stop_at and count > 1:
            raise HRVError("A shard cannot stop early: all shards together would not be the whole. Set the stop to 0.")


def _named(one: NumberedPair) -> str:
    return " / ".join(one.pair.prompts)


class CausalBuild(NamedTuple):
    """What a causal build gives: the HRV, whose evidence are effects, and what else was found."""

    hrv: HRV
    report: CausalReport


def build_causal_hrv(
    model: Any,
    clip: Any,
    examples: Mapping[str, Sequence[Example]],
    settings: CausalSettings,
    *,
    states: Path | None = None,
    report: Report = no_report,
    executor: Executor = HERE,
) -> CausalBuild:
    """Build the causal HRV of a MODEL for the concepts of ``examples``.

    The host's progress is told per sampling step and noise level, ``report`` is called after every batch of pairs, and
    a cancel takes effect between two passes; the model is as before afterwards. Measured pairs are saved in the folder
    ``states`` (None: the host's user folder) as :func:`~..work.job.run_job` does, and the same build resumes from
    there. Whatever ``executor`` measures the pairs, the effects are the same. Raises HRVError for a concept without
    pairs, one whose words change nothing in any of its first pairs, a shard without pairs, an unsupported architecture,
    weights that cannot be differentiated, a text encoder that encodes a prompt differently in the course of sampling,
    numbers of the text encoder or the model that are not finite, a folder that cannot be written, a build that another
    process is making at this moment, and what the executor does.
    """
    if not examples:
        raise HRVError("There are no concepts to measure: connect concepts or an experiment.")
    folder = states_folder("causal-builds") if states is None else states
    job = _Build(model, clip, examples, settings)
    state = run_job(job, folder, report, executor)
    job.require_effects(state)
    evidence = job.evidence(state)
    assert evidence is not None, "a build has at least one pair"
    done = int(state.done.sum())
    # Of a complete shard those of the whole build, so that its shards know each other.
    measured = {**job.provenance, "images": len(job.pairs) if done == job.units else done}
    hrv = HRV.from_evidence(evidence, job.names, job.layout, measured)
    places = job.checked(state)
    key = job_key(job.provenance, hrv.digest, places)
    checks = job.checks(places, top_heads(evidence.scores(len(job.names))), key)
    checked = run_job(checks, folder, report, executor)
    return CausalBuild(hrv, job.report(state, evidence, checks.shares(checked)))


def _checked_numbers(pairs: int, levels: int) -> frozenset[int]:
    """The numbers of the pairs of a concept that are checked: as many levels as there can be, the ends among them."""
    reached = min(pairs, levels)
    if reached <= CHECKED:
        return frozenset(range(min(pairs, CHECKED)))
    return frozenset(round(step * (reached - 1) / (CHECKED - 1)) for step in range(CHECKED))


class _Build:
    """A causal build as a :class:`~..work.job.Job`; its pieces are batches of pairs, by their places in the grid."""

    kind, unit = KIND, "pairs"

    def __init__(self, model: Any, clip: Any, examples: Mapping[str, Sequence[Example]], settings: CausalSettings):
        self.model, self.clip, self.settings, self.names = model, clip, settings, tuple(examples)
        self.examples = examples
        self.layout = head_layout(model, Capability.CAUSAL)
        require_room(model, settings, settings.pairs * len(examples))
        # Of every pair its effects, its norm and its place.
        size = settings.pairs * len(examples) * (4 * self.layout.head_count + 28)
        require_savable(size, "fewer pairs, or fewer concepts")
        places = WordPlaces(clip)
        drawn = [draw_pairs(name, of_name, places, settings.pairs, settings.seed) for name, of_name in examples.items()]
        self.alone = {name: tuple(words_without_partner(of_name, places)) for name, of_name in examples.items()}
        # A pair of every concept before the next of any, so that an early stop leaves all of them equally sure.
        levels = len(settings.levels)
        self.pairs = [
            NumberedPair(pairs[number], number, number % levels) for number in range(settings.pairs) for pairs in drawn
        ]
        self._checked = _checked_numbers(settings.pairs, levels)
        size = settings.batch_size
        batches = [range(first, min(first + size, len(self.pairs))) for first in range(0, len(self.pairs), size)]
        self.batches = shard_of(batches, settings.shard)
        if not self.batches:
            raise HRVError(
                f"Shard {settings.shard[0]} of {settings.shard[1]} has no pairs: there are {len(batches)} batches of "
                "pairs in all. Make fewer shards or smaller batches."
            )
        self.images = PairImages(model, clip, settings, settings.negative, settings.seed, settings.levels)
        self._measured: dict[int, float] = {}
        self.units, self.steps = sum(map(len, self.batches)), settings.steps + 1
        words = [(name, tuple(dict.fromkeys(one.word for one in of_name))) for name, of_name in examples.items()]
        made = asdict(settings)
        shard, _ = made.pop("shard"), made.pop("stop_at")
        self.provenance: dict[str, Any] = {
            **made_from(model, clip, Vocabulary(tuple(words))),
            "estimator": CAUSAL,
            "prompts": [[one.pair.concept, *one.pair.prompts] for one in self.pairs],
            **made,
            "levels": list(settings.levels),
            **({"shard": "{}/{}".format(*shard)} if shard != (1, 1) else {}),
        }

        self.key = job_key(self.provenance, settings.stop_at)

    def fresh(self) -> CausalState:
        own = range(self.batches[0].start, self.batches[-1].stop)
        return CausalState.beginning(self.key, len(self.pairs), self.layout.head_count, own)

    def description(self) -> Description:
        examples = [(name, [tuple(one) for one in of_name]) for name, of_name in self.examples.items()]
        inputs = {"model": self.model, "clip": self.clip}
        return Description(
            "building.causal:described", inputs, {"examples": examples, "settings": asdict(self.settings)}
        )

    def checked(self, state: CausalState) -> list[int]:
        """The places of all measured pairs that are to be checked."""
        return [int(place) for place in np.flatnonzero(state.done) if self.pairs[place].number in self._checked]

    def checks(self, places: Sequence[int], tops: Sequence[frozenset[int]], key: str) -> TopHeadChecks:
        """The checks of the pairs at these places; ``tops`` are the top heads of each concept."""
        job, inputs, parameters = self.description()
        also = {"places": list(places), "tops": [sorted(those) for those in tops], "key": key}
        return TopHeadChecks(
            self.images,
            [self.pairs[place] for place in places],
            dict(zip(self.names, tops, strict=True)),
            key,
            Description(f"{job}_checks", inputs, {**parameters, **also}),
        )

    def left(self, state: CausalState) -> list[range]:
        if self.is_finished(state):
            return []
        return [batch for batch in self.batches if not state.done[batch.start : batch.stop].all()]

    def size(self, piece: range) -> int:
        return len(piece)

    def maker(self, tick: Tick) -> Callable[[range], _Measured]:
        """What measures one batch: the effects, norms and groups of its pairs."""
        attribution = Attribution(self.model)

        def make(batch: range) -> _Measured:
            pairs = self.pairs[batch.start : batch.stop]
            found = CausalState.beginning("", len(pairs), self.layout.head_count)
            for places, sigma, those in self.images.made(pairs, tick):
                own = [pairs[place] for place in places]
                patches = self._patches(own)
                effects = attribution.effects(those, sigma, patches)
                found.effects[places], found.norms[places] = effects.heads, effects.squares
                if patches:
                    checked = [one.number in self._checked for one in own]
                    found.groups[np.array(places)[checked]] = effects.patches[checked]
                tick(len(own))
            return found.effects, found.norms, found.groups

        return make

    def _patches(self, pairs: Sequence[NumberedPair]) -> list[Patch]:
        """A patch for each group of tokens, where some of the pairs are to be checked."""
        if not any(one.number in self._checked for one in pairs):
            return []
        return [Patch(positions=positions) for positions in self.images.groups(pairs)]

    def keep(self, state: CausalState, piece: range, made: _Measured) -> None:
        there = slice(piece.start, piece.stop)
        state.effects[there], state.norms[there], state.groups[there] = made
        for place in piece:
            if not state.norms[place]:
                logging.warning("[HRV] %s change nothing, so this pair is left out.", _named(self.pairs[place]))
        self.require_effects(state)

    def require_effects(self, state: CausalState) -> None:
        """Raise HRVError for a concept that has some pairs by now, none of which has an effect."""
        for name in self.names:
            own = [place for place in np.flatnonzero(state.done) if self.pairs[place].pair.concept == name]
            if len(own) >= min(_FEWEST, self.settings.pairs) and not state.norms[own].any():
                listed = ", ".join(dict.fromkeys(_named(self.pairs[place]) for place in own[:_FEWEST]))
                raise HRVError(
                    f"The words of {name} change nothing in the images of this model, so no head can be relevant for "
                    f"them; tried were: {listed}. Take the concept out, or write other words or sentences."
                )

    def is_finished(self, state: CausalState) -> bool:
        """Whether the shares of every concept are settled as asked for."""
        if not self.settings.stop_at or state.done.sum() < _FEWEST * len(self.names):
            return False
        found = self._agreements(state)
        return all(one is not None and one >= self.settings.stop_at for one in found)

    def detail(self, state: CausalState, piece: range) -> str:
        found = [one for one in self._agreements(state) if one is not None]
        return f"agreement {min(found):.3f}" if len(found) == len(self.names) else ""

    def evidence(self, state: CausalState, done: npt.NDArray[np.int64] | None = None) -> Effects | None:
        """The effects of all pairs measured so far, or of those at some places; None before the first."""
        done = np.flatnonzero(state.done) if done is None else done
        if not len(done):
            return None
        rows = {name: row for row, name in enumerate(self.names)}
        # A pair's number tells it from those of builds with other seeds, which may be merged with this one.
        places = [
            [rows[one.pair.concept], pair_seed(one.pair.concept, self.settings.seed, one.number), one.level]
            for one in (self.pairs[place] for place in done)
        ]
        return Effects(state.effects[done], state.norms[done], np.array(places, dtype=np.int64))

    def seen(self, state: CausalState) -> Seen:
        """How the build converges, and its HRV so far."""
        evidence = self.evidence(state)
        if evidence is None:
            return Seen()
        curve = self._curve(state)
        hrv = HRV(normalised(evidence.scores(len(self.names))), self.names, self.layout)
        return Seen(Curves("pairs", "expected agreement", [curve]), hrv)

    def _curve(self, state: CausalState) -> Curve:
        """The least of the concepts' agreements after ever more pairs, as far as all of them have one."""
        done = np.flatnonzero(state.done)
        pairs = next_measurement(max(self._measured, default=0))
        while pairs <= len(done):
            found = [one for one in self._agreements(state, done[:pairs]) if one is not None]
            self._measured[pairs] = min(found) if len(found) == len(self.names) else np.nan
            pairs = next_measurement(pairs)
        known = {pairs: least for pairs, least in self._measured.items() if not np.isnan(least)}
        return Curve.of("least settled concept", known.keys(), known.values())

    def _agreements(self, state: CausalState, done: npt.NDArray[np.int64] | None = None) -> list[float | None]:
        evidence = self.evidence(state, done)
        return [] if evidence is None else agreements(evidence, len(self.names))

    def _groups(self, state: CausalState, own: npt.NDArray[np.bool_]) -> dict[str, float | None]:
        """Through which tokens a concept acts whose pairs are ``own``, bool [P]."""
        places = np.array([[0, number, self.pairs[number].level] for number in np.flatnonzero(own)], dtype=np.int64)
        if not len(places):
            return dict.fromkeys(GROUPS)
        return group_shares(Effects(state.effects[own], state.norms[own], places), state.groups[own])

    def report(self, state: CausalState, evidence: Effects, checks: Mapping[str, tuple[float, int]]) -> CausalReport:
        """What was found; ``checks`` are the true shares of the top heads and from how many pairs, by concept."""
        scores = evidence.scores(len(self.names))
        checked = self.evidence(state, np.array(self.checked(state), dtype=np.int64))
        estimated = checked.scores(len(self.names)) if checked else scores
        tops = top_heads(scores)
        shares, measured = evidence.by_level(len(self.names))
        found = []
        for row, (name, agreement) in enumerate(zip(self.names, agreements(evidence, len(self.names)), strict=True)):
            own = np.array([one.pair.concept == name for one in self.pairs]) & state.done
            prompts = Counter(self.pairs[place].pair.prompts for place in np.flatnonzero(own))
            true, pairs = checks.get(name, (None, 0))
            found.append(
                ConceptReport(
                    concept=name,
                    pairs=int(own.sum()),
                    different=len(prompts),
                    complete=float(scores[row].sum()),
                    groups=self._groups(state, own),
                    top=float(estimated[row, list(tops[row])].sum()) if pairs else None,
                    top_true=true,
                    checked=pairs,
                    agreement=agreement,
                    by_level={
                        f"{self.settings.levels[level]:g}": float(shares[row, level].sum())
                        for level in np.flatnonzero(measured[row])
                    },
                    silent=tuple(_named(self.pairs[place]) for place in np.flatnonzero(own & (state.norms == 0))),
                    alone=self.alone[name],
                )
            )
        return CausalReport(tuple(found), len(tops[0]))


def described(inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> _Build:
    """A causal build on a worker: of its own model, by a description's parameters."""
    examples = {name: [Example(*one) for one in of_name] for name, of_name in parameters["examples"]}
    return _Build(inputs["model"], inputs["clip"], examples, CausalSettings(**parameters["settings"]))


def described_checks(inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> TopHeadChecks:
    """The checks of a causal build on a worker."""
    tops = [frozenset(those) for those in parameters["tops"]]
    return described(inputs, parameters).checks(parameters["places"], tops, parameters["key"])
