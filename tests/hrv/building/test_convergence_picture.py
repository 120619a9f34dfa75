"""The curves of a build: where their points lie in the picture, and records that cannot be drawn."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hrv_pack.hrv.building.convergence import Point
from hrv_pack.hrv.building.convergence_picture import convergence_picture, curve_of
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.hrv.relevance.vectors import HRV

EXPECTED, LEAST, HALVES = (150, 45, 18), (233, 165, 104), (50, 98, 169)
POINTS = [Point(4, 0.2, 0.1, 0.4, 0.3), Point(40, 0.5, 0.45, 0.8, 0.7), Point(400, 0.8, 0.7, 1.0, 0.9)]


def hrv(**provenance: Any) -> HRV:
    layout = HeadLayout((AttentionLayer("input", 1, 0, 2),))
    return HRV(np.ones((1, 2), dtype=np.float32), ("Color",), layout, provenance=provenance)


def drawn(points: list[Point], color: tuple[int, ...], title: str | None = None) -> np.ndarray:
    """Rows and columns of the pixels of a curve, below its legend."""
    image = np.asarray(convergence_picture(points, title))
    places = np.argwhere((image == np.array(color, dtype=np.uint8)).all(axis=-1))
    return places[places[:, 0] > 150]


@pytest.mark.parametrize("color", [EXPECTED, LEAST, HALVES])
def test_a_curve_rises_from_left_to_right_over_the_whole_width(color: tuple[int, ...]) -> None:
    places = drawn(POINTS, color)
    left, right = places[places[:, 1].argmin()], places[places[:, 1].argmax()]
    assert right[1] - left[1] > 700 and right[0] < left[0] - 100


def test_equal_factors_take_equal_widths_and_equal_differences_equal_heights() -> None:
    halves, expected = drawn(POINTS, HALVES), drawn(POINTS, EXPECTED)
    column = (halves[:, 1].min() + halves[:, 1].max()) // 2
    heights = [places[np.abs(places[:, 1] - column) <= 2][:, 0].mean() for places in (halves, expected)]
    start, end = (places[:, 0].max() for places in (halves, halves[halves[:, 1] > column]))
    scale = (start - heights[0]) / (0.5 - 0.2)
    assert start > end
    assert heights[0] - heights[1] == pytest.approx(0.3 * scale, rel=0.05)


@pytest.mark.parametrize("points", [POINTS[:1], POINTS, [Point(n, 0.5, 0.5, 0.7, 0.7) for n in range(2, 3000, 7)]])
def test_pictures_have_one_size_whatever_they_show(points: list[Point]) -> None:
    image = convergence_picture(points, "A title")
    assert image.mode == "RGB" and image.width == 900 and 560 <= image.height <= 680


def test_the_record_of_a_build_comes_back() -> None:
    assert curve_of(hrv(convergence=[asdict(point) for point in POINTS])) == POINTS


BAD_POINTS = [{"images": 4}, {**asdict(POINTS[0]), "images": 0}, {**asdict(POINTS[0]), "halves": "x"}]


@pytest.mark.parametrize("record", [None, [], 3, "curve", [3], *([point] for point in BAD_POINTS)])
def test_records_of_others_may_hold_anything(record: Any) -> None:
    with pytest.raises(HRVError, match="no record of its convergence"):
        curve_of(hrv(convergence=record))
