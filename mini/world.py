"""The world of HRV-mini: 32 x 32 pictures of shapes and potted plants, drawn from signed distances.

A picture is a scene (textured background) with one or two things in it. A thing is a shape with a color, a pattern and
a size, or a potted plant. Everything that a caption can say is in :data:`CONCEPTS`, and every picture's truth is the
:class:`Pictures` record that it was drawn from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import product

import torch

SIZE = 32
"""Side of a picture in pixels."""

PLAIN_COLORS: dict[str, tuple[int, int, int]] = {
    "red": (225, 35, 40),
    "yellow": (250, 225, 40),
    "green": (40, 190, 60),
    "blue": (40, 60, 230),
    "white": (255, 255, 255),
    "black": (12, 12, 12),
    "turquoise": (40, 205, 205),
}
PLANT_COLORS: dict[str, tuple[int, int, int]] = {
    "rose": (250, 130, 175),
    "violet": (150, 70, 215),
    "mint": (165, 245, 190),
}
SCENE_COLORS: dict[str, tuple[int, int, int]] = {
    "forest": (0, 108, 35),
    "ocean": (0, 85, 150),
    "desert": (228, 133, 45),
}
"""Shades apart from all other colors and from the scenes of the same names."""

TWO_MEANINGS = PLANT_COLORS | SCENE_COLORS
"""Words that name a color and a plant, or a color and a scene; before a shape a caption leaves open which is meant."""

COLORS = PLAIN_COLORS | TWO_MEANINGS
SHAPES = ("circle", "square", "triangle", "star", "cross", "crescent")
PATTERNS = ("plain", "striped", "dotted", "checkered")
RADII: dict[str, float] = {"tiny": 4.0, "small": 6.0, "large": 9.0, "huge": 12.5}
OFFSETS: dict[str, tuple[float, float]] = {
    "center": (0.0, 0.0),
    "left": (-7.0, 0.0),
    "right": (7.0, 0.0),
    "top": (0.0, -7.0),
    "bottom": (0.0, 7.0),
}
SCENES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "day": ((150, 190, 225), (188, 214, 236)),
    "night": (((38, 38, 92)), (196, 190, 150)),
    "snow": ((205, 212, 224), (178, 188, 206)),
    "desert": ((205, 170, 120), (184, 148, 100)),
    "forest": ((52, 84, 58), (36, 62, 44)),
    "ocean": ((60, 110, 140), (82, 134, 162)),
}
"""Ground and texture color of every scene."""
PLANTS = ("cactus", "tulip", "fern", "sunflower", "bamboo", *PLANT_COLORS)

CONCEPTS: dict[str, tuple[str, ...]] = {
    "Color": tuple(COLORS),
    "Shape": SHAPES,
    "Pattern": PATTERNS,
    "Size": tuple(RADII),
    "Position": tuple(OFFSETS),
    "Scene": tuple(SCENES),
    "Plants": PLANTS,
}

POT_COLOR = (150, 78, 40)
STEM_COLOR = (30, 120, 40)
PLANT_RADIUS = 7.0
PAIR_RADIUS = 6.0
PAIR_OFFSET = 7.75
NOTHING, SHAPE, PLANT = 0, 1, 2
OUTLINE = 0.6
"""A shape's outline reaches this many pixels in and out."""


@dataclass
class Pictures:
    """The truth of B pictures; ``kind`` .. ``radius`` are [B, 2] (up to two things), the rest [B].

    ``kind`` is NOTHING, SHAPE or PLANT; ``form`` indexes SHAPES or PLANTS; ``color``, ``pattern`` index their words
    (shapes only); ``x``, ``y``, ``radius`` are pixels; ``scene`` indexes SCENES; ``seed`` moves the scene's texture.
    """

    kind: torch.Tensor
    form: torch.Tensor
    color: torch.Tensor
    pattern: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    radius: torch.Tensor
    scene: torch.Tensor
    seed: torch.Tensor

    def __len__(self) -> int:
        return self.scene.shape[0]

    def __getitem__(self, rows: slice | torch.Tensor) -> Pictures:
        return Pictures(*(getattr(self, field.name)[rows] for field in fields(self)))


def _rgb(color: tuple[int, int, int]) -> torch.Tensor:
    return torch.tensor(color, dtype=torch.float32) / 255


