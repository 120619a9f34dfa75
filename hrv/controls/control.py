"""Controls: how much of some tokens each head position gets to see (docs/method: a rescaling of V rows).

Every control multiplies the columns of a cross-attention map that belong to its tokens by one factor per head
position, without renormalising (arXiv 2412.02237, sections 4 and 5). Controls are plain data; what applies them to a
running model is the host layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from uuid import uuid4

import numpy as np

from ..errors import HRVError, quoted
from ..heads.layout import HeadLayout
from ..heads.sets import spell_heads
from ..progress import WHOLE, Window
from ..relevance.factors import AUTOMATIC, relevance_factors
from ..relevance.orders import RANDOM, WEAKEN_FACTOR, head_order
from ..relevance.vectors import HRV, Factors

DESIRED_WEIGHT = 2.0
UNDESIRED_WEIGHT = -1.0
"""The published weights of concept adjusting."""


# A set of heads that takes more letters than this is counted in a label instead of spelled.
_SPELLED_LETTERS = 40


@dataclass(frozen=True, eq=False)
class Control:
    """One rescaling of some tokens of one prompt.

    ``factors``    float32 [H], the factor of every head position at strength 1; read-only.
    ``positions``  places along the token axis of the conditioning that carries the control.
    ``strength``   0 is no change, 1 the factors as they are, between and beyond is linear.
    ``window``     when it acts.
    ``layout``     the head positions that ``factors`` belongs to.
    ``label``      what it is, for people.
    ``uid``        tells it from every other control, equal ones included; copies keep it.

    Raises HRVError for factors of another length than the layout's and factors or a strength that are not finite.
    """

    factors: Factors
    positions: tuple[int, ...]
    layout: HeadLayout
    strength: float = 1.0
    window: Window = WHOLE
    label: str = ""
    uid: str = field(default_factory=lambda: uuid4().hex)

    def __post_init__(self) -> None:
        factors = np.array(self.factors, dtype=np.float32)
        if factors.shape != (self.layout.head_count,):
            raise HRVError(f"A control of {self.layout.describe()} needs one factor per head, not {factors.shape}.")
        if not (np.isfinite(factors).all() and np.isfinite(self.strength)):
            raise HRVError(f"The factors and the strength of a control must be finite numbers ({self.label}).")
        factors.setflags(write=False)
        object.__setattr__(self, "factors", factors)
        object.__setattr__(self, "positions", tuple(sorted(set(self.positions))))

    @cached_property
    def weights(self) -> Factors:
        """The factors [H] at this strength, float32: 1 + strength x (factor - 1)."""
        weights = (1.0 + self.strength * (self.factors.astype(np.float64) - 1.0)).astype(np.float32)
        weights.setflags(write=False)
        return weights

    @property
    def is_identity(self) -> bool:
        """Whether it can change nothing: no tokens, or a factor of exactly 1 in every head."""
        return not self.positions or bool((self.weights == 1.0).all())


def strengthen(
    hrv: HRV,
    concept: str,
    positions: Iterable[int],
    strength: float,
    window: Window,
    clamp: float | None,
    form: str = AUTOMATIC,
) -> Control:
    """Concept strengthening: factor HRV_concept[h] (arXiv 2412.02237, section 5).

    ``form`` says how factors follow from the HRV; errors as :func:`~..relevance.factors.relevance_factors`.
    """
    return Control(
        factors=relevance_factors(hrv, concept, clamp, form),
        positions=tuple(positions),
        layout=hrv.layout,
        strength=strength,
        window=window,
        label=f"strengthen {concept}",
    )


def adjust(
    hrv: HRV,
    desired: str,
    undesired: str,
    positions: Iterable[int],
    strength: float,
    window: Window,
    clamp: float | None,
    desired_weight: float = DESIRED_WEIGHT,
    undesired_weight: float = UNDESIRED_WEIGHT,
    form: str = AUTOMATIC,
) -> Control:
    """Concept adjusting: factor 2 HRV_desired[h] - 1 HRV_undesired[h] (arXiv 2412.02237, section 5).

    ``form`` says how factors follow from the HRV; errors as :func:`~..relevance.factors.relevance_factors`.
    """
    if hrv.index(desired) == hrv.index(undesired):
        raise HRVError(
            f"The desired and the undesired concept are both {quoted(desired)}: choose two concepts, or use Apply "
            "Concept Strengthen."
        )
    to, away = (relevance_factors(hrv, concept, clamp, form) for concept in (desired, undesired))
    factors = desired_weight * to + undesired_weight * away
    return Control(
        factors=factors,
        positions=tuple(positions),
        layout=hrv.layout,
        strength=strength,
        window=window,
        label=f"{desired} rather than {undesired}",
    )


def weaken(
    hrv: HRV,
    concept: str,
    order: str,
    heads: int,
    positions: Iterable[int],
    strength: float,
    window: Window,
    factor: float = WEAKEN_FACTOR,
    seed: int = 0,
) -> Control:
    """Ordered weakening: ``factor`` for the first ``heads`` of an order, 1 for the others.

    Source: arXiv 2412.02237, section 4. Raises HRVError as :func:`head_order` does, and for fewer heads
    than none or more than all.
    """
    layout = hrv.layout
    if not 0 <= heads <= layout.head_count:
        raise HRVError(
            f"This model has {layout.describe()}: 0 to {layout.head_count} heads can be weakened, not {heads}."
        )
    factors = np.ones(layout.head_count, dtype=np.float32)
    factors[head_order(hrv, concept, order, seed)[:heads]] = factor
    chosen = f"in random order (seed {seed})" if order == RANDOM else f"of {hrv.concepts[hrv.index(concept)]}, {order}"
    return Control(
        factors=factors,
        positions=tuple(positions),
        layout=layout,
        strength=strength,
        window=window,
        label=f"weaken {heads} {'head' if heads == 1 else 'heads'} {chosen}",
    )


def scale_heads(
    layout: HeadLayout,
    head_positions: Iterable[int],
    factor: float,
    positions: Iterable[int],
    strength: float,
    window: Window,
) -> Control:
    """Head positions of one's own choice: ``factor`` for them, 1 for the others.

    Raises HRVError for a head position that the layout does not have.
    """
    chosen = sorted(set(head_positions))
    spelled = spell_heads(layout, chosen) or "no heads"
    factors = np.ones(layout.head_count, dtype=np.float32)
    factors[chosen] = factor
    return Control(
        factors=factors,
        positions=tuple(positions),
        layout=layout,
        strength=strength,
        window=window,
        label=f"scale {spelled if len(spelled) <= _SPELLED_LETTERS else f'{len(chosen)} heads'} by {factor:g}",
    )
