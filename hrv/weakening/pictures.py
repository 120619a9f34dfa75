"""Pictures of ordered weakening: curves, contact sheet, summary of concepts, map of factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..drawing.charts import Axis, Chart, Key, even_ticks
from ..drawing.grid import picture_grid
from ..drawing.matrix import matrix_picture
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
    text_width,
)
from ..relevance.orders import LEAST_RELEVANT_FIRST, MOST_RELEVANT_FIRST, RANDOM
from .plan import UNIFORM, Cell, Line, Weakening, sheet_lines
from .side_effects import SideEffects
from .statistics import Finding, curve, mean_scores

_LEAST = Key("least relevant heads first (LeRHF)", (50, 98, 169))
_MOST = Key("most relevant heads first (MoRHF)", (150, 45, 18))
_RANDOM = Key("random orders, with 95 % interval", (98, 102, 108), 2)
_UNIFORM = Key("all heads alike, by the same mean factor", (220, 121, 51), 2)
_BANDS = {_LEAST: (206, 219, 236), _MOST: (238, 212, 206), _RANDOM: (224, 225, 227)}

_BAR_LEFT, _BAR_WIDTH, _ROW, _AXIS = 200, 420, 44, 44


def curves_picture(result: Weakening, found: Finding) -> Image.Image:
    """Mean score over the number of heads weakened, a curve for every order, with 95 % intervals."""
    factor = result.plan.factors[0]
    lines = {
        _RANDOM: [line for line in result.plan.lines if line.order == RANDOM and line.factor == factor],
        _UNIFORM: [Line(UNIFORM, factor)] if result.plan.uniform else [],
        _LEAST: [Line(LEAST_RELEVANT_FIRST, factor)],
        _MOST: [Line(MOST_RELEVANT_FIRST, factor)],
    }
    curves = {key: curve(result, chosen) for key, chosen in lines.items() if chosen}
    low = min(float(np.nanmin(each.low)) for each in curves.values())
    high = max(float(np.nanmax(each.high)) for each in curves.values())
    room = (high - low) * 0.05 or 0.05
    counts = [float(heads) for heads in result.plan.head_counts]
    across = Axis("heads weakened", 0, counts[-1], tuple(counts))
    up = Axis("score", low - room, high + room, even_ticks(low - room, high + room))
    p = "" if found.p is None else f", p = {found.p:.3f}"
    title = f"{result.concept}: {found.verdict}. Area {found.area.value:.3f}{p}"
    chart = Chart(title, list(reversed(curves)), across, up)
    for key, each in curves.items():
        if key in _BANDS:
            chart.band(counts, each.low.tolist(), each.high.tolist(), _BANDS[key])
    for key, each in curves.items():
        chart.line(counts, each.mean.tolist(), key, dots=True)
    return chart.picture


def contact_sheet(result: Weakening, pictures: Mapping[Cell, Pixels]) -> Image.Image:
    """One prompt and seed as every order weakens it: rows are orders, columns numbers of heads.

    ``pictures`` are uint8 [height, width, 3] for every cell of the lines of :func:`sheet_lines`.
    """
    plan, case = result.plan, result.cases[0]
    lines = sheet_lines(plan.lines)
    rows = [[pictures[plan.cell(line, heads)] for heads in plan.head_counts] for line in lines]
    columns = [f"{heads} head{'' if heads == 1 else 's'}" for heads in plan.head_counts]
    title = f"{result.concept}: {case.prompt} (seed {result.seeds[0]})"
    caption = f"All words are weakened by the factor {lines[0].factor:g} in the heads that come first in each order."
    return picture_grid(rows, [line.order for line in lines], columns, title, caption)


def summary_picture(findings: Sequence[Finding], title: str) -> Image.Image:
    """A row for every concept: the area with its interval, what chance gives, the p-value and the verdict."""
    ends = [value for each in findings for value in (*each.area, *each.random_areas, *(-x for x in each.random_areas))]
    ticks = even_ticks(min(0.0, *ends), max(0.0, *ends))
    axis = Axis("area between least and most relevant first", min(0.0, *ends), max(0.0, *ends), ticks)
    texts = [f"{each.verdict}{'' if each.p is None else f'   p = {each.p:.3f}'}" for each in findings]
    left = MARGIN + _BAR_LEFT
    width = left + _BAR_WIDTH + 24 + max(text_width(text, NAME_SIZE) for text in texts) + MARGIN
    heading = Heading(title, width)
    bottom = heading.height + _ROW * len(findings) + 8
    picture = Image.new("RGB", (width, bottom + _AXIS + MARGIN), PAPER)
    draw = ImageDraw.Draw(picture)
    heading.draw(draw)

    def across(value: float) -> int:
        return round(left + axis.place(value) * _BAR_WIDTH)

    for tick in ticks:
        draw.line([(across(tick), heading.height), (across(tick), bottom)], fill=INK if tick == 0 else RULE)
        draw_text(draw, (across(tick), bottom + 6), [f"{tick:g}"], LABEL_SIZE, "ma", SOFT_INK)
    draw_text(draw, (left + _BAR_WIDTH // 2, bottom + 26), [axis.label], LABEL_SIZE, "ma")
    for number, (each, text) in enumerate(zip(findings, texts, strict=True)):
        y = heading.height + _ROW * number + _ROW // 2
        draw_text(draw, (left - 14, y), [each.concept], NAME_SIZE, "rm")
        if each.random_areas:
            spread = max(map(abs, each.random_areas))
            draw.rectangle((across(-spread), y - 13, across(spread), y + 13), fill=_BANDS[_RANDOM])
        draw.line([(across(each.area.low), y), (across(each.area.high), y)], fill=_MOST.color, width=3)
        draw.circle((across(each.area.value), y), 6, fill=_MOST.color)
        draw_text(draw, (left + _BAR_WIDTH + 24, y), [text], NAME_SIZE, "lm")
    return picture


def factors_picture(result: Weakening) -> Image.Image:
    """Mean score of every order (rows, factor by factor) at every number of heads (columns)."""
    orders = [MOST_RELEVANT_FIRST, LEAST_RELEVANT_FIRST, *([UNIFORM] if result.plan.uniform else [])]
    matrix = np.concatenate([mean_scores(result, order) for order in orders])
    rows = [f"{order}, {factor:g}" for order in orders for factor in result.plan.factors]
    columns = [str(heads) for heads in result.plan.head_counts]
    low, high = float(np.nanmin(matrix)), float(np.nanmax(matrix))
    scale = (low, high) if high > low else (low, low + 1.0)
    title = f"{result.concept}: score by factor and number of heads"
    return matrix_picture(matrix, rows, columns, "score", title=title, scale=scale)


def side_effects_picture(found: SideEffects, title: str) -> Image.Image:
    """What is lost of every concept (columns) where each concept's heads are weakened (rows).

    The scale is of one color that darkens; a concept that gained by it is as light as one that lost nothing.
    """
    most = float(found.losses.max())
    scale = (0.0, most if most > 0 else 1.0)
    rows = [f"heads of {concept}" for concept in found.weakened]
    return matrix_picture(found.losses, rows, found.scored, "score lost", title=title, scale=scale)
