"""The convergence of a build as a picture: agreement against the number of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from ..drawing.charts import Axis, Chart, Key, even_ticks
from ..errors import HRVError
from ..relevance.vectors import HRV
from .convergence import Point

_CURVES = (
    ("expected", Key("expected with an endless build, mean of concepts", (150, 45, 18), 3)),
    ("expected_least", Key("the same, least settled concept", (233, 165, 104), 2)),
    ("halves", Key("between the two halves, mean of concepts", (50, 98, 169), 2)),
)


def curve_of(hrv: HRV) -> list[Point]:
    """The convergence that a build left in its provenance. Raises HRVError if there is none that can be read."""
    entries = hrv.provenance.get("convergence")
    try:
        points = [_point(entry) for entry in entries] if isinstance(entries, tuple) else []
    except (KeyError, TypeError, ValueError, OverflowError):
        points = []
    if not points:
        raise HRVError(
            "This HRV has no record of its convergence: builds of two or more images have one, published, merged and "
            "averaged HRVs don't."
        )
    return points


def convergence_picture(points: Sequence[Point], title: str | None = None) -> Image.Image:
    """Draw the curves of a build as an RGB picture; the number of images grows by equal factors to the right."""
    keys = [replace(key, text=f"{key.text}: {getattr(points[-1], name):.3f}") for name, key in _CURVES]
    first, last = points[0].images, points[-1].images
    round_numbers = {digit * 10**power for power in range(9) for digit in (1, 2, 5)}
    ticks = sorted({first, last} | {number for number in round_numbers if first < number < last})
    across = Axis("images", first, last, tuple(ticks), logarithmic=True)
    chart = Chart(title, keys, across, Axis("", 0.0, 1.0, even_ticks(0.0, 1.0)))
    images = [point.images for point in points]
    for name, key in _CURVES:
        chart.line(images, [getattr(point, name) for point in points], key)
    return chart.picture


def _point(entry: Mapping[str, Any]) -> Point:
    """A point as its record says, checked: files of others may hold anything there."""
    numbers = {name: float(entry[name]) for name in ("halves", "halves_least", "expected", "expected_least")}
    images = int(entry["images"])
    if images < 1 or not np.isfinite(list(numbers.values())).all():
        raise ValueError("no such point")
    return Point(images, **numbers)
