"""Lists of the most relevant heads."""

from __future__ import annotations

import numpy as np
import pytest
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.hrv.relevance.ranking import ranking_text, top_heads
from hrv_pack.hrv.relevance.vectors import HRV

LAYOUT = HeadLayout((AttentionLayer("input", 4, 1, 2), AttentionLayer("middle", 0, 0, 3)))
VALUES = np.array([[0, 2.5, 0.25, 2.25, 0], [1, 1, 1, 1, 1]], dtype=np.float32)


def test_heads_are_named_as_people_and_the_host_name_them() -> None:
    ranked = top_heads(HRV(VALUES, ("Color", "Size"), LAYOUT), ["color"], count=2)
    assert ranked == {
        "Color": [
            {
                "rank": 1,
                "head_position": 1,
                "layer": "down4.1",
                "block": "input",
                "id": 4,
                "transformer_index": 1,
                "head": 1,
                "relevance": 2.5,
            },
            {
                "rank": 2,
                "head_position": 3,
                "layer": "mid.0",
                "block": "middle",
                "id": 0,
                "transformer_index": 0,
                "head": 1,
                "relevance": 2.25,
            },
        ]
    }
    assert ranking_text(ranked) == "Color\n   1. down4.1 head 1: 2.50\n   2. mid.0 head 1: 2.25"


def test_the_order_is_that_of_the_counts_where_there_are_any() -> None:
    counts = np.array([[3, 0, 1, 4, 10], [1, 4, 1, 4, 90]])
    built = HRV.from_counts(counts, ("Color", "Size"), LAYOUT)
    ranked = top_heads(built, count=99)
    for concept in built.concepts:
        assert [each["head_position"] for each in ranked[concept]] == built.ranking(concept).tolist()


def test_text_has_a_block_for_each_concept() -> None:
    text = ranking_text(top_heads(HRV(VALUES, ("Color", "Size"), LAYOUT), count=1))
    assert text == "Color\n   1. down4.1 head 1: 2.50\n\nSize\n   1. down4.1 head 0: 1.00"


def test_unknown_concepts_and_empty_rankings_are_refused() -> None:
    hrv = HRV(VALUES, ("Color", "Size"), LAYOUT)
    with pytest.raises(HRVError, match="Did you mean Color"):
        top_heads(hrv, ["Colour"], count=1)
    with pytest.raises(HRVError, match="at least one head, not 0"):
        top_heads(hrv, count=0)
