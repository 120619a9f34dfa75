"""Rankings of head positions as a list to read and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import HRVError
from .vectors import HRV

TOP_SHARE = 1 / 16
"""The share of the heads that are called a concept's top heads: 8 of SD 1.x's 128."""


def top_count(heads: int) -> int:
    """How many of so many heads are a concept's top heads; at least one."""
    return max(1, round(TOP_SHARE * heads))


def top_heads(hrv: HRV, concepts: Sequence[str] | None = None, *, count: int) -> dict[str, list[dict[str, Any]]]:
    """The ``count`` most relevant head positions of each concept (all of them by default), best first.

    Ordered as :meth:`HRV.ranking` orders them. Each is a JSON object: ``rank`` from 1, ``head_position`` from 0
    through all layers, the layer as the host addresses it (``block``, ``id``, ``transformer_index``), ``layer`` as
    people read it, ``head`` in that layer, and its ``relevance`` (1.0 is an average head). A count above the number of
    heads gives them all. Raises HRVError for an unknown concept and a count below 1.
    """
    if count < 1:
        raise HRVError(f"A ranking needs at least one head, not {count}.")
    places = [(layer, head) for layer in hrv.layout.layers for head in range(layer.heads)]
    ranked: dict[str, list[dict[str, Any]]] = {}
    for concept in hrv.concepts if concepts is None else concepts:
        index = hrv.index(concept)
        ranked[hrv.concepts[index]] = [
            {
                "rank": rank,
                "head_position": position,
                "layer": places[position][0].name,
                "block": places[position][0].block,
                "id": places[position][0].id,
                "transformer_index": places[position][0].transformer_index,
                "head": places[position][1],
                "relevance": float(hrv.values[index, position]),
            }
            for rank, position in enumerate(hrv.ranking(concept)[:count].tolist(), start=1)
        ]
    return ranked


def ranking_text(ranked: dict[str, list[dict[str, Any]]]) -> str:
    """What :func:`top_heads` gave as lines of text: a block for each concept, a line for each head."""
    blocks = []
    for concept, heads in ranked.items():
        lines = [f"{each['rank']:4}. {each['layer']} head {each['head']}: {each['relevance']:.2f}" for each in heads]
        blocks.append("\n".join([concept, *lines]))
    return "\n\n".join(blocks)
