"""Robustness: how well each estimator agrees with itself when something changes that should not matter, or may.

Every HRV is compared with one of another seed, so of other captions, words, noise and pairs; "another seed" is what
chance alone takes away, and whatever else changes comes on top. Agreement is Spearman's rank correlation of the heads,
mean over concepts; "top" is the share of the one's eight most relevant heads that are among the other's, which for HRVs
that hold most of a concept in few heads says more. Values are computed without chance, so have no interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...hrv.relevance.agreement import rank_agreement
from ...hrv.relevance.evidence import Effects, head_shares, normalised
from ...hrv.relevance.vectors import HRV
from ...mini.evaluation import table
from .hrvs import BATCH, HALF, PLAIN, SAMPLER, STAGE, Build, HRVs
from .measured import Measured, Numbers, Values, exactly, of_parts
from .ordered_weakening import plain
from .pieces import Piece, Section, Store
from .sizes import KINDS, Sizes

TOP = 8
SEED = "another seed"
# What changes values: nothing is drawn, and nothing is sampled.
_WEIGHTS = (HALF, STAGE)


def agreement(one: Values, other: Values) -> float:
    """Mean over concepts of the rank correlation of relevances [N, H]."""
    return float(rank_agreement(one, other).mean())


def top_shared(one: Values, other: Values) -> float:
    """Mean over concepts of the share of the top heads that two relevances [N, H] have in common."""
    tops = [np.argsort(-values, axis=1, kind="stable")[:, :TOP] for values in (one, other)]
    return float(np.mean([len(set(a) & set(b)) / TOP for a, b in zip(*map(np.ndarray.tolist, tops), strict=True)]))


MEASURES: dict[str, Callable[[Values, Values], float]] = {"agreement": agreement, "top": top_shared}


def samples_of(
    kind: str, build: Build, hrvs: HRVs, store: Store, sizes: Sizes
) -> tuple[int, int, Callable[[npt.NDArray[np.bool_]], Values]]:
    """What an HRV that is drawn is made of: how many batches of images or numbers of pairs, how many images or pairs of
    each concept one of them is, and the relevances [N, H] of those that are True."""
    if kind == "causal":
        hrv = hrvs.hrv(kind, store, sizes, build)
        evidence = hrv.evidence
        assert isinstance(evidence, Effects)
        place = numbered(evidence)

        def of_pairs(which: npt.NDArray[np.bool_]) -> Values:
            chosen = evidence.chosen(which[place])
            assert chosen is not None
            return normalised(chosen.scores(len(hrv.concepts))).astype(np.float64)

        return int(place.max()) + 1, 1, of_pairs
    counts = hrvs.batches(kind, store, sizes, build._replace(how="counts"))
    return len(counts), BATCH, lambda which: normalised(head_shares(counts[which].sum(axis=0))).astype(np.float64)


def numbered(evidence: Effects) -> npt.NDArray[np.int64]:
    """The numbers of pairs [P] in their concepts, from 0, such that the first ones are of all noise levels."""
    found = np.empty(len(evidence.pairs), dtype=np.int64)
    for concept in np.unique(evidence.pairs[:, 0]):
        own = np.flatnonzero(evidence.pairs[:, 0] == concept)
        levels = evidence.pairs[own, 2]
        before = np.array([(levels[:row] == level).sum() for row, level in enumerate(levels)])
        found[own[np.lexsort((levels, before))]] = np.arange(len(own))
    return found


class Robustness:
    name = "robustness"
    title = "Robustness"

    def __init__(self, hrvs: HRVs):
        self.hrvs = hrvs

    def builds(self, sizes: Sizes) -> list[Build]:
        counted = [PLAIN, *sizes.variants]
        valued = [variant for variant in sizes.variants if variant in _WEIGHTS]
        return [
            *(Build(how) for how in ("counts", "causal", "values")),
            *(Build(how, variant, 1) for variant in counted for how in ("counts", "causal")),
            *(Build("values", variant, 1) for variant in valued),
        ]

    def pieces(self, store: Store, sizes: Sizes) -> Sequence[Piece]:
        return self.hrvs.missing(self.builds(sizes), store, sizes)

    def make(self, store: Store, sizes: Sizes, what: dict[str, Any]) -> Any:
        raise AssertionError("all of it is builds")

    def section(self, store: Store, sizes: Sizes) -> Section:
        numbers: Numbers = {}
        rows = []
        for variant, name in [(PLAIN, SEED), *((one, one) for one in sizes.variants)]:
            for kind in KINDS:
                if kind == "values" and variant not in _WEIGHTS:
                    continue
                cells = []
                for measure, compare in MEASURES.items():
                    found = self._compared(kind, variant, compare, store, sizes)
                    numbers[f"{self.name}.{plain(name)}.{plain(kind)}.{measure}"] = found
                    cells.append(str(found))
                rows.append([name, kind, *cells])
        stage = (
            f"{sizes.further_training} further steps of training" if self.hrvs.stage is None else "given by its weights"
        )
        told = f" “{STAGE}” is {stage}; half precision is bfloat16." if sizes.variants else ""
        text = (
            f"{sizes.again_images} images of {' '.join(SAMPLER)}, or {sizes.again_pairs} pairs a concept, compared "
            f"with {sizes.images} images or {sizes.pairs} pairs of another seed.{told} Intervals by a jackknife over "
            "eighths of the images and pairs.\n\n"
            f"{table(['what changes', 'estimator', 'rank agreement', f'shared of the top {TOP}'], rows)}\n"
        )
        return Section(self.title, numbers, text)

    def _compared(
        self, kind: str, variant: str, compare: Callable[[Values, Values], float], store: Store, sizes: Sizes
    ) -> Measured:
        base = _relevances(self.hrvs.hrv(kind, store, sizes))
        build = Build(kind, variant, 1)
        if kind == "values":
            value = compare(_relevances(self.hrvs.hrv(kind, store, sizes, build)), base)
            return exactly(value, len(base))
        count, each, of = samples_of(kind, build, self.hrvs, store, sizes)
        return of_parts(count, lambda which: compare(of(which), base), count * each)


def _relevances(hrv: HRV) -> Values:
    return hrv.values.astype(np.float64)
