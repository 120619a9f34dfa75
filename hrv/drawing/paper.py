"""What all figures share: colors, text sizes, and text set in Pillow's own font."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]

PAPER = (255, 255, 255)
INK = (32, 33, 36)
SOFT_INK = (98, 102, 108)
RULE = (176, 179, 184)

# Blue, neutral, orange, dark red: lightness (OKLCH) falls evenly on both sides of the middle, and further on
# the upper one, where the heads are that matter. Nearly all color-blind eyes tell blue from orange.
RAMP: Pixels = np.array(
    [
        (50, 98, 169), (69, 124, 193), (95, 150, 210), (124, 174, 222), (159, 198, 231), (198, 221, 238),
        (241, 240, 236),
        (237, 205, 166), (233, 165, 104), (220, 121, 51), (191, 78, 24), (150, 45, 18), (104, 24, 15),
    ],
    dtype=np.uint8,
)  # fmt: skip

TITLE_SIZE, NAME_SIZE, LABEL_SIZE = 24, 18, 15
MARGIN = 28


class Heading:
    """A figure's title and the room it takes at the top."""

    def __init__(self, title: str | None, width: int) -> None:
        self.lines = wrap(title or "", TITLE_SIZE, width - 2 * MARGIN)
        self.height = MARGIN + (len(self.lines) * line_height(TITLE_SIZE) + 14 if self.lines else 0)

    def draw(self, draw: ImageDraw.ImageDraw) -> None:
        draw_text(draw, (MARGIN, MARGIN), self.lines, TITLE_SIZE, "la")


def ramp_colors(places: npt.NDArray[np.float64]) -> Pixels:
    """Colors [n, 3] of places [n] on the color scale: -1 is its lower end, 0 the neutral middle, 1 the upper end."""
    stops = np.linspace(-1, 1, len(RAMP))
    channels = [np.interp(places, stops, RAMP[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


@cache
def font(size: int) -> Any:
    """Pillow's own font; characters outside ASCII show as boxes."""
    return ImageFont.load_default(size)


def text_width(text: str, size: int) -> int:
    """Width of one line in pixels."""
    return math.ceil(font(size).getlength(text))


def line_height(size: int) -> int:
    """Pixels from one line to the next."""
    return round(size * 1.25)


def wrap(text: str, size: int, width: int, lines: int = 2) -> list[str]:
    """``text`` in at most ``lines`` lines of ``width`` pixels; what does not fit ends in an ellipsis."""
    wrapped: list[str] = []
    for word in text.split():
        joined = f"{wrapped[-1]} {word}" if wrapped else word
        if wrapped and text_width(joined, size) <= width:
            wrapped[-1] = joined
        else:
            wrapped.append(word)
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], " ".join(wrapped[lines - 1 :])]
    return [_shortened(line, size, width) for line in wrapped]


def _shortened(line: str, size: int, width: int) -> str:
    if text_width(line, size) <= width:
        return line
    fitting = bisect_right(range(len(line)), width, key=lambda length: text_width(line[:length] + "…", size))
    return line[: max(0, fitting - 1)].rstrip() + "…"


def draw_text(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    lines: Sequence[str],
    size: int,
    anchor: str,
    fill: tuple[int, int, int] = INK,
) -> None:
    """Draw lines; ``anchor`` is Pillow's (l, m, r across; a, m, d down) and holds for all lines together."""
    x, y = place
    step = line_height(size)
    rise = {"a": 0, "m": (len(lines) - 1) * step / 2, "d": (len(lines) - 1) * step}[anchor[1]]
    for number, line in enumerate(lines):
        draw.text((x, y - rise + number * step), line, font=font(size), fill=fill, anchor=anchor)
