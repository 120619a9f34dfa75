"""What an HRV rests on: votes that heads cast, or effects that heads have.

An estimator measures one kind of evidence. The values of an HRV follow from it, its heads are ranked by it, and HRVs
are merged by adding it. A new estimator needs another kind only if neither of these can hold what it measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import HRVError
from ..heads.layout import HeadLayout

Counts = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
Arrays = Mapping[str, npt.NDArray[Any]]


class Evidence(Protocol):
    """Evidence about H head positions for N concepts, immutable once made.

    ``kind`` names it for people ("votes").
    """

    kind: ClassVar[str]

    def checked(self, concepts: int, layout: HeadLayout) -> Evidence:
        """Itself, as evidence about so many concepts and these heads. Raises HRVError for anything else."""
        ...

    def scores(self, concepts: int) -> Scores:
        """What the heads of each concept are ranked by, the highest first: float64 [N, H]."""
        ...

    def picked(self, rows: Sequence[int], concepts: int) -> Evidence | None:
        """The evidence about some of ``concepts`` concepts, in this order; None if it says nothing about them alone."""
        ...

    def added(self, other: Evidence) -> Evidence:
        """This and other evidence about the same concepts; the order of adding changes nothing.

        Raises HRVError for another kind, and for what can't be added.
        """
        ...

    def arrays(self) -> Arrays:
        """All it holds, by the names of the tensors in HRV files (docs/hrv-format.md)."""
        ...


@dataclass(frozen=True, eq=False)
class Votes:
    """How often a head attended most to each concept (arXiv 2412.02237, section 3).

    ``counts``  int64 [N, H], not negative. Every head was recorded at least once.

    Raises HRVError for other numbers.
    """

    counts: Counts
    kind: ClassVar[str] = "votes"

    def __post_init__(self) -> None:
        array = np.asarray(self.counts)
        if array.dtype.kind not in "iu":
            raise HRVError(f"The counts of an HRV must be whole numbers, not {array.dtype}.")
        array = array.astype(np.int64, copy=False)
        if (array < 0).any():
            raise HRVError(f"The counts of an HRV must not be negative; the smallest here is {array.min()}.")
        object.__setattr__(self, "counts", read_only(array))

    def checked(self, concepts: int, layout: HeadLayout) -> Votes:
        require_shape("counts", self.counts, (concepts, layout.head_count))
        missing = np.flatnonzero(~self.counts.any(axis=0))
        if missing.size:
            first = layout.head_names()[missing[0]]
            raise HRVError(
                f"{missing.size} of {layout.head_count} heads were never recorded (first: {first}), so nothing is "
                "known about them. Build again without anything that skips layers of the model."
            )
        return self

    def scores(self, concepts: int) -> Scores:
        """Counts divided by their sum over the concepts: the share of a head's votes that each concept got."""
        return head_shares(self.counts)

    def picked(self, rows: Sequence[int], concepts: int) -> Votes | None:
        """Concepts compete for a head's votes, so the votes say nothing about some of them alone."""
        return Votes(self.counts[list(rows)]) if len(set(rows)) == concepts else None

    def added(self, other: Evidence) -> Votes:
        if not isinstance(other, Votes):
            raise HRVError(f"Votes can't be added to {other.kind}: merge HRVs of one estimator.")
        return Votes(self.counts + other.counts)

    def arrays(self) -> Arrays:
        return {"counts": self.counts}


