"""Figures drawn with Pillow alone: heat maps of HRVs and labelled picture grids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ..drawing.paper import (
    INK,
    LABEL_SIZE,
    MARGIN,
    NAME_SIZE,
    PAPER,
    RULE,
    SOFT_INK,
    Heading,
    Pixels,
    draw_text,
    line_height,
    ramp_colors,
    text_width,
    wrap,
)
from ..errors import HRVError
from ..heads.layout import HeadLayout
from .vectors import HRV, Values

# A heat map grows its cells up to the largest size with which the figure stays within these many pixels.
CELL_SIZES = range(24, 4, -1)
MAP_WIDTH, MAP_HEIGHT, MAP_ASPECT = 1800, 1700, 1.6
PANEL_GAP = 26
AXIS_HEIGHT = 42
LEGEND_WIDTH, LEGEND_HEIGHT, LEGEND_BAR = 400, 74, 18
# Causal relevances of few heads reach 35; those of attention end below 16.
_HIGH_OCTAVES, _MOST_OCTAVES = 4, 6


MOST_PANELS = 512
"""Panels of a heat map at most."""


def heat_map(hrv: HRV, concepts: Sequence[str] | None = None, *, title: str | None = None) -> Image.Image:
    """Draw one panel per concept (all of them by default) and return an RGB picture.

    In each panel, rows are cross-attention layers in canonical order, with down, mid and up set apart;
    columns are heads, and a layer with fewer heads than the widest ends earlier. All panels share one color
    scale, even from 0 to its neutral middle at 1.0, the average head, and logarithmic above, so that elements of 2
    and of 40 can be told apart; the legend says where it ends and how far elements reach beyond. Characters
    outside ASCII show as boxes: the font is the one that comes with Pillow. Raises HRVError for an unknown
    concept, and for more than :data:`MOST_PANELS`.
    """
    chosen = [hrv.index(name) for name in (hrv.concepts if concepts is None else concepts)]
    if not chosen:
        raise HRVError("A heat map needs at least one concept.")
    if len(chosen) > MOST_PANELS:
        raise HRVError(
            f"{len(chosen)} concepts don't fit into one picture; at most {MOST_PANELS} do. Choose which to draw."
        )
    names, rows = [hrv.concepts[index] for index in chosen], hrv.values[chosen]
    octaves = _octaves(rows)
    figure = _arrange(hrv.layout, names)
    heading = Heading(title, figure.width)

    image = Image.new("RGB", (figure.width, heading.height + figure.height), PAPER)
    draw = ImageDraw.Draw(image)
    heading.draw(draw)
    for place, (name, row) in enumerate(zip(names, rows, strict=True)):
        line, column = divmod(place, figure.columns)
        left = figure.left + column * (figure.pitch + PANEL_GAP)
        top = heading.height + line * figure.line_height + figure.name_height
        draw_text(draw, (left, top - 8), wrap(name, NAME_SIZE, figure.pitch), NAME_SIZE, "ld")
        image.paste(Image.fromarray(figure.panel.paint(ramp_colors(_places(row, octaves)))), (left, top))
        if column == 0:
            _draw_sections(draw, figure.panel, left - 10, top)
        if place >= len(names) - figure.columns:
            _draw_head_axis(draw, figure.panel, left, top + figure.panel.height + 6)
    what = f"Relevance of a head (1 = average head{_beyond(rows, octaves)})"
    _draw_legend(draw, image, what, octaves, image.height - MARGIN - LEGEND_HEIGHT)
    return image


@dataclass(frozen=True)
class _Panel:
    """Where the cells of one layout lie, in pixels from the panel's upper left corner."""

    layout: HeadLayout
    cell: int

    @property
    def gutter(self) -> int:
        """Paper between neighbouring cells; cells too small for it touch."""
        return 1 if self.cell >= 9 else 0

    @property
    def section_gap(self) -> int:
        return max(5, self.cell // 2)

    @property
    def width(self) -> int:
        return max(layer.heads for layer in self.layout.layers) * self.cell - self.gutter

    @property
    def height(self) -> int:
        gaps = (len(self.layout.sections()) - 1) * self.section_gap
        return len(self.layout.layers) * self.cell - self.gutter + gaps

    def section_spans(self) -> list[tuple[str, int, int]]:
        """Each section with the top and bottom of its rows."""
        spans = []
        top = 0
        for section, layers in self.layout.sections().items():
            bottom = top + len(layers) * self.cell
            spans.append((section, top, bottom - self.gutter))
            top = bottom + self.section_gap
        return spans

    def paint(self, colors: Pixels) -> Pixels:
        """Cells in the colors [H, 3] of their heads, as pixels [height, width, 3]."""
        pixels = np.empty((self.height, self.width, 3), dtype=np.uint8)
        pixels[:] = PAPER
        inner = self.cell - self.gutter
        layers = iter(zip(self.layout.layers, self.layout.offsets, strict=True))
        for _, top, bottom in self.section_spans():
            for y in range(top, bottom, self.cell):
                layer, offset = next(layers)
                for head in range(layer.heads):
                    x = head * self.cell
                    pixels[y : y + inner, x : x + inner] = colors[offset + head]
        return pixels


@dataclass(frozen=True)
class _Arrangement:
    """A heat map's panels in ``columns`` columns; sizes without the title, in pixels."""

    panel: _Panel
    columns: int
    lines: int
    pitch: int
    name_height: int
    label_width: int

    @property
    def line_height(self) -> int:
        return self.name_height + self.panel.height + AXIS_HEIGHT

    @property
    def block_width(self) -> int:
        """Width of all panels and of the labels before them."""
        return self.label_width + self.columns * (self.pitch + PANEL_GAP) - PANEL_GAP

    @property
    def width(self) -> int:
        return max(self.block_width, LEGEND_WIDTH) + 2 * MARGIN

    @property
    def left(self) -> int:
        """Where the first panel begins; panels narrower than the legend stand over its middle."""
        return (self.width - self.block_width) // 2 + self.label_width

    @property
    def height(self) -> int:
        return self.lines * self.line_height + LEGEND_HEIGHT + MARGIN + 10


def _arrange(layout: HeadLayout, names: Sequence[str]) -> _Arrangement:
    """The arrangement with the largest cells that fit, and of these the nearest to the aspect ratio."""
    labels = max(text_width(section, LABEL_SIZE) for section in layout.sections()) + 20
    longest_word = max(text_width(word, NAME_SIZE) for name in names for word in name.split())
    candidates: list[_Arrangement] = []
    for cell in CELL_SIZES:
        panel = _Panel(layout, cell)
        pitch = max(panel.width, min(longest_word, 160))
        name_lines = max(len(wrap(name, NAME_SIZE, pitch)) for name in names)
        name_height = name_lines * line_height(NAME_SIZE) + 8
        candidates = [
            _Arrangement(panel, math.ceil(len(names) / lines), lines, pitch, name_height, labels)
            for lines in range(1, len(names) + 1)
        ]
        fitting = [each for each in candidates if each.width <= MAP_WIDTH and each.height <= MAP_HEIGHT]
        if fitting:
            return min(fitting, key=_shapeliness)
    return min(candidates, key=_shapeliness)


def _shapeliness(figure: _Arrangement) -> float:
    return abs(math.log(figure.width / figure.height / MAP_ASPECT))


def _octaves(rows: Values) -> int:
    """How many doublings above 1 the color scale spans: enough for 99 of 100 heads, at most 6."""
    return min(max(math.ceil(math.log2(max(float(np.percentile(rows, 99)), 1.0))), 1), _MOST_OCTAVES)


def _beyond(rows: Values, octaves: int) -> str:
    """What is said of the highest relevance if it lies beyond a scale that ends high: there a + may hide much."""
    highest = float(rows.max())
    return f"; highest {highest:.3g}" if octaves >= _HIGH_OCTAVES and highest > 2**octaves else ""


def _places(values: npt.NDArray[Any], octaves: int) -> npt.NDArray[np.float64]:
    """Places of relevances on the color scale, -1 to 1: even from 0 to 1, then ``octaves`` doublings."""
    exact = values.astype(np.float64)
    return np.where(exact < 1, exact - 1, np.minimum(np.log2(np.maximum(exact, 1)) / octaves, 1))


def _draw_sections(draw: ImageDraw.ImageDraw, panel: _Panel, right: int, top: int) -> None:
    """Names of the sections, each with a line along its rows."""
    for section, begin, end in panel.section_spans():
        draw.line([(right, top + begin), (right, top + end - 1)], fill=RULE, width=2)
        draw_text(draw, (right - 8, top + (begin + end) // 2), [section], LABEL_SIZE, "rm", SOFT_INK)


def _draw_head_axis(draw: ImageDraw.ImageDraw, panel: _Panel, left: int, top: int) -> None:
    """Numbers of the first and the last head under their columns."""
    last = max(layer.heads for layer in panel.layout.layers) - 1
    half = (panel.cell - panel.gutter) // 2
    draw_text(draw, (left + half, top), ["0"], LABEL_SIZE, "ma", SOFT_INK)
    if last:
        draw_text(draw, (left + panel.width - 1 - half, top), [str(last)], LABEL_SIZE, "ma", SOFT_INK)
        draw_text(draw, (left + panel.width // 2, top), ["head"], LABEL_SIZE, "ma", SOFT_INK)


def _draw_legend(draw: ImageDraw.ImageDraw, image: Image.Image, what: str, octaves: int, top: int) -> None:
    """The color scale with a tick at every doubling; the longer tick marks the average head."""
    left = (image.width - LEGEND_WIDTH) // 2
    draw_text(draw, (image.width // 2, top), [what], LABEL_SIZE, "ma")
    top += line_height(LABEL_SIZE) + 4
    bar = np.broadcast_to(ramp_colors(np.linspace(-1, 1, LEGEND_WIDTH)), (LEGEND_BAR, LEGEND_WIDTH, 3))
    image.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, top))
    ticks = np.array([0, 0.5] + [2**octave for octave in range(octaves + 1)])
    for tick, place in zip(ticks, _places(ticks, octaves), strict=True):
        x = left + round((place + 1) / 2 * (LEGEND_WIDTH - 1))
        start = top if tick == 1 else top + LEGEND_BAR
        draw.line([(x, start), (x, top + LEGEND_BAR + 4)], fill=INK, width=1)
        number = f"{tick:g}+" if tick == ticks[-1] else f"{tick:g}"
        draw_text(draw, (x, top + LEGEND_BAR + 8), [number], LABEL_SIZE, "ma", SOFT_INK)
