"""HRV objects: normalisation, ranking, immutability and what they refuse."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.hrv.relevance.evidence import Votes
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.hrv.storage.digest import content_digest

LAYOUT = HeadLayout((AttentionLayer("input", 1, 0, 2), AttentionLayer("middle", 0, 0, 3)))
CONCEPTS = ("Color", "Image Style", "Size")
COUNTS = np.array([[3, 0, 1, 4, 10], [1, 4, 1, 4, 0], [0, 4, 2, 0, 30]], dtype=np.int64)


def hrv(**changes: Any) -> HRV:
    fields: dict[str, Any] = {
        "values": np.arange(15, dtype=np.float32).reshape(3, 5),
        "concepts": CONCEPTS,
        "layout": LAYOUT,
        "evidence": Votes(COUNTS),
        "provenance": {"model": "mini", "prompts": ["a", "b"], "sampler": {"steps": 4}},
    }
    if "counts" in changes:
        changes["evidence"] = Votes(changes.pop("counts"))
    return HRV(**{**fields, **changes})


def test_from_counts_normalises_heads_then_concepts() -> None:
    built = HRV.from_counts(COUNTS, CONCEPTS, LAYOUT, {"seed": 1})
    shares = np.array([[3 / 4, 0, 1 / 4, 1 / 2, 1 / 4], [1 / 4, 1 / 2, 1 / 4, 1 / 2, 0], [0, 1 / 2, 1 / 2, 0, 3 / 4]])
    expected = shares / shares.sum(axis=1, keepdims=True) * 5
    np.testing.assert_allclose(built.values, expected, rtol=1e-6)
    np.testing.assert_allclose(built.values.sum(axis=1), 5, rtol=1e-6)
    assert isinstance(built.evidence, Votes) and np.array_equal(built.evidence.counts, COUNTS)
    assert built.provenance == {"seed": 1}


def test_a_concept_never_counted_has_a_row_of_zeros() -> None:
    counts = COUNTS.copy()
    counts[1] = 0
    built = HRV.from_counts(counts, CONCEPTS, LAYOUT)
    assert not built.row("Image Style").any()
    np.testing.assert_allclose(built.row("Color").sum(), 5, rtol=1e-6)


def test_a_head_never_recorded_is_an_error_that_names_it() -> None:
    counts = COUNTS.copy()
    counts[:, 3] = 0
    with pytest.raises(HRVError, match=r"1 of 5 heads were never recorded \(first: mid, layer: 0, head: 1\)"):
        HRV.from_counts(counts, CONCEPTS, LAYOUT)


def test_ranking_is_by_head_shares_and_keeps_ties_in_order() -> None:
    built = HRV.from_counts(COUNTS, CONCEPTS, LAYOUT)
    # Shares of Color: 3/4, 0, 1/4, 1/2, 1/4. By raw counts head 4 would come first.
    assert built.ranking("color").tolist() == [0, 3, 2, 4, 1]
    assert built.ranking("Image Style").tolist() == [1, 3, 0, 2, 4]
    assert built.ranking("Color").dtype == np.int64


def test_ranking_without_counts_is_by_values() -> None:
    values = np.array([[1, 2, 2, 0, 9]] * 3, dtype=np.float32)
    assert hrv(values=values, evidence=None).ranking("Size").tolist() == [4, 1, 2, 0, 3]


def test_rows_are_found_whatever_the_case_and_spacing() -> None:
    assert hrv().index("  image   STYLE") == 1
    assert hrv().row("  image   STYLE").tolist() == [5, 6, 7, 8, 9]


def test_unknown_concept_lists_the_closest_first() -> None:
    with pytest.raises(HRVError, match=r"'style' in this HRV\. Did you mean Image Style\? It has: Image Style, Color"):
        hrv().row("style")
    with pytest.raises(HRVError, match=r"'xyz' in this HRV\. It has: Color, Image Style, Size\."):
        hrv().ranking("xyz")


def test_arrays_are_copies_that_cannot_be_written() -> None:
    values = np.ones((3, 5), dtype=np.float64, order="F")
    counts = COUNTS.copy()
    made = hrv(values=values, evidence=Votes(counts))
    values[:] = 7
    counts[:] = 7
    assert made.values.dtype == np.float32 and made.values.flags.c_contiguous
    assert (made.values == 1).all()
    assert isinstance(made.evidence, Votes) and np.array_equal(made.evidence.counts, COUNTS)
    for array in (made.values, made.evidence.counts, made.row("Color")):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.setflags(write=True)


def test_provenance_is_a_copy_that_cannot_be_changed() -> None:
    source: dict[str, Any] = {"prompts": ["a"], "sampler": {"steps": 4}}
    made = hrv(provenance=source)
    source["prompts"].append("b")
    source["sampler"]["steps"] = 5
    assert made.provenance["prompts"] == ("a",)
    assert made.provenance_json() == '{"prompts":["a"],"sampler":{"steps":4}}'
    with pytest.raises(TypeError):
        made.provenance["sampler"]["steps"] = 6
    assert hrv(provenance=made.provenance).same_as(made)


def test_deep_copy_is_the_same_object() -> None:
    made = hrv()
    assert copy.deepcopy({"hrv": made})["hrv"] is made


NAN, INFINITE, NEGATIVE = (np.full((3, 5), value) for value in (np.nan, np.inf, -1e-3))
DEEP: dict[str, Any] = {}
for _ in range(50):
    DEEP = {"deeper": DEEP}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": NAN}, "NaN or infinity"),
        ({"values": INFINITE}, "NaN or infinity"),
        ({"values": np.full((3, 5), 1e39)}, "NaN or infinity"),
        ({"values": NEGATIVE}, "not be negative"),
        ({"values": np.ones((5, 3))}, "3 concepts x 5 heads, but they are 5 x 3"),
        ({"values": np.ones(15)}, "but they are 15"),
        ({"values": np.ones((3, 5), dtype=bool)}, "numbers, not bool"),
        ({"values": np.full((3, 5), "1")}, "numbers, not"),
        ({"concepts": (), "values": np.ones((0, 5)), "evidence": None}, "at least one concept"),
        ({"concepts": ("Color", "Size", "cOLOR ")}, "cOLOR is there twice"),
        ({"concepts": ("Color", "Size", " ")}, "empty or has unprintable"),
        ({"concepts": ("Color", "Size", "a\x07b")}, "unprintable"),
        ({"concepts": ("Color", "Size", "\ud800")}, "unprintable"),
        ({"concepts": ("Color", "Size", 3)}, "list of names"),
        ({"concepts": "abc"}, "list of names"),
        ({"counts": COUNTS - 1}, "counts of an HRV must not be negative"),
        ({"counts": COUNTS.astype(np.float32)}, "whole numbers, not float32"),
        ({"counts": COUNTS[:, :4]}, "counts of this HRV should be 3 concepts x 5 heads"),
        ({"counts": np.zeros_like(COUNTS)}, "5 of 5 heads were never recorded"),
        ({"provenance": [1]}, "JSON object"),
        ({"provenance": {"seed": np.int64(1)}}, "cannot be written as JSON"),
        ({"provenance": {"cfg": float("nan")}}, "cannot be written as JSON"),
        ({"provenance": {1: 2}}, "a key is not text"),
        ({"provenance": DEEP}, "more than 32 levels"),
    ],
)
def test_what_is_no_hrv_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HRVError, match=message):
        hrv(**changes)


def test_rows_of_processed_hrvs_may_have_any_norm() -> None:
    clamped = hrv(values=np.full((3, 5), 0.25))
    assert clamped.row("Color").sum() == 1.25


def test_same_as_and_digest_see_every_part() -> None:
    other_layout = HeadLayout((AttentionLayer("input", 1, 0, 3), AttentionLayer("middle", 0, 0, 2)))
    values = np.arange(15, dtype=np.float32).reshape(3, 5)
    values[2, 4] = np.nextafter(values[2, 4], np.float32(99))
    counts = COUNTS.copy()
    counts[0, 0] += 1
    others = [
        hrv(values=values),
        hrv(concepts=("Color", "Image Style", "size")),
        hrv(layout=other_layout),
        hrv(evidence=Votes(counts)),
        hrv(evidence=None),
        hrv(provenance={}),
    ]
    assert hrv().same_as(hrv())
    assert not any(hrv().same_as(other) for other in others)
    assert len({each.digest for each in [hrv(), *others]}) == 7


def test_content_digest_depends_on_neither_order_nor_byte_order_nor_memory_layout() -> None:
    array = np.arange(6, dtype="<i8").reshape(2, 3)
    one = content_digest({"a": "1", "b": "2"}, {"x": array, "y": array})
    big_endian = array.astype(">i8")
    assert one == content_digest({"b": "2", "a": "1"}, {"y": np.asfortranarray(array), "x": big_endian})
    assert one != content_digest({"a": "1", "b": "2"}, {"x": array, "y": array.reshape(3, 2)})
