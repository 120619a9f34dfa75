"""What attend-and-excite did in a run, as pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..drawing.grid import picture_grid
from ..drawing.paper import INK, LABEL_SIZE, MARGIN, PAPER, RULE, SOFT_INK, Heading, draw_text, ramp_colors, text_width
from .report import ExcitementReport, Floats

_WIDTH, _HEIGHT = 900, 480
_LEFT, _BELOW, _LEGEND = 56, 52, 26
# Subjects take these in turn; the loss is drawn in ink.
_COLORS = ((150, 45, 18), (50, 98, 169), (233, 165, 104), (124, 174, 222), (104, 24, 15), (95, 150, 210))


def curves_picture(report: ExcitementReport) -> Image.Image:
    """Draw the loss and each subject's maximum, update by update, as an RGB picture; of several images the worst."""
    numbers = [step.number for step in report.steps for _ in step.iterations]
    curves = [
        (name, _COLORS[(number - 1) % len(_COLORS)] if number else INK, values)
        for number, (name, values) in enumerate(report.curves())
    ]
    heading = Heading(_title(report), _WIDTH)
    left, right = MARGIN + _LEFT, _WIDTH - MARGIN
    top = heading.height + len(curves) * _LEGEND + 16
    bottom = top + _HEIGHT - _BELOW
    picture = Image.new("RGB", (_WIDTH, bottom + _BELOW + MARGIN), PAPER)
    draw = ImageDraw.Draw(picture)
    heading.draw(draw)
    places = np.linspace(left, right, max(2, len(numbers)))

    def up(number: float) -> float:
        return bottom - max(0.0, min(1.0, number)) * (bottom - top)

    for tenth in range(0, 11, 2):
        draw.line([(left, up(tenth / 10)), (right, up(tenth / 10))], fill=RULE)
        draw_text(draw, (left - 8, round(up(tenth / 10))), [f"{tenth / 10:g}"], LABEL_SIZE, "rm", SOFT_INK)
    _draw_steps(draw, numbers, places, bottom)
    draw_text(draw, ((left + right) // 2, bottom + 30), ["step of the sampler"], LABEL_SIZE, "ma")
    for number, (name, color, values) in enumerate(curves):
        y = heading.height + number * _LEGEND + _LEGEND // 2
        draw.line([(left, y), (left + 34, y)], fill=color, width=3)
        draw_text(draw, (left + 44, y), [f"{name}: {values[-1]:.3f}" if values else name], LABEL_SIZE, "lm")
        # A subject whose prompt did not act at a step has no number there.
        seen = [(x, up(value)) for x, value in zip(places, values, strict=False) if np.isfinite(value)]
        if len(seen) > 1:
            draw.line(seen, fill=color, width=3, joint="curve")
        for place in seen:
            draw.circle(place, 3, fill=color)
    return picture


def _title(report: ExcitementReport) -> str:
    title = f"Attend and Excite: {report.updates} updates in {report.seconds:.1f} s"
    return title if report.peak_bytes is None else f"{title}, {report.peak_bytes / 1e9:.2f} GB in use at most"


def maps_picture(report: ExcitementReport) -> Image.Image:
    """Draw the last map of every subject, an image of the batch a row, as an RGB picture: orange is attended to."""
    columns = [f"{words} ({concept})" if concept else words for words, concept in report.subjects]
    count = len(report.maps[0]) if report.maps else 1
    empty = np.zeros((2, 2), dtype=np.float32)
    rows = [
        [_colored(report.maps[number][image] if report.maps else empty) for number in range(len(columns))]
        for image in range(count)
    ]
    return picture_grid(rows, [f"image {number + 1}" for number in range(count)], columns)


def _colored(shares: Floats) -> np.ndarray:
    return ramp_colors(shares.ravel().astype(np.float64)).reshape(*shares.shape, 3)


def _draw_steps(draw: ImageDraw.ImageDraw, steps: Sequence[int], places: np.ndarray, bottom: int) -> None:
    """A tick where each step begins, with its number from 1 while there is room."""
    beyond = -1.0
    for number, (step, x) in enumerate(zip(steps, places, strict=False)):
        if number and steps[number - 1] == step:
            continue
        draw.line([(x, bottom), (x, bottom + 5)], fill=RULE)
        if x > beyond:
            draw_text(draw, (round(x), bottom + 8), [str(step + 1)], LABEL_SIZE, "ma", SOFT_INK)
            beyond = x + text_width(str(step + 1), LABEL_SIZE) + 8
