"""How alike Head Relevance Vectors are: cosines, and a picture of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .drawing import (
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
from .errors import HRVError
from .layout import spell_difference
from .vectors import HRV

Cosines = npt.NDArray[np.float64]

# More rows or columns than this cannot be read in one picture.
MOST_CONCEPTS = 128

_LABEL_WIDTH = 230
_LARGEST_CELL, _SMALLEST_CELL, _MATRIX_SIZE = 56, 14, 1300
_LEGEND_WIDTH, _LEGEND_BAR, _LEGEND_HEIGHT = 320, 18, 70


def cosines(rows: HRV, columns: HRV) -> Cosines:
    """Cosines between the vectors of two HRVs: float64 [N rows, N columns], from 0 to 1 as no element is negative.

    A vector of zeros has the cosine 0 with all. Raises HRVError unless both have the same head layout.
    """
    if rows.layout != columns.layout:
        difference = spell_difference(rows.layout, columns.layout, "first", "second")
        raise HRVError(f"Only HRVs of the same kind of model can be compared. {difference}")
    units = []
    for hrv in (rows, columns):
        values = hrv.values.astype(np.float64)
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        units.append(np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0))
    return np.minimum(units[0] @ units[1].T, 1.0)


def cosine_picture(
    matrix: Cosines, row_labels: Sequence[str], column_labels: Sequence[str], *, title: str | None = None
) -> Image.Image:
    """Draw cosines [rows, columns] from 0 to 1 as a labelled matrix and return an RGB picture.

    Cells large enough for it carry their number. All pictures share one color scale, so that they can be compared.
    Raises HRVError for more than 128 rows or columns, and for labels that do not match.
    """
    if matrix.shape != (len(row_labels), len(column_labels)) or 0 in matrix.shape:
        raise HRVError(
            f"{len(row_labels)} row and {len(column_labels)} column labels do not fit {list(matrix.shape)} cosines."
        )
    most = max(matrix.shape)
    if most > MOST_CONCEPTS:
        raise HRVError(
            f"{most} concepts do not fit into one picture; at most {MOST_CONCEPTS} do. Name those to compare."
        )
    cell = max(_SMALLEST_CELL, min(_LARGEST_CELL, _MATRIX_SIZE // most))
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
    # The upper half of the color scale: from neutral for 0 to the darkest for 1.
    colors = ramp_colors(matrix.ravel())
    for place, (cosine, color) in enumerate(zip(matrix.ravel(), colors.tolist(), strict=True)):
        row, column = divmod(place, len(columns))
        x, y = left + column * cell, top + row * cell
        draw.rectangle((x, y, x + cell - 2, y + cell - 2), fill=tuple(color))
        if cell >= 34:
            ink = PAPER if cosine > 0.6 else INK
            draw_text(draw, (x + cell // 2, y + cell // 2), [f"{cosine:.2f}"], min(14, cell // 3), "mm", ink)
    _draw_legend(draw, image, left, bottom + 24)
    return image


def _upright(label: str, size: int) -> Image.Image:
    """One line of text that reads from below upwards."""
    line = Image.new("RGB", (text_width(label, size), line_height(size)), PAPER)
    ImageDraw.Draw(line).text((0, line.height // 2), label, font=font(size), fill=INK, anchor="lm")
    return line.transpose(Image.Transpose.ROTATE_90)


def _draw_legend(draw: ImageDraw.ImageDraw, image: Image.Image, left: int, top: int) -> None:
    """The color scale from 0 to 1."""
    left = min(left, image.width - MARGIN - _LEGEND_WIDTH)
    bar = np.broadcast_to(ramp_colors(np.linspace(0, 1, _LEGEND_WIDTH)), (_LEGEND_BAR, _LEGEND_WIDTH, 3))
    image.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, top))
    for place, text in ((0, "0"), (_LEGEND_WIDTH // 2, "cosine"), (_LEGEND_WIDTH - 1, "1")):
        draw_text(draw, (left + place, top + _LEGEND_BAR + 6), [text], LABEL_SIZE, "ma", SOFT_INK)
