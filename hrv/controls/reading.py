"""Readings: head positions that read another prompt, while all others read this one.

Of a head with gate g every image position takes (1 - g) of what it finds in this prompt and g of what the same query
finds in the other one: two attentions with a softmax each. Like controls, readings are plain data; which prompt the
other one is and what applies them to a running model is the host layer's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from uuid import uuid4

import numpy as np

from ..errors import HRVError, short
from ..heads.layout import HeadLayout
from ..progress import WHOLE, Window
from ..relevance.orders import MOST_RELEVANT_FIRST, head_order, heads_of_percent
from ..relevance.vectors import HRV, Factors

DEFAULT_PERCENT = 6.0
"""The share of all heads that reads the other prompt unless a number is given: 8 of SD 1.x's 128."""

SMALLEST_GATE = 0.05
"""Heads that would read less of the other prompt don't read it: they cost an attention and change next to nothing."""

# A prompt that takes more letters than this is cut in a label.
_PROMPT_LETTERS = 60


@dataclass(frozen=True, eq=False)
class Reading:
    """The head positions of one prompt that read another prompt.

    ``gates``     float32 [H], how much of the other prompt each head reads at strength 1; read-only.
    ``strength``  0 is no change, 1 the gates as they are, between and beyond is linear.
    ``window``    when it acts.
    ``layout``    the head positions that ``gates`` belongs to.
    ``label``     what it is, for people.
    ``uid``       tells it from every other reading and control, equal ones included; copies keep it.

    Raises HRVError for gates of another length than the layout's and gates or a strength that are not finite.
    """

    gates: Factors
    layout: HeadLayout
    strength: float = 1.0
    window: Window = WHOLE
    label: str = ""
    uid: str = field(default_factory=lambda: uuid4().hex)

    def __post_init__(self) -> None:
        gates = np.array(self.gates, dtype=np.float32)
        if gates.shape != (self.layout.head_count,):
            raise HRVError(f"A reading of {self.layout.describe()} needs one gate a head, not {gates.shape}.")
        if not (np.isfinite(gates).all() and np.isfinite(self.strength)):
            raise HRVError(f"The gates and the strength of a reading are finite numbers ({self.label}).")
        gates.setflags(write=False)
        object.__setattr__(self, "gates", gates)

    @cached_property
    def weights(self) -> Factors:
        """The gates [H] at this strength, float32: how much of the other prompt each head reads."""
        weights = (self.strength * self.gates.astype(np.float64)).astype(np.float32)
        weights.setflags(write=False)
        return weights

    @property
    def is_identity(self) -> bool:
        """Whether it can change nothing: a gate of exactly 0 in every head."""
        return not self.weights.any()


TOP_HEADS, BY_RELEVANCE = GATES = ("top heads", "by relevance")
"""How heads get their gates: 1 or 0, or in proportion to their relevance."""


def read_concept(
    hrv: HRV,
    concept: str,
    heads: int,
    strength: float,
    window: Window,
    other_prompt: str = "",
    gates: str = TOP_HEADS,
) -> Reading:
    """The ``heads`` most relevant head positions of a concept read the other prompt; 0 is :data:`DEFAULT_PERCENT`.

    By relevance, the others follow with less: their gate is their relevance over that of the last of these heads, and
    0 below :data:`SMALLEST_GATE`. With one head that is every head's relevance over the highest. ``other_prompt`` is
    its text, for the label. Raises HRVError for an unknown concept, one whose row says nothing, for fewer heads than
    none or more than all, and for gates other than :data:`GATES`.
    """
    layout = hrv.layout
    if gates not in GATES:
        raise HRVError(f"There are no gates {gates!r}: choose one of {', '.join(GATES)}.")
    if not 0 <= heads <= layout.head_count:
        raise HRVError(f"Of {layout.describe()} 0 to {layout.head_count} can read another prompt, not {heads}.")
    name = hrv.concepts[hrv.index(concept)]
    if not hrv.row(concept).any():
        raise HRVError(
            f"In this HRV no head has any relevance for {short(name)}, so none is the most relevant. Choose another "
            "concept, or build the HRV from more images."
        )
    chosen = heads or max(1, heads_of_percent(DEFAULT_PERCENT, layout.head_count))
    top = head_order(hrv, concept, MOST_RELEVANT_FIRST)[:chosen]
    found = np.zeros(layout.head_count, dtype=np.float32)
    count = f"{chosen} {'head' if chosen == 1 else 'heads'}"
    if gates == BY_RELEVANCE:
        row = hrv.row(concept).astype(np.float64)
        # Of a row with fewer relevant heads than these the last one that is relevant.
        last = row[top][row[top] > 0].min()
        found[:] = np.where(row >= SMALLEST_GATE * last, np.minimum(row / last, 1.0), 0.0)
        count = f"by relevance, {count} fully"
    else:
        found[top] = 1.0
    text = " ".join(other_prompt.split())
    text = f'"{text[:_PROMPT_LETTERS]}{"..." if len(text) > _PROMPT_LETTERS else ""}"' if text else "another prompt"
    return Reading(
        gates=found, layout=layout, strength=strength, window=window, label=f"read {name} ({count}) from {text}"
    )
