"""Prompt-to-prompt editing with head relevance: which attention a target prompt takes from where (arXiv 2412.02237).

A target's cross-attention is the sum of two ordinary attentions: the source's queries and keys over re-indexed values,
and the target's own over its values, each weighted by column. Plain data; what applies it to a running model is the
host layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..errors import HRVError
from ..heads.layout import HeadLayout
from ..progress import Window
from ..relevance.factors import relevance_factors
from ..relevance.vectors import HRV, Factors
from .alignment import Alignment

CROSS_END = 0.8
"""Published end of cross-attention injection, tau_c."""

SELF_END_PLAIN, SELF_END_HRV = 0.4, 0.9
"""Published ends of self-attention injection, tau_s: of plain prompt-to-prompt and with HRVs."""

SELF_SIZE = 1 / 16
"""Largest self-attention that is injected, as a share of the latent's positions; published: 16x16 of 64x64."""

BLEND_THRESHOLD, BLEND_START = 0.3, 0.2
"""Published settings of local editing (arXiv 2208.01626): share of the highest attention, and when it begins."""


@dataclass(frozen=True)
class EditWindows:
    """When the source's attention is used, and for which self-attention layers.

    ``cross`` is that of cross-attention, ``itself`` that of self-attention. ``size`` is the largest share of the
    latent's positions that a self-attention layer may have. Raises HRVError for a size outside 0 to 1.
    """

    cross: Window
    itself: Window
    size: float = SELF_SIZE

    def __post_init__(self) -> None:
        if not 0.0 <= self.size <= 1.0:
            raise HRVError(
                f"The largest self-attention must be a share of the latent's positions from 0 to 1, not {self.size}: "
                "0.0625 is 16x16 of 64x64."
            )


def is_small(size: float, positions: int, latent_positions: int) -> bool:
    """Whether a layer of so many positions is at most the share ``size`` of the latent's.

    Sides are rounded up where they are halved: 17x17 of 65x65 is a sixteenth.
    """
    reduction: int = round((latent_positions / positions) ** 0.5)
    return reduction**2 * size >= 1.0


@dataclass(frozen=True, eq=False)
class WordEdit:
    """What a target prompt's words shall do beside what the alignment says.

    ``positions``  places along the token axis of the target's conditioning.
    ``factors``    float32 [H]: the words keep their own map, scaled by these (P2P-HRV); None leaves that to the
                   alignment.
    ``weight``     multiplies the attention that these words get (re-weighting).
    ``window``     when; None is the cross-attention window of the edit.
    ``label``      what it is, for people.

    Raises HRVError for a weight that is not finite.
    """

    positions: tuple[int, ...]
    factors: Factors | None = None
    layout: HeadLayout | None = None
    weight: float = 1.0
    window: Window | None = None
    label: str = ""

    def __post_init__(self) -> None:
        if not np.isfinite(self.weight):
            raise HRVError(f"The weight of edited words must be a finite number, not {self.weight}.")


def with_concept(
    hrv: HRV,
    concept: str,
    positions: Iterable[int],
    strength: float = 1.0,
    clamp: float | None = None,
    weight: float = 1.0,
    window: Window | None = None,
) -> WordEdit:
    """Words that keep their own map, scaled by 1 + strength x (f[h] - 1), f being the factors of the concept's heads.

    These are the HRV's elements, or what :func:`~..relevance.factors.relevance_factors` makes of causal relevances.
    Raises HRVError for an unknown concept, a clamp that is not positive and a strength that is not finite.
    """
    if not np.isfinite(strength):
        raise HRVError(f"The strength of an edit must be a finite number, not {strength}.")
    row = relevance_factors(hrv, concept, clamp).astype(np.float64)
    return WordEdit(
        positions=tuple(positions),
        factors=(1.0 + strength * (row - 1.0)).astype(np.float32),
        layout=hrv.layout,
        weight=weight,
        window=window,
        label=hrv.concepts[hrv.index(concept)],
    )


@dataclass(frozen=True)
class Columns:
    """Weights of one moment: ``mapped`` [source T, target T] and ``own`` [target T, H], or 0 heads if none is kept.

    The target's attention is softmax(Q_src K_src) (mapped V_tgt) + softmax(Q_tgt K_tgt) (own V_tgt), all with the
    values' rows weighted; ``own`` has one column if all heads share it.
    """

    mapped: npt.NDArray[np.float32]
    own: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Edit:
    """One target prompt: how its words lie to the source's, what they do, and when.

    Where word edits overlap, their weights multiply, and of their factors and windows the last ones count.
    """

    alignment: Alignment
    windows: EditWindows
    words: tuple[WordEdit, ...] = ()

    @cached_property
    def moments(self) -> tuple[Window, ...]:
        """All windows that the cross-attention depends on."""
        return tuple(dict.fromkeys([self.windows.cross, *(word.window for word in self.words if word.window)]))

    def require_layout(self, layout: HeadLayout) -> None:
        """Raise HRVError for a word whose factors belong to other head positions than these."""
        for word in self.words:
            if word.layout is not None and word.layout != layout:
                raise HRVError(
                    f"The edit by {word.label} was made for {word.layout.describe()}, but this model has "
                    f"{layout.describe()}. Load an HRV for this model, or build one with it."
                )

    def columns(self, active: frozenset[Window], source_length: int, target_length: int) -> Columns | None:
        """The weights while the windows ``active`` are open, for conditionings of these lengths; None for no change.

        A column in its window gets the source's attention if the alignment has a counterpart, else its own; a word
        with factors its own, scaled. Outside its window every column gets its own.
        """
        mapper = self.alignment.mapper(source_length, target_length)
        heads = max([1, *(len(word.factors) for word in self.words if word.factors is not None)])
        taken = mapper.sum(0) > 0
        weight = np.ones(target_length, dtype=np.float32)
        factors = np.ones((target_length, heads), dtype=np.float32)
        is_open = np.full(target_length, self.windows.cross in active, dtype=bool)
        for word in self.words:
            places = list(word.positions)
            weight[places] *= word.weight
            if word.window is not None:
                is_open[places] = word.window in active
            if word.factors is not None:
                taken[places] = False
                factors[places] = word.factors
        if not is_open.any():
            return None
        mapped = mapper * np.where(is_open & taken, weight, np.float32(0.0))
        own = np.where(is_open[:, None], np.where(taken[:, None], 0.0, weight[:, None] * factors), 1.0)
        return Columns(mapped, own.astype(np.float32))

    def describe(self) -> str:
        """A line for every pair of words, then one for each word edit."""
        places = {place: word.text for word in self.alignment.target.words for place in word.positions}
        lines = [self.alignment.describe()]
        for word in self.words:
            texts = " ".join(dict.fromkeys(places[place] for place in word.positions))
            said = [word.label] if word.label else []
            if word.weight != 1.0:
                said.append(f"weight {word.weight:g}")
            if word.window is not None:
                said.append(f"progress {word.window.start:g} to {word.window.end:g}")
            lines.append(f"{texts}: {', '.join(said) or 'as aligned'}")
        return "\n".join(lines)
