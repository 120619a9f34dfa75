"""The convergence of a build as a picture: agreement against the number of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .convergence import Point
from .drawing import INK, LABEL_SIZE, MARGIN, PAPER, RULE, SOFT_INK, Heading, draw_text, text_width
from .errors import HRVError
from .vectors import HRV

_WIDTH, _HEIGHT = 900, 560
_LEFT, _BELOW, _LEGEND = 56, 52, 30
_CURVES = (
    ("expected", "expected with an endless build, mean of concepts", (150, 45, 18), 3),
    ("expected_least", "the same, least settled concept", (233, 165, 104), 2),
    ("halves", "between the two halves, mean of concepts", (50, 98, 169), 2),
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
            "This HRV has no record of its convergence: builds of two images or more have one, published, merged and "
            "averaged HRVs do not."
        )
    return points


def convergence_picture(points: Sequence[Point], title: str | None = None) -> Image.Image:
    """Draw the curves of a build as an RGB picture; the number of images grows by equal factors to the right."""
    heading = Heading(title, _WIDTH)
    legend_top = max(heading.height, MARGIN)
    left, right = MARGIN + _LEFT, _WIDTH - MARGIN
    top, bottom = legend_top + len(_CURVES) * _LEGEND + 16, _HEIGHT + heading.height - MARGIN - _BELOW
    picture = Image.new("RGB", (_WIDTH, _HEIGHT + heading.height), PAPER)
    draw = ImageDraw.Draw(picture)
    heading.draw(draw)
    first, last = points[0].images, points[-1].images

    def across(images: float) -> float:
        share = np.log(images / first) / np.log(last / first) if last > first else 0.5
        return float(left + share * (right - left))

    def up(agreement: float) -> float:
        return bottom - max(0.0, min(1.0, agreement)) * (bottom - top)

    for tenth in range(0, 11, 2):
        y = up(tenth / 10)
        draw.line([(left, y), (right, y)], fill=RULE)
        draw_text(draw, (left - 8, round(y)), [f"{tenth / 10:g}"], LABEL_SIZE, "rm", SOFT_INK)
    beyond = -1.0
    for images in sorted({first, last} | {digit * 10**power for power in range(9) for digit in (1, 2, 5)}):
        label, x = str(images), across(images) if first <= images <= last else -1.0
        room = text_width(str(last), LABEL_SIZE) + 8
        if x > beyond and (x < right - room or images == last):
            draw.line([(x, bottom), (x, bottom + 5)], fill=RULE)
            draw_text(draw, (round(x), bottom + 8), [label], LABEL_SIZE, "ma", SOFT_INK)
            beyond = x + room
    draw_text(draw, ((left + right) // 2, bottom + 30), ["images"], LABEL_SIZE, "ma")
    for number, (name, text, color, width) in enumerate(_CURVES):
        y = legend_top + number * _LEGEND + _LEGEND // 2
        draw.line([(left, y), (left + 34, y)], fill=color, width=width)
        draw_text(draw, (left + 44, y), [f"{text}: {getattr(points[-1], name):.3f}"], LABEL_SIZE, "lm", INK)
        places = [(across(point.images), up(getattr(point, name))) for point in points]
        draw.line(places, fill=color, width=width, joint="curve")
        draw.circle(places[-1], width + 1, fill=color)
    return picture


def _point(entry: Mapping[str, Any]) -> Point:
    """A point as its record says, checked: files of others may hold anything there."""
    numbers = {name: float(entry[name]) for name in ("halves", "halves_least", "expected", "expected_least")}
    images = int(entry["images"])
    if images < 1 or not np.isfinite(list(numbers.values())).all():
        raise ValueError("no such point")
    return Point(images, **numbers)
