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

from ..errors import HRVError
from ..heads.layout import HeadLayout
from ..progress import WHOLE, Window
from ..relevance.orders import MOST_RELEVANT_FIRST, head_order, heads_of_percent
from ..relevance.vectors import HRV, Factors

DEFAULT_PERCENT = 6.0
"""The share of all heads that reads the other prompt unless a number is given: 8 of SD 1.x's 128."""

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


def read_top_heads(
    hrv: HRV, concept: str, heads: int, strength: float, window: Window, other_prompt: str = ""
) -> Reading:
    """The ``heads`` most relevant head positions of a concept read the other prompt; 0 is :data:`DEFAULT_PERCENT`.

    ``other_prompt`` is its text, for the label. Raises HRVError for an unknown concept, one whose row says nothing,
    and for fewer heads than none or more than all.
    """
    layout = hrv.layout
    if not 0 <= heads <= layout.head_count:
        raise HRVError(f"Of {layout.describe()} 0 to {layout.head_count} can read another prompt, not {heads}.")
    name = hrv.concepts[hrv.index(concept)]
    if not hrv.row(concept).any():
        raise HRVError(
            f"In this HRV no head has any relevance for {name}, so none is the most relevant. Choose another concept, "
            "or build the HRV from more images."
        )
    chosen = heads or max(1, heads_of_percent(DEFAULT_PERCENT, layout.head_count))
    gates = np.zeros(layout.head_count, dtype=np.float32)
    gates[head_order(hrv, concept, MOST_RELEVANT_FIRST)[:chosen]] = 1.0
    text = " ".join(other_prompt.split())
    text = f'"{text[:_PROMPT_LETTERS]}{"..." if len(text) > _PROMPT_LETTERS else ""}"' if text else "another prompt"
    return Reading(
        gates=gates,
        layout=layout,
        strength=strength,
        window=window,
        label=f"read {name} ({chosen} {'head' if chosen == 1 else 'heads'}) from {text}",
    )
