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

# Pictures of a grid are enlarged by a whole factor up to the first size, and reduced down to the second.
SMALL_PICTURE, LARGE_PICTURE = 128, 320


def heat_map(hrv: HRV, concepts: Sequence[str] | None = None, *, title: str | None = None) -> Image.Image:
    """Draw one panel per concept (all of them by default) and return an RGB picture.

    In each panel, rows are cross-attention layers in canonical order, with down, mid and up set apart;
    columns are heads, and a layer with fewer heads than the widest ends earlier. All panels share one color
    scale, even from 0 to its neutral middle at 1.0, the average head, and logarithmic above. Characters
    outside ASCII show as boxes: the font is the one that comes with Pillow. Raises HRVError for an unknown
    concept.
    """
    chosen = [hrv.index(name) for name in (hrv.concepts if concepts is None else concepts)]
    if not chosen:
        raise HRVError("A heat map needs at least one concept.")
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
    _draw_legend(draw, image, octaves, image.height - MARGIN - LEGEND_HEIGHT)
    return image


def picture_grid(
    images: Sequence[Sequence[Pixels]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    title: str | None = None,
    caption: str | None = None,
) -> Image.Image:
    """Set pictures (uint8 [height, width, 3]) in labelled rows and columns and return an RGB picture.

    Small pictures are enlarged by a whole factor with their pixels kept sharp, large ones reduced, all by the
    same factor. Raises HRVError when a row's length or the labels do not match, or a picture has another
    shape or type.
    """
    if not row_labels or not column_labels:
        raise HRVError("A picture grid needs at least one row and one column.")
    if len(images) != len(row_labels) or any(len(row) != len(column_labels) for row in images):
        shape = [len(row) for row in images]
        raise HRVError(
            f"A picture grid with {len(row_labels)} row and {len(column_labels)} column labels needs as many "
            f"rows and columns of pictures; its rows have {shape} pictures."
        )
    for row in images:
        for picture in row:
            _check_picture(picture)
    largest = max(max(picture.shape[:2]) for row in images for picture in row)
    factor = min(max(1, math.ceil(SMALL_PICTURE / largest)), LARGE_PICTURE / largest)
    cells = [[_resized(picture, factor) for picture in row] for row in images]
    width = max(cell.width for row in cells for cell in row)
    height = max(cell.height for row in cells for cell in row)

    gap = 8
    labels = [wrap(label, LABEL_SIZE, 220, lines=4) for label in row_labels]
    tops = [wrap(label, LABEL_SIZE, width, lines=3) for label in column_labels]
    left = MARGIN + max((text_width(line, LABEL_SIZE) for lines in labels for line in lines), default=0) + 14
    total = left + len(column_labels) * (width + gap) - gap + MARGIN
    heading = Heading(title, total)
    footing = wrap(caption or "", LABEL_SIZE, total - 2 * MARGIN, lines=8)
    top = heading.height + max(len(lines) for lines in tops) * line_height(LABEL_SIZE) + 8
    bottom = top + len(row_labels) * (height + gap) - gap
    foot = len(footing) * line_height(LABEL_SIZE) + 14 if footing else 0

    image = Image.new("RGB", (total, bottom + foot + MARGIN), PAPER)
    draw = ImageDraw.Draw(image)
    heading.draw(draw)
    for column, lines in enumerate(tops):
        draw_text(draw, (left + column * (width + gap) + width // 2, top - 8), lines, LABEL_SIZE, "md")
    for row_number, (lines, row_cells) in enumerate(zip(labels, cells, strict=True)):
        y = top + row_number * (height + gap)
        draw_text(draw, (left - 14, y + height // 2), lines, LABEL_SIZE, "rm")
        for column, cell in enumerate(row_cells):
            x = left + column * (width + gap)
            image.paste(cell, (x + (width - cell.width) // 2, y + (height - cell.height) // 2))
    draw_text(draw, (MARGIN, bottom + 14), footing, LABEL_SIZE, "la", SOFT_INK)
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
    """How many doublings above 1 the color scale spans: enough for 99 of 100 heads, at most 4."""
    return min(max(math.ceil(math.log2(max(float(np.percentile(rows, 99)), 1.0))), 1), 4)


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


def _draw_legend(draw: ImageDraw.ImageDraw, image: Image.Image, octaves: int, top: int) -> None:
    """The color scale with a tick at every doubling; the longer tick marks the average head."""
    left = (image.width - LEGEND_WIDTH) // 2
    draw_text(draw, (image.width // 2, top), ["Relevance of a head (1 = average head)"], LABEL_SIZE, "ma")
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


def _check_picture(picture: Pixels) -> None:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise HRVError(
            f"A picture of a grid is a uint8 array [height, width, 3], not {picture.dtype} {list(picture.shape)}."
        )


def _resized(picture: Pixels, factor: float) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(picture))
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    return image.resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS)