def _capsule(x: torch.Tensor, y: torch.Tensor, ends: tuple[float, float, float, float], width: float) -> torch.Tensor:
    """Signed distance to a segment (x0, y0, x1, y1) of half-width ``width``."""
    x0, y0, x1, y1 = ends
    dx, dy = x1 - x0, y1 - y0
    along = (((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
    return torch.hypot(x - x0 - along * dx, y - y0 - along * dy) - width


def _ellipse(x: torch.Tensor, y: torch.Tensor, cx: float, cy: float, rx: float, ry: float) -> torch.Tensor:
    """Approximate signed distance to an axis-aligned ellipse (exact on its outline)."""
    return (torch.hypot((x - cx) / rx, (y - cy) / ry) - 1) * min(rx, ry)


def _polygon(x: torch.Tensor, y: torch.Tensor, corners: list[tuple[float, float]]) -> torch.Tensor:
    """Signed distance to a simple polygon with corners in order (even-odd rule)."""
    distance = torch.full_like(x, torch.inf)
    inside = torch.zeros_like(x, dtype=torch.bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        distance = torch.minimum(distance, _capsule(x, y, (x0, y0, x1, y1), 0.0))
        if y0 != y1:
            crosses = ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
            inside ^= crosses
    return torch.where(inside, -distance, distance)


def _star_corners() -> list[tuple[float, float]]:
    angles = torch.arange(10) * torch.pi / 5 - torch.pi / 2
    radii = [1.1 if corner % 2 == 0 else 0.48 for corner in range(10)]
    return [(r * float(a.cos()), r * float(a.sin()) + 0.06) for r, a in zip(radii, angles, strict=True)]


def shape_distance(form: int, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Signed distance (in radii) to shape ``SHAPES[form]`` of radius 1 at the origin; any broadcastable shape."""
    name = SHAPES[form]
    if name == "circle":
        return torch.hypot(x, y) - 0.95
    if name == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.84
    if name == "triangle":
        return _polygon(x, y, [(0.0, -1.0), (1.05, 0.85), (-1.05, 0.85)])
    if name == "star":
        return _polygon(x, y, _star_corners())
    if name == "cross":
        bar = torch.maximum(x.abs() - 1.0, y.abs() - 0.36)
        return torch.minimum(bar, torch.maximum(x.abs() - 0.36, y.abs() - 1.0))
    outer = torch.hypot(x, y) - 1.0
    return torch.maximum(outer, 0.80 - torch.hypot(x - 0.52, y))


def _pattern_share(pattern: int, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Share [..., in 0..1] of the second color at pixel offsets x, y from the thing's middle."""
    name = PATTERNS[pattern]
    if name == "plain":
        return torch.zeros_like(x)
    if name == "striped":
        return (torch.sin(y * (2 * torch.pi / 5.0)) * 2.5 + 0.5).clamp(0, 1)
    if name == "dotted":
        near = torch.hypot((x + 2.0) % 4.0 - 2.0, (y + 2.0) % 4.0 - 2.0)
        return (1.9 - near).clamp(0, 1)
    wave = torch.sin(x * (torch.pi / 3.0)) * torch.sin(y * (torch.pi / 3.0))
    return (wave * 4 + 0.5).clamp(0, 1)


def second_color(color: torch.Tensor) -> torch.Tensor:
    """The pattern's second color for base colors [..., 3] in 0..1: lighter for dark colors, darker for light ones."""
    light = color.mean(-1, keepdim=True) > 0.55
    return torch.where(light, color * 0.42, color * 0.25 + 0.75)


def _scene_layer(scene: int, seed: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Share of the texture color [B, H, W] of one scene; ``seed`` [B] in 0..1 moves the texture."""
    s = seed[:, None, None]
    name = list(SCENES)[scene]
    if name == "day":
        return (torch.sin((y + 32 * s) * 0.35 + torch.sin(x * 0.2 + 9 * s)) * 2).clamp(0, 1)
    if name == "night":
        return (1.3 - torch.hypot((x + 19 * s + 3 * torch.floor(y / 8)) % 9 - 4.5, y % 8 - 4)).clamp(0, 1)
    if name == "snow":
        return (
            1.6 - torch.hypot((x + 11 * s) % 6 - 3, (y + 17 * s + 3 * torch.floor((x + 11 * s) / 6)) % 6 - 3)
        ).clamp(0, 1)
    if name == "desert":
        return (torch.sin(y * 0.75 + 2 * torch.sin(x * 0.22 + 20 * s)) * 2).clamp(0, 1)
    if name == "forest":
        return (torch.sin((x + 13 * s) * 0.9) * 2.5).clamp(0, 1)
    return (torch.sin(y * 1.5 + torch.sin(x * 0.6 + 15 * s) * 1.2) * 2).clamp(0, 1)


def _paint(picture: torch.Tensor, color: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Blend ``color`` [B, 3] or [3] over ``picture`` [B, 3, H, W] by ``share`` [B, H, W]."""
    color = color.expand(picture.shape[0], 3)[:, :, None, None]
    return picture + (color - picture) * share[:, None]


def _plant_parts(  # noqa: C901 - one branch a plant
    name: str, x: torch.Tensor, y: torch.Tensor
) -> list[tuple[torch.Tensor, tuple[int, int, int]]]:
    """(signed distance, color) of a plant's parts, back to front; coordinates in radii, pot at the bottom."""
    stem = _capsule(x, y, (0.0, 0.6, 0.0, -0.3), 0.09)
    leaf = torch.minimum(_ellipse(x, y, 0.28, 0.25, 0.26, 0.13), _ellipse(x, y, -0.28, 0.1, 0.26, 0.13))
    stalk = [(stem, STEM_COLOR), (leaf, STEM_COLOR)]
    if name == "cactus":
        arm = torch.minimum(
            _capsule(x, y, (0.0, 0.2, 0.55, 0.05), 0.15), _capsule(x, y, (0.55, 0.05, 0.55, -0.4), 0.15)
        )
        other = torch.minimum(
            _capsule(x, y, (0.0, 0.0, -0.5, -0.1), 0.14), _capsule(x, y, (-0.5, -0.1, -0.5, -0.55), 0.14)
        )
        body = _capsule(x, y, (0.0, 0.6, 0.0, -0.75), 0.26)
        return [(torch.minimum(body, torch.minimum(arm, other)), (70, 150, 80))]
    if name == "tulip":
        cup = _polygon(
            x,
            y,
            [
                (-0.5, -1.0),
                (-0.24, -0.66),
                (0.0, -1.0),
                (0.24, -0.66),
                (0.5, -1.0),
                (0.34, -0.12),
                (-0.34, -0.12),
            ],
        )
        return [*stalk, (cup, (215, 45, 60))]
    if name == "fern":
        fronds = _capsule(x, y, (0.0, 0.6, 0.0, -0.9), 0.08)
        for side in (-1.0, 1.0):
            for reach, height in ((0.85, 0.05), (0.6, -0.6)):
                fronds = torch.minimum(fronds, _capsule(x, y, (0.0, 0.5, side * reach, height), 0.08))
        return [(fronds, (95, 165, 45))]
    if name == "sunflower":
        return [
            *stalk,
            (torch.hypot(x, y + 0.5) - 0.56, (245, 185, 20)),
            (torch.hypot(x, y + 0.5) - 0.26, (95, 55, 25)),
        ]
    if name == "bamboo":
        canes = torch.minimum(
            _capsule(x, y, (-0.38, 0.6, -0.38, -0.8), 0.11), _capsule(x, y, (0.38, 0.6, 0.38, -0.6), 0.11)
        )
        return [(torch.minimum(canes, _capsule(x, y, (0.0, 0.6, 0.0, -1.0), 0.11)), (175, 200, 90))]
    blossom = PLANT_COLORS[name]
    if name == "rose":
        return [
            *stalk,
            (torch.hypot(x, y + 0.52) - 0.5, blossom),
            ((torch.hypot(x, y + 0.52) - 0.24).abs() - 0.07, (195, 50, 105)),
        ]
    if name == "violet":
        petals = torch.full_like(x, torch.inf)
        for turn in range(5):
            angle = torch.tensor(turn * 2 * torch.pi / 5 - torch.pi / 2)
            petals = torch.minimum(petals, torch.hypot(x - 0.38 * angle.cos(), y + 0.5 - 0.38 * angle.sin()) - 0.25)
        return [*stalk, (petals, blossom), (torch.hypot(x, y + 0.5) - 0.16, (250, 215, 60))]
    leaves = _ellipse(x, y, 0.0, -0.85, 0.2, 0.26)
    for side in (-1.0, 1.0):
        for height in (-0.5, 0.0):
            leaves = torch.minimum(leaves, _ellipse(x, y, side * 0.4, height, 0.34, 0.2))
    return [(stem, STEM_COLOR), (leaves, blossom)]


def plant_layers(form: int, x: torch.Tensor, y: torch.Tensor) -> list[tuple[torch.Tensor, tuple[int, int, int]]]:
    """(signed distance in radii, color) of the parts of ``PLANTS[form]`` with its pot, back to front."""
    pot = _polygon(x, y, [(-0.5, 0.5), (0.5, 0.5), (0.36, 1.05), (-0.36, 1.05)])
    return [*_plant_parts(PLANTS[form], x, y), (pot, POT_COLOR)]


@dataclass(frozen=True)
class _Things:
    """All things of one kind and form in one slot of B pictures.

    ``rows`` [R] are the pictures that have one, ``x``, ``y`` [R, 32, 32] pixels from its middle, ``radius`` [R, 1, 1].
    """

    slot: int
    kind: int
    form: int
    rows: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    radius: torch.Tensor

    def shape(self) -> torch.Tensor:
        """Signed distance in pixels [R, 32, 32] to a shape's edge."""
        return shape_distance(self.form, self.x / self.radius, self.y / self.radius) * self.radius

    def plant(self) -> list[tuple[torch.Tensor, tuple[int, int, int]]]:
        """(signed distance in pixels [R, 32, 32], color) of a plant's parts, back to front."""
        layers = plant_layers(self.form, self.x / self.radius, self.y / self.radius)
        return [(distance * self.radius, color) for distance, color in layers]


def _things(pictures: Pictures) -> Iterator[_Things]:
    """The things of B pictures, back to front."""
    axis = torch.arange(SIZE, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    for slot, (kind, forms) in product((0, 1), ((SHAPE, SHAPES), (PLANT, PLANTS))):
        for form in range(len(forms)):
            rows = ((pictures.kind[:, slot] == kind) & (pictures.form[:, slot] == form)).nonzero()[:, 0]
            if len(rows):
                places = (column[rows, slot, None, None] for column in (pictures.x, pictures.y, pictures.radius))
                middle_x, middle_y, radius = places
                yield _Things(slot, kind, form, rows, x - middle_x, y - middle_y, radius)


def thing_distance(pictures: Pictures) -> torch.Tensor:
    """Signed distance in pixels [B, 32, 32] to the nearest thing with its outline; infinite where there is none."""
    nearest = torch.full((len(pictures), SIZE, SIZE), torch.inf)
    for things in _things(pictures):
        parts = [things.shape() - OUTLINE] if things.kind == SHAPE else [part for part, _ in things.plant()]
        nearest[things.rows] = torch.stack([nearest[things.rows], *parts]).amin(0)
    return nearest


def cover(distance: torch.Tensor) -> torch.Tensor:
    """Share of a pixel covered at a signed distance in pixels."""
    return (0.5 - distance).clamp(0, 1)


def _paint_shapes(body: torch.Tensor, things: _Things, color: torch.Tensor, pattern: torch.Tensor) -> torch.Tensor:
    """Shapes of base colors [R, 3] and patterns [R] over pictures [R, 3, 32, 32]."""
    distance = things.shape()
    share = torch.zeros_like(distance)
    for index in range(1, len(PATTERNS)):
        share = torch.where((pattern == index)[:, None, None], _pattern_share(index, things.x, things.y), share)
    # A thin outline keeps every color apart from every scene; black gets a light one.
    outline = torch.where(color.sum(-1, keepdim=True) < 0.3, torch.tensor(0.78), torch.tensor(0.08))
    body = _paint(body, outline.expand(-1, 3), cover(distance - OUTLINE))
    inner = cover(distance + OUTLINE)
    body = _paint(body, color, inner)
    return _paint(body, second_color(color), inner * share)


def draw(pictures: Pictures) -> torch.Tensor:
    """Draw B pictures: float32 [B, 3, 32, 32], RGB in 0..1."""
    count = len(pictures)
    axis = torch.arange(SIZE, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    canvas = torch.zeros(count, 3, SIZE, SIZE)
    for scene, (ground, texture) in enumerate(SCENES.values()):
        rows = (pictures.scene == scene).nonzero()[:, 0]
        if len(rows):
            flat = _rgb(ground)[None, :, None, None].expand(len(rows), 3, SIZE, SIZE)
            canvas[rows] = _paint(flat, _rgb(texture), _scene_layer(scene, pictures.seed[rows], x, y))
    palette = torch.stack([_rgb(color) for color in COLORS.values()])
    for things in _things(pictures):
        rows, slot = things.rows, things.slot
        body = canvas[rows]
        if things.kind == SHAPE:
            body = _paint_shapes(body, things, palette[pictures.color[rows, slot]], pictures.pattern[rows, slot])
        else:
            for distance, part in things.plant():
                body = _paint(body, _rgb(part), cover(distance))
        canvas[rows] = body
    return canvas.clamp(0, 1)
