"""Pictures set in labelled rows and columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..errors import HRVError
from .paper import (
    LABEL_SIZE,
    MARGIN,
    PAPER,
    SOFT_INK,
    Heading,
    Pixels,
    draw_text,
    line_height,
    text_width,
    wrap,
)

# Pictures of a grid are enlarged by a whole factor up to the first size, and reduced down to the second.
SMALL_PICTURE, LARGE_PICTURE = 128, 320


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


def _check_picture(picture: Pixels) -> None:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise HRVError(
            f"A picture of a grid is a uint8 array [height, width, 3], not {picture.dtype} {list(picture.shape)}."
        )


def _resized(picture: Pixels, factor: float) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(picture))
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    return image.resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS)
