"""A labelled matrix of numbers drawn as colored cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .paper import (
    INK,
    LABEL_SIZE,
    MARGIN,
    PAPER,
    SOFT_INK,
    Heading,
    draw_text,
    font,
    line_height,
    ramp_colors,
    text_width,
    wrap,
)

_LABEL_WIDTH = 230
_LARGEST_CELL, _SMALLEST_CELL, _MATRIX_SIZE = 56, 14, 1300
_LEGEND_WIDTH, _LEGEND_BAR, _LEGEND_HEIGHT = 320, 18, 70


def matrix_picture(
    matrix: npt.NDArray[np.float64],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    what: str,
    *,
    title: str | None = None,
    scale: tuple[float, float] = (0.0, 1.0),
) -> Image.Image:
    """Draw a matrix [rows, columns] as an RGB picture; the color scale runs from the lower to the higher of ``scale``.

    Cells large enough for it carry their number; one that is no number stays empty. ``what`` names the numbers.
    """
    cell = max(_SMALLEST_CELL, min(_LARGEST_CELL, _MATRIX_SIZE // max(matrix.shape)))
    size = min(LABEL_SIZE, cell - 2)
    rows = [wrap(label, size, _LABEL_WIDTH, lines=1)[0] for label in row_labels]
    columns = [wrap(label, size, _LABEL_WIDTH, lines=1)[0] for label in column_labels]
    left = MARGIN + max(text_width(label, size) for label in rows) + 10
    width = max(left + len(columns) * cell, _LEGEND_WIDTH + MARGIN) + MARGIN
    heading = Heading(title, width)
    top = heading.height + max(text_width(label, size) for label in columns) + 10
    bottom = top + len(rows) * cell

    image = Image.new("RGB", (width, bottom + _LEGEND_HEIGHT + MARGIN), PAPER)
    draw = ImageDraw.Draw(image)
    heading.draw(draw)
    for number, label in enumerate(rows):
        draw_text(draw, (left - 10, top + number * cell + cell // 2), [label], size, "rm")
    for number, label in enumerate(columns):
        upright = _upright(label, size)
        image.paste(upright, (left + number * cell + (cell - upright.width) // 2, top - 10 - upright.height))
    # The upper half of the color scale: from neutral to the darkest.
    low, high = scale
    places = np.clip((matrix.ravel() - low) / (high - low), 0, 1)
    colors = ramp_colors(np.nan_to_num(places))
    for number, (value, place, color) in enumerate(zip(matrix.ravel(), places, colors.tolist(), strict=True)):
        if not np.isfinite(value):
            continue
        row, column = divmod(number, len(columns))
        x, y = left + column * cell, top + row * cell
        draw.rectangle((x, y, x + cell - 2, y + cell - 2), fill=tuple(color))
        if cell >= 34:
            ink = PAPER if place > 0.6 else INK
            draw_text(draw, (x + cell // 2, y + cell // 2), [f"{value:.2f}"], min(14, cell // 3), "mm", ink)
    ends = f"{low:.3g}", what, f"{high:.3g}"
    _draw_legend(draw, image, left, bottom + 24, ends)
    return image


def _upright(label: str, size: int) -> Image.Image:
    """One line of text that reads from below upwards."""
    line = Image.new("RGB", (text_width(label, size), line_height(size)), PAPER)
    ImageDraw.Draw(line).text((0, line.height // 2), label, font=font(size), fill=INK, anchor="lm")
    return line.transpose(Image.Transpose.ROTATE_90)


def _draw_legend(draw: ImageDraw.ImageDraw, image: Image.Image, left: int, top: int, texts: Sequence[str]) -> None:
    """The color scale, with a text at its beginning, middle and end."""
    left = min(left, image.width - MARGIN - _LEGEND_WIDTH)
    bar = np.broadcast_to(ramp_colors(np.linspace(0, 1, _LEGEND_WIDTH)), (_LEGEND_BAR, _LEGEND_WIDTH, 3))
    image.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, top))
    for place, text in zip((0, _LEGEND_WIDTH // 2, _LEGEND_WIDTH - 1), texts, strict=True):
        draw_text(draw, (left + place, top + _LEGEND_BAR + 6), [text], LABEL_SIZE, "ma", SOFT_INK)