@dataclass(frozen=True, eq=False)
class Effects:
    """What each head does to the image when it reads another word, pair of prompts by pair.

    Two prompts that differ in a word of the concept change what the model predicts by d. A head's part of <d, d> is
    its effect in that pair; divided by <d, d>, the parts of all heads sum to about 1.

    ``effects``  float32 [P, H], each head's part of <d, d> in every pair; may be negative.
    ``norms``    float32 [P], <d, d> itself.
    ``pairs``    int64 [P, 3], where each pair belongs: the row of its concept, its number in that concept, and the
                 number of the noise level at which it was measured; each once.

    Pairs are kept apart and sorted, so that any split of the pairs gives the same bits once merged. Raises HRVError for
    arrays that don't belong together, a pair twice, and numbers that are not finite or norms that are negative.
    """

    effects: npt.NDArray[np.float32]
    norms: npt.NDArray[np.float32]
    pairs: npt.NDArray[np.int64]
    kind: ClassVar[str] = "effects"

    def __post_init__(self) -> None:
        effects, norms = (np.asarray(array, dtype=np.float32) for array in (self.effects, self.norms))
        pairs = np.asarray(self.pairs)
        if effects.ndim != 2 or norms.shape != effects.shape[:1] or pairs.shape != (len(effects), 3):
            raise HRVError(
                "The effects of an HRV need a number for each pair and head, a norm for each pair, and the concept, "
                "number and noise level of each pair; these arrays don't belong together."
            )
        if not effects.size or pairs.dtype.kind not in "iu" or (pairs < 0).any():
            raise HRVError("The effects of an HRV need at least one pair, with whole numbers from 0 for its place.")
        if not (np.isfinite(effects).all() and np.isfinite(norms).all()) or (norms < 0).any():
            raise HRVError("The effects of this HRV contain NaN, infinity or negative norms.")
        pairs = pairs.astype(np.int64, copy=False)
        order = np.lexsort(pairs.T[::-1])
        # Files have them in order: large arrays are not copied for nothing.
        if (order[1:] < order[:-1]).any():
            effects, norms, pairs = effects[order], norms[order], pairs[order]
        if (pairs[1:] == pairs[:-1]).all(axis=1).any():
            raise HRVError("The effects of this HRV contain the same pair twice; a pair can count only once.")
        for name, array in (("effects", effects), ("norms", norms), ("pairs", pairs)):
            object.__setattr__(self, name, read_only(array))

    def checked(self, concepts: int, layout: HeadLayout) -> Effects:
        require_shape("effects", self.effects, (len(self.norms), layout.head_count))
        if (self.pairs[:, 0] >= concepts).any():
            raise HRVError("The effects of this HRV are for a concept that it doesn't have.")
        return self

    def scores(self, concepts: int) -> Scores:
        """Each head's share of a concept's whole effect, summed over the pairs of a noise level.

        Averaged over the levels at which the concept was measured and its words change anything; zeros if none is.
        """
        shares, measured = self.by_level(concepts)
        averaged: Scores = shares.sum(axis=1) / np.maximum(measured.sum(axis=1), 1)[:, None]
        return averaged

    def by_level(self, concepts: int) -> tuple[Scores, npt.NDArray[np.bool_]]:
        """The shares of :meth:`scores` at each of L noise levels, float64 [N, L, H], and where there are any [N, L]."""
        levels = int(self.pairs[:, 2].max()) + 1
        sums, norms = np.zeros((concepts, levels, self.effects.shape[1])), np.zeros((concepts, levels))
        places = self.pairs[:, 0], self.pairs[:, 2]
        np.add.at(sums, places, self.effects.astype(np.float64))
        np.add.at(norms, places, self.norms.astype(np.float64))
        shares = np.divide(sums, norms[..., None], out=np.zeros_like(sums), where=norms[..., None] > 0)
        return shares, norms > 0

    def chosen(self, which: npt.NDArray[np.bool_]) -> Effects | None:
        """The evidence of some pairs, a bool [P] each; None if that is none."""
        return Effects(self.effects[which], self.norms[which], self.pairs[which]) if which.any() else None

    def picked(self, rows: Sequence[int], concepts: int) -> Effects | None:
        places = {row: place for place, row in enumerate(rows)}
        those = self.chosen(np.isin(self.pairs[:, 0], list(places)))
        if those is None:
            return None
        moved = np.array([[places[row], *rest] for row, *rest in those.pairs.tolist()], dtype=np.int64)
        return Effects(those.effects, those.norms, moved)

    def added(self, other: Evidence) -> Effects:
        if not isinstance(other, Effects):
            raise HRVError(f"Effects can't be added to {other.kind}: merge HRVs of one estimator.")
        require_shape("effects", other.effects, (len(other.effects), self.effects.shape[1]))
        return Effects(
            np.concatenate([self.effects, other.effects]),
            np.concatenate([self.norms, other.norms]),
            np.concatenate([self.pairs, other.pairs]),
        )

    def arrays(self) -> Arrays:
        return {"effects": self.effects, "effect_norms": self.norms, "effect_pairs": self.pairs}


def head_shares(counts: Counts) -> Scores:
    """Counts [N, H] divided by their sum over the concepts, float64 [N, H]."""
    shares: Scores = counts / counts.sum(axis=0, dtype=np.float64)
    return shares


def evidence_of(arrays: Arrays) -> Evidence | None:
    """The evidence that :meth:`Evidence.arrays` described, or None. Raises HRVError for both kinds, or parts of one."""
    votes, effects = "counts" in arrays, [name in arrays for name in ("effects", "effect_norms", "effect_pairs")]
    if any(effects):
        if votes or not all(effects):
            raise HRVError("It needs either 'counts', or all of 'effects', 'effect_norms' and 'effect_pairs'.")
        return Effects(arrays["effects"], arrays["effect_norms"], arrays["effect_pairs"])
    return Votes(arrays["counts"]) if votes else None


def normalised(scores: Scores) -> npt.NDArray[np.float32]:
    """Scores [N, H] as values of an HRV: what is below zero counts as zero, and every row has the L1 norm H.

    A row in which no score is above zero becomes a row of zeros: it has no direction to scale.
    """
    kept = np.maximum(scores, 0.0)
    norms = kept.sum(axis=1, keepdims=True)
    rows: npt.NDArray[np.float64] = np.divide(kept * scores.shape[1], norms, out=np.zeros_like(kept), where=norms > 0)
    return rows.astype(np.float32)


def require_shape(what: str, array: npt.NDArray[Any], shape: tuple[int, int]) -> None:
    """Raise HRVError unless an array has this shape [concepts or pairs, heads]."""
    if array.shape != shape:
        got = " x ".join(str(size) for size in array.shape) or "a single number"
        rows = "pairs" if what == "effects" else "concepts"
        wanted = f"{shape[0]} {rows} x {shape[1]} heads"
        raise HRVError(f"The {what} of this HRV should be {wanted}, but they are {got}.")


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array that can never be made writable: a copy, or itself if it is one."""
    # An array over bytes cannot be made writable again, unlike one whose flag is cleared.
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, bytes) and array.flags.c_contiguous:
        return array
    return np.frombuffer(array.tobytes(), dtype=array.dtype).reshape(array.shape)
