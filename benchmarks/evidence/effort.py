"""Effort: how many images or pairs of prompts each estimator needs.

An HRV from the first so many images, or pairs of each concept, is compared with a build of another seed by the same
estimator ("agreement", Spearman's), and by what it is good for: "effect" is the share of a concept's causal effect, by
the causal build of another seed, that lies in its eight most relevant heads, mean over concepts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ...hrv.drawing.charts import Axis, Chart, Key
from ...mini.evaluation import table
from .hrvs import Build, HRVs
from .measured import Numbers, Values, exactly, of_parts
from .ordered_weakening import COLORS, plain
from .pieces import Piece, Section, Store
from .robustness import TOP, agreement, samples_of
from .sizes import Sizes

DRAWN = ("paper", "all words", "causal")
_OTHER = 1


def effect_held(relevances: Values, truth: Values) -> float:
    """Mean over concepts of the share of true relevances [N, H] in the top heads of others."""
    tops = np.argsort(-relevances, axis=1, kind="stable")[:, :TOP]
    return float((np.take_along_axis(truth, tops, axis=1).sum(axis=1) / truth.sum(axis=1)).mean())


class Effort:
    name = "effort"
    title = "Effort"

    def __init__(self, hrvs: HRVs):
        self.hrvs = hrvs

    def pieces(self, store: Store, sizes: Sizes) -> Sequence[Piece]:
        builds = [
            Build("counts"),
            Build("causal"),
            Build("values"),
            *(Build(how, seed=_OTHER) for how in ("counts", "causal")),
        ]
        return self.hrvs.missing(builds, store, sizes)

    def make(self, store: Store, sizes: Sizes, what: dict[str, Any]) -> Any:
        raise AssertionError("all of it is builds")

    def section(self, store: Store, sizes: Sizes) -> Section:
        numbers: Numbers = {}
        rows = []
        other = Build("", seed=_OTHER)
        truth = self.hrvs.hrv("causal", store, sizes, other).values.astype(np.float64)
        curves: dict[str, list[tuple[float, float]]] = {}
        for kind in DRAWN:
            count, each, of = samples_of(kind, Build(kind), self.hrvs, store, sizes)
            others, _, of_other = samples_of(kind, other, self.hrvs, store, sizes)
            whole = of_other(np.ones(others, dtype=bool))
            for number in _doublings(count):
                key = f"{self.name}.{plain(kind)}.{number * each}"
                for measure, compare, base in (("agreement", agreement, whole), ("effect", effect_held, truth)):
                    found = partial(_of_first, of=of, count=count, compare=compare, base=base)
                    numbers[f"{key}.{measure}"] = of_parts(number, found, number * each)
                curves.setdefault(kind, []).append((number * each, numbers[f"{key}.effect"].value))
                cells = [str(numbers[f"{key}.{measure}"]) for measure in ("agreement", "effect")]
                unit = "images" if kind != "causal" else "pair a concept" if number * each == 1 else "pairs a concept"
                rows.append([kind, f"{number * each} {unit}", *cells])
        values = self.hrvs.hrv("values", store, sizes).values.astype(np.float64)
        instant = exactly(effect_held(values, truth), len(values))
        numbers[f"{self.name}.values.0.effect"] = instant
        rows.append(["values", "the weights alone", "", str(instant)])
        rows.append(["chance", "", "", f"{TOP / truth.shape[1]:.2f}"])
        text = (
            f"Compared with {sizes.again_images} images and {sizes.again_pairs} pairs a concept of another seed. "
            "Intervals by a jackknife over eighths of the images and pairs, where there are as many.\n\n"
            f"{table(['estimator', 'from', 'rank agreement', f'effect in its top {TOP} heads'], rows)}\n"
        )
        return Section(self.title, numbers, text, {"effort.png": _chart(curves, instant.value)})


def _of_first(
    which: npt.NDArray[np.bool_],
    of: Callable[[npt.NDArray[np.bool_]], Values],
    count: int,
    compare: Callable[[Values, Values], float],
    base: Values,
) -> float:
    """What those of the first batches or pairs that are True come to; there are ``count`` in all."""
    chosen = np.zeros(count, dtype=bool)
    chosen[: len(which)] = which
    return compare(of(chosen), base)


def _doublings(count: int) -> list[int]:
    """1, 2, 4 ... below a number, and the number."""
    return [*(2**power for power in range(count.bit_length()) if 2**power < count), count]


def _chart(curves: dict[str, list[tuple[float, float]]], values: float) -> Any:
    """The effect held over images or pairs."""
    ends = [number for curve in curves.values() for number, _ in curve]
    low, high = min(ends), max(ends)
    ticks = tuple(float(2**power) for power in range(math.ceil(math.log2(high)) + 1) if low <= 2**power <= high)
    keys = {
        kind: Key(f"{kind}, by {'pairs a concept' if kind == 'causal' else 'images'}", COLORS[kind]) for kind in curves
    }
    line = Key("values, from the weights alone", COLORS["values"], 2)
    chart = Chart(
        f"HRV-mini: causal effect in the top {TOP} heads", [*keys.values(), line],
        Axis("images, or pairs of prompts", low, high, ticks, logarithmic=True),
        Axis("share", 0.0, 1.0, (0.0, 0.25, 0.5, 0.75, 1.0)),
    )  # fmt: skip
    chart.line([low, high], [values, values], line)
    for kind, curve in curves.items():
        chart.line([number for number, _ in curve], [value for _, value in curve], keys[kind], dots=True)
    return chart.picture
