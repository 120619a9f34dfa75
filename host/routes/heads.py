"""Sets of heads for the page: what a control acts on, and written sets changed by a click."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...hrv.controls.reading import read_concept
from ...hrv.heads.layout import HeadLayout
from ...hrv.heads.sets import parse_heads, spell_heads
from ...hrv.progress import WHOLE
from ...hrv.relevance.orders import head_order, heads_of_percent
from ...hrv.relevance.vectors import HRV
from .requests import Request, list_of, object_of, text_of, whole_number_of


def layout_of(request: Request) -> HeadLayout:
    """The layout of a request as :meth:`HeadLayout.to_json` writes it: rows, or an object with a family and rows."""
    has_family = isinstance(request.get("layout"), dict)
    return HeadLayout.from_json(json.dumps((object_of if has_family else list_of)(request, "layout")))


def written_heads(request: Request) -> dict[str, Any]:
    """The head positions of a written set, with the head ``toggle`` added or taken away if one is named.

    The text comes back as it was unless a head changed. Raises HRVError for a text that is no set of heads.
    """
    layout, text = layout_of(request), text_of(request, "text")
    positions = set(parse_heads(layout, text))
    if "toggle" in request:
        positions ^= {whole_number_of(request, "toggle")}
        text = spell_heads(layout, positions)
    return {"text": text, "positions": sorted(positions)}


def touched_heads(hrv: HRV, request: Request) -> list[int]:
    """The head positions that a control picks, by the node's class and its widgets; empty if it acts on all of them."""
    touched = _TOUCHED.get(text_of(request, "node"))
    return [] if touched is None else [int(position) for position in touched(hrv, request)]


def _weakened(hrv: HRV, request: Request) -> Sequence[int]:
    asked, count = whole_number_of(request, "heads"), hrv.layout.head_count
    number = heads_of_percent(asked, count) if text_of(request, "unit") == "percent" else asked
    order = head_order(hrv, text_of(request, "concept"), text_of(request, "order"), whole_number_of(request, "seed"))
    return order[: min(number, count)].tolist()


def _reading(hrv: HRV, request: Request) -> Sequence[int]:
    concept, heads, gates = text_of(request, "concept"), whole_number_of(request, "heads"), text_of(request, "gates")
    return np.flatnonzero(read_concept(hrv, concept, heads, 1.0, WHOLE, gates=gates).gates).tolist()


def _scaled(hrv: HRV, request: Request) -> Sequence[int]:
    return parse_heads(hrv.layout, text_of(request, "heads"))


_TOUCHED: dict[str, Callable[[HRV, Request], Sequence[int]]] = {
    "HRV_WeakenHeads": _weakened,
    "HRV_ReadByConcept": _reading,
    "HRV_ScaleHeads": _scaled,
}
