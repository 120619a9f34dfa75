"""Line charts drawn with Pillow: axes with ticks, a legend, lines, bands and dots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from .paper import INK, LABEL_SIZE, MARGIN, PAPER, RULE, SOFT_INK, Heading, draw_text, text_width

Color = tuple[int, int, int]
Series = Sequence[float]

_WIDTH, _HEIGHT = 900, 560
_LEFT, _BELOW, _LEGEND = 56, 52, 30
_TICK_GAP = 8


@dataclass(frozen=True)
class Axis:
    """The numbers from ``low`` to ``high``, evenly or by equal factors, with marks at some of them."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where a number stands, 0 to 1; the middle if the axis has no length."""
        if self.high == self.low:
            return 0.5
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Key:
    """An entry of the legend, and how its line looks."""

    text: str
    color: Color
    width: int = 3


def even_ticks(low: float, high: float, most: int = 7) -> tuple[float, ...]:
    """Round numbers from ``low`` to ``high``, at most ``most`` of them."""
    if not high > low:
        return (low,)
    rough = (high - low) / max(1, most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= rough)
    return tuple(round(number * step, 12) for number in range(math.ceil(low / step), math.floor(high / step) + 1))


class Chart:
    """A chart under its title and legend; what is drawn later lies above."""

    def __init__(self, title: str | None, keys: Sequence[Key], across: Axis, up: Axis) -> None:
        heading = Heading(title, _WIDTH)
        self._across, self._up = across, up
        legend_top = max(heading.height, MARGIN)
        self._left, self._right = MARGIN + _LEFT, _WIDTH - MARGIN
        self._top = legend_top + len(keys) * _LEGEND + 16
        height = max(_HEIGHT + heading.height, self._top + 300)
        self._bottom = height - MARGIN - _BELOW
        self.picture = Image.new("RGB", (_WIDTH, height), PAPER)
        self._draw = ImageDraw.Draw(self.picture)
        heading.draw(self._draw)
        self._draw_axes()
        for number, key in enumerate(keys):
            y = legend_top + number * _LEGEND + _LEGEND // 2
            self._draw.line([(self._left, y), (self._left + 34, y)], fill=key.color, width=key.width)
            draw_text(self._draw, (self._left + 44, y), [key.text], LABEL_SIZE, "lm", INK)

    def line(self, xs: Series, ys: Series, key: Key, *, dots: bool = False) -> None:
        """Join points; those with a y that is no number are left out."""
        points = [self._point(x, y) for x, y in zip(xs, ys, strict=True) if np.isfinite(y)]
        self._draw.line(points, fill=key.color, width=key.width, joint="curve")
        for point in points if dots else points[-1:]:
            self._draw.circle(point, key.width + 1, fill=key.color)

    def band(self, xs: Series, lows: Series, highs: Series, color: Color) -> None:
        """Fill what lies between two curves; points where either is no number are left out."""
        there = [
            (x, low, high)
            for x, low, high in zip(xs, lows, highs, strict=True)
            if np.isfinite(low) and np.isfinite(high)
        ]
        if len(there) > 1:
            upper = [self._point(x, high) for x, _, high in there]
            lower = [self._point(x, low) for x, low, _ in reversed(there)]
            # Where bands overlap, both stay visible.
            tint = Image.new("RGB", self.picture.size, (255, 255, 255))
            ImageDraw.Draw(tint).polygon([*upper, *lower], fill=color)
            self.picture.paste(ImageChops.multiply(self.picture, tint))

    def _point(self, x: float, y: float) -> tuple[float, float]:
        across = self._left + self._across.place(x) * (self._right - self._left)
        share = max(0.0, min(1.0, self._up.place(y)))
        return across, self._bottom - share * (self._bottom - self._top)

    def _draw_axes(self) -> None:
        """A line and a number for every tick upwards; across, those whose numbers do not touch the next."""
        for tick in self._up.ticks:
            _, y = self._point(self._across.low, tick)
            self._draw.line([(self._left, y), (self._right, y)], fill=RULE)
            draw_text(self._draw, (self._left - 8, round(y)), [f"{tick:g}"], LABEL_SIZE, "rm", SOFT_INK)
        taken = -math.inf
        last_left = self._right - text_width(f"{self._across.ticks[-1]:g}", LABEL_SIZE) / 2 - _TICK_GAP
        for tick in self._across.ticks:
            x, _ = self._point(tick, self._up.low)
            half = text_width(f"{tick:g}", LABEL_SIZE) / 2
            if x - half > taken and (x + half < last_left or tick == self._across.ticks[-1]):
                self._draw.line([(x, self._bottom), (x, self._bottom + 5)], fill=RULE)
                draw_text(self._draw, (round(x), self._bottom + 8), [f"{tick:g}"], LABEL_SIZE, "ma", SOFT_INK)
                taken = x + half + _TICK_GAP
        middle = (self._left + self._right) // 2
        draw_text(self._draw, (middle, self._bottom + 30), [self._across.label], LABEL_SIZE, "ma")
        draw_text(self._draw, (self._left, self._top - 6), [self._up.label], LABEL_SIZE, "rd", SOFT_INK)
