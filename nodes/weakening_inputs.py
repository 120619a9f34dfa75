"""What the nodes for ordered weakening ask for beside the examination, and the tables that they give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io

from ..hrv.errors import HRVError
from ..hrv.relevance.orders import WEAKEN_FACTOR
from ..hrv.weakening.plan import Plan, parse_head_counts
from .input_groups import InputGroup
from .inputs import factor_input, place_input, seed_input

BY_FACTOR = "by factor"
SET_TO_ZERO = "set heads to zero (0)"
AS_PUBLISHED = "the paper's -2"

_FACTORS = {SET_TO_ZERO: 0.0, AS_PUBLISHED: WEAKEN_FACTOR}
WEAKENINGS = tuple(_FACTORS)
"""How heads are weakened, by name."""

_WHY = (
    "On HRV-mini 0 takes the concept away and mostly leaves the others; -2 also breaks pictures in heads that the "
    "concept doesn't need."
)


def one_concept_input() -> Any:
    return io.String.Input("concept", default="Color", tooltip="One concept of the HRV and the experiment.")


def concepts_input(without: str) -> Any:
    """A field for concepts; ``without`` says which are meant by an empty one."""
    return io.String.Input("concepts", default="", tooltip=f"Concepts, separated by commas; empty for {without}.")


def only(concept: str) -> list[str]:
    """The one concept of a field. Raises HRVError if it is empty."""
    if not concept.strip():
        raise HRVError("There is no concept: write one that the HRV and the experiment share.")
    return [concept]


def weakening_input(options: Sequence[str], default: str) -> Any:
    """How heads are weakened; ``default`` is what graphs without this input mean."""
    return io.Combo.Input(
        "weakening",
        options=list(options),
        default=default,
        optional=True,
        tooltip=f"What weakened heads do with the words: lose them, or see them reversed, as published. {_WHY}",
    )


def factor_of(weakening: str, factor: float = WEAKEN_FACTOR) -> float:
    """The factor of a way of weakening; ``factor`` is that of :data:`BY_FACTOR`. Raises HRVError for 1."""
    found = _FACTORS.get(weakening, factor)
    if found == 1.0:
        raise HRVError("factor is 1, which weakens no head: 0 removes the attention, and -2 is published.")
    return found


def head_counts_input(default: str, tooltip: str) -> Any:
    return io.String.Input("head_counts", default=default, tooltip=tooltip)


@dataclass(frozen=True)
class WeakenedHeads(InputGroup):
    """How many heads are weakened, how much, and in which random orders beside those of the HRV."""

    head_counts: str
    random_orders: int
    factor: float
    order_seed: int
    weakening: str = BY_FACTOR

    @staticmethod
    def inputs(*others: Any) -> list[Any]:
        """With the node's own inputs among them."""
        return [
            head_counts_input(
                "", "How many heads to weaken, such as 0, 11, 25%; empty for the published numbers of this layout."
            ),
            io.Int.Input(
                "random_orders",
                default=3,
                min=0,
                max=100,
                tooltip="How many random orders, each forwards and backwards: they show what chance gives. Without "
                "them no verdict is certain.",
            ),
            factor_input(
                "factor",
                0.0,
                "What the attention to all words is multiplied by in weakened heads: 0 removes it, published is -2. "
                f"{_WHY}",
            ),
            *others,
            seed_input(
                "order_seed",
                "Of the first random order; Weaken Heads by Order makes the same order of the same seed.",
                advanced=True,
            ),
            place_input(),
            weakening_input((BY_FACTOR, *WEAKENINGS), BY_FACTOR),
        ]

    def plan(self, head_count: int, uniform: bool = False) -> Plan:
        """The plan for a model of so many heads. Raises HRVError for a factor that changes nothing."""
        counts = parse_head_counts(self.head_counts, head_count)
        return Plan(counts, self.random_orders, (factor_of(self.weakening, self.factor),), uniform, self.order_seed)


def prefix_input(default: str) -> Any:
    return io.String.Input(
        "filename_prefix", default=default, tooltip="Where the tables go in the output folder, as in Save Image."
    )


def table_outputs() -> list[Any]:
    return [
        io.String.Output("csv", display_name="CSV", tooltip="Every image's score; also saved as a file."),
        io.String.Output("json", display_name="JSON", tooltip="Findings, curves and provenance; also saved as a file."),
    ]
