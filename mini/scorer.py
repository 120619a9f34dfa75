"""What a picture of the mini world shows, read off its pixels, and whether that is what its caption says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..hrv.errors import HRVError
from .captions import Sample
from .matching import CENTER, FAINTEST, Fit, fit, half, see, whole
from .world import (
    COLORS,
    NOTHING,
    OFFSETS,
    PATTERNS,
    PLANT,
    PLANT_COLORS,
    PLANTS,
    RADII,
    SCENES,
    SHAPES,
    SIZE,
    Pictures,
)

BATCH = 64
"""Pictures read at a time, to bound the memory."""

PAIR_GAIN = 0.7
"""Two things are seen if they leave less unexplained than this share of what a single thing leaves."""


@dataclass(frozen=True)
class Thing:
    """One thing: ``color``, ``shape``, ``pattern`` and ``size`` of a "shape", or the word of a "plant"; else empty.

    ``x``, ``y`` and ``radius`` are pixels of the 32 x 32 picture.
    """

    kind: str
    position: str
    x: float
    y: float
    radius: float
    color: str = ""
    shape: str = ""
    pattern: str = ""
    size: str = ""
    plant: str = ""


@dataclass(frozen=True)
class Reading:
    """The scene's word and up to two things, from left to right."""

    scene: str
    things: tuple[Thing, ...]

    @property
    def shapes(self) -> list[Thing]:
        return [thing for thing in self.things if thing.kind == "shape"]

    @property
    def plants(self) -> list[Thing]:
        return [thing for thing in self.things if thing.kind == "plant"]


def read_pictures(pictures: torch.Tensor) -> list[Reading]:
    """Read RGB pictures [B, 3, 32n, 32n] in 0..1, averaged down to 32 x 32; raises HRVError for other tensors."""
    shape = list(pictures.shape)
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or shape[2] < SIZE or shape[2] % SIZE:
        raise HRVError(f"The scorer reads pictures [B, 3, {SIZE}n, {SIZE}n], not {shape}.")
    if not pictures.is_floating_point() or not bool(pictures.isfinite().all()):
        raise HRVError("The scorer reads pictures of finite floating-point numbers in 0..1.")
    small = F.avg_pool2d(pictures.detach().float().cpu(), shape[2] // SIZE)
    return [reading for batch in small.split(BATCH) if len(batch) for reading in _read(batch)]


def score(reading: Reading, sample: Sample) -> dict[str, bool]:
    """Whether each concept that a caption names of its first thing is right in the picture.

    A caption of kind "plant" is about the first plant, any other about the first shape; a "Plants" word is right if
    that plant is the first one.
    """
    plant = reading.plants[0] if reading.plants else None
    shape = reading.shapes[0] if reading.shapes else None
    subject = plant if sample.kind == "plant" else shape
    shown = {"Scene": reading.scene}
    if plant:
        shown["Plants"] = plant.plant
    if shape:
        shown |= {"Color": shape.color, "Shape": shape.shape, "Pattern": shape.pattern, "Size": shape.size}
    if subject:
        shown["Position"] = subject.position
    return {concept: shown.get(concept) == word for concept, word in sample.named.items()}


@dataclass(frozen=True)
class PairScore:
    """How much of a caption of two shapes is right.

    ``ordered``: both colors and shapes, in the caption's order from left to right; ``bound``: in any order;
    ``present``: both shapes, whatever their colors.
    """

    ordered: bool
    bound: bool
    present: bool


def pair_correct(reading: Reading, asked: Sequence[tuple[str, str]]) -> PairScore:
    """Compare a picture with the (color, shape) of the two things asked for."""
    shown = [(thing.color, thing.shape) for thing in reading.shapes]
    return PairScore(
        ordered=shown == list(asked),
        bound=sorted(shown) == sorted(asked),
        present=sorted(shape for _, shape in shown) == sorted(shape for _, shape in asked),
    )


def meaning(reading: Reading, word: str) -> str:
    """How a word with two meanings was read: "color" (of a shape), "plant" or "scene", "both" or "neither"."""
    color = any(thing.color == word for thing in reading.shapes)
    other = reading.scene == word or any(thing.plant == word for thing in reading.plants)
    if color and other:
        return "both"
    if color:
        return "color"
    if other:
        return "plant" if word in PLANT_COLORS else "scene"
    return "neither"


def describe(pictures: Pictures) -> list[Reading]:
    """The truth of drawn pictures as perfect readings."""
    form = torch.where(pictures.kind == PLANT, pictures.form + len(SHAPES), pictures.form)
    columns = (pictures.x, pictures.y, pictures.radius, pictures.color, pictures.pattern)
    readings = []
    for row, scene in enumerate(pictures.scene.tolist()):
        slots = [slot for slot in (0, 1) if pictures.kind[row, slot] != NOTHING]
        things = [_thing(int(form[row, slot]), *(float(column[row, slot]) for column in columns)) for slot in slots]
        readings.append(Reading(list(SCENES)[scene], tuple(sorted(things, key=lambda thing: thing.x))))
    return readings


def _thing(form: int, x: float, y: float, radius: float, color: float, pattern: float) -> Thing:
    """Numbers in words; a size is the nearest by ratio."""
    offset = (x - CENTER, y - CENTER)
    position = min(OFFSETS, key=lambda word: sum((a - b) ** 2 for a, b in zip(offset, OFFSETS[word], strict=True)))
    if form >= len(SHAPES):
        return Thing("plant", position, x, y, radius, plant=PLANTS[form - len(SHAPES)])
    look = {"color": list(COLORS)[int(color)], "shape": SHAPES[form], "pattern": PATTERNS[int(pattern)]}
    size = min(RADII, key=lambda word: max(RADII[word] / radius, radius / RADII[word]))
    return Thing("shape", position, x, y, radius, size=size, **look)


def _thing_of(found: Fit, row: int) -> tuple[Thing, ...]:
    if not found.found[row]:
        return ()
    best = found.best
    columns = (best.x, best.y, best.radius, best.color, best.pattern)
    return (_thing(int(best.form[row]), *(float(column[row]) for column in columns)),)


def _read(pictures: torch.Tensor) -> list[Reading]:
    scenes, view = see(pictures)
    single = fit(whole(), view)
    readings = [Reading(list(SCENES)[scene], _thing_of(single, row)) for row, scene in enumerate(scenes.tolist())]
    unclear = (single.left_over > FAINTEST).nonzero()[:, 0]
    if len(unclear):
        left, right = (fit(half(side), view.of(unclear)) for side in (-1, 1))
        better = left.left_over + right.left_over < PAIR_GAIN * single.left_over[unclear]
        for row in (left.found & right.found & better).nonzero()[:, 0].tolist():
            picture = int(unclear[row])
            readings[picture] = Reading(readings[picture].scene, _thing_of(left, row) + _thing_of(right, row))
    return readings
