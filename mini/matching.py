"""Finding the thing that explains a picture best, by rendering things and comparing (analysis by synthesis).

Pixels far from the scene's colors are foreground. Silhouettes of all forms at all places and sizes are laid over it;
the forms that fit best are rendered in every color and pattern, moved and scaled a little, and compared with the
picture. Nothing is learned: everything comes from :mod:`.world`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, reduce

import torch
import torch.nn.functional as F

from .world import (
    COLORS,
    OUTLINE,
    PAIR_OFFSET,
    PAIR_RADIUS,
    PATTERNS,
    PLANT_RADIUS,
    PLANTS,
    SCENES,
    SHAPES,
    SIZE,
    cover,
    plant_layers,
    second_color,
    shape_distance,
)
from .world import _pattern_share as pattern_share

CENTER = (SIZE - 1) / 2
FORMS = len(SHAPES) + len(PLANTS)
"""Forms are numbered shapes first, then plants."""

FOREGROUND = 0.1
"""Distance in RGB (0..1) from the scene's colors at which a pixel is as likely thing as background."""

BORDER = 3
"""Width in pixels of the border by which scenes are told."""

STARRY = 0.16
"""Most that 5 x 5 pixels of a night have of the color of stars; where there is more, it is a thing's."""

FAINTEST = 1.0
"""Least squared distance from the scene, summed over all pixels, of a thing that can be seen."""

EXPLAINED = 0.5
"""A thing is found if its rendering explains more than this share of that sum."""

# Distances to all forms are tabulated once on FIELD x FIELD points over -REACH..REACH radii, outlines included.
FIELD, REACH = 128, 1.75

RADIUS_GRID = (3.8, 4.3, 5.2, 5.8, 6.3, 7.3, 8.6, 9.4, 10.5, 11.8, 13.0)
ROUGH_STEPS, FINE_STEPS = (0.5,), (0.7, 0.35, 0.2)
"""Pixels by which silhouettes and then renderings are moved and scaled, in turn."""

SILHOUETTE_ERRORS = (-0.9, -0.2, 0.7)
"""What to add to radii of shapes found by silhouettes: an outline's half covered pixels look like foreground, and an
outline in the scene's colors does not."""

ShiftedPattern = tuple[int, int, int]
"""A pattern by number, and the pixels by which it is shifted to the right and down."""

DRAWN_PATTERNS: tuple[ShiftedPattern, ...] = tuple((kind, 0, 0) for kind in range(len(PATTERNS)))
PERIODS = {"plain": (1, 1), "striped": (1, 5), "dotted": (4, 4), "checkered": (6, 6)}
"""Pixels across and down after which patterns repeat."""

ALL_PATTERNS: tuple[ShiftedPattern, ...] = tuple(
    (kind, dx, dy)
    for kind, name in enumerate(PATTERNS)
    for dx in range(PERIODS[name][0])
    for dy in range(PERIODS[name][1])
)
"""A pattern is what it is wherever it begins."""

CANDIDATES, FINALISTS = 4, 2
"""So many shapes and all plants are rendered where their silhouettes fit, so many of each moved and scaled then."""


@dataclass
class View:
    """B pictures and the pictures nearest to them of nothing but their scenes, [B, 3, P], at pixels x, y [P]."""

    pictures: torch.Tensor
    background: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor

    def of(self, rows: torch.Tensor) -> View:
        """The view of some of the pictures."""
        return View(self.pictures[rows], self.background[rows], self.x, self.y)

    def within(self, pixels: torch.Tensor) -> View:
        """The view of some of the pixels."""
        return View(self.pictures[:, :, pixels], self.background[:, :, pixels], self.x[pixels], self.y[pixels])

    def foreign(self) -> torch.Tensor:
        """Squared distances [B, P] from the scenes."""
        return ((self.pictures - self.background) ** 2).sum(1)


@dataclass
class Guesses:
    """N guesses of one thing each, ``picture`` being the row of the picture that each is about.

    ``color`` and ``pattern`` are those that fit a shape best, ``error`` tells how badly: judging fills all three.
    """

    picture: torch.Tensor
    form: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    radius: torch.Tensor
    color: torch.Tensor
    pattern: torch.Tensor
    error: torch.Tensor

    def __getitem__(self, rows: torch.Tensor) -> Guesses:
        return Guesses(*(getattr(self, field.name)[rows] for field in fields(self)))

    def by_form(self) -> Iterator[tuple[int, torch.Tensor, Guesses]]:
        """Every form that occurs, its rows and the guesses there."""
        for form in self.form.unique().tolist():
            rows = (self.form == form).nonzero()[:, 0]
            yield form, rows, self[rows]

    def moved(self, dx: float, dy: float, dr: float) -> Guesses:
        """Things elsewhere and larger by ``dr``; plants have one size."""
        return replace(self, x=self.x + dx, y=self.y + dy, radius=self.radius + dr * (self.form < len(SHAPES)))

    def or_better(self, other: Guesses) -> Guesses:
        """Guess by guess the one of less error."""
        better = other.error < self.error
        pairs = ((getattr(other, field.name), getattr(self, field.name)) for field in fields(self))
        return Guesses(*(torch.where(better, *pair) for pair in pairs))

    def best(self, count: int) -> Guesses:
        """The ``count`` guesses of least error about every picture; all pictures have equally many, in order."""
        errors = self.error.view(int(self.picture[-1]) + 1, -1)
        rows = errors.topk(count, largest=False).indices + torch.arange(len(errors))[:, None] * errors.shape[1]
        return self[rows.flatten()]

    def beside(self, other: Guesses) -> Guesses:
        """These and other guesses about the same pictures, in their order."""
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        both = Guesses(*(torch.cat(pair) for pair in pairs))
        return both[both.picture.argsort(stable=True)]

    def climb(self, judge: Callable[[Guesses], Guesses], steps: Sequence[float]) -> Guesses:
        """Move and scale by steps where that lessens the error."""
        best = self
        for step in steps:
            for move in ((step, 0, 0), (-step, 0, 0), (0, step, 0), (0, -step, 0), (0, 0, step), (0, 0, -step)):
                best = best.or_better(judge(best.moved(*move)))
        return best


@dataclass
class Table:
    """Silhouettes [K, P] of ``things`` in the order of their forms, at the picture's ``pixels`` [P]."""

    silhouettes: torch.Tensor
    things: Guesses
    pixels: torch.Tensor


@dataclass
class Fit:
    """The thing that explains each of B pictures best.

    ``strange`` is the squared distance from the scene that wants explaining, ``left_over`` the part that the thing
    leaves; both are without the pixels' noise.
    """

    best: Guesses
    strange: torch.Tensor
    left_over: torch.Tensor

    @property
    def found(self) -> torch.Tensor:
        """Whether there is anything, and the thing explains it: [B]."""
        return (self.strange > FAINTEST) & (self.left_over < (1 - EXPLAINED) * self.strange)


def see(pictures: torch.Tensor) -> tuple[torch.Tensor, View]:
    """Scenes [B] of pictures [B, 3, 32, 32] by their borders (whose colors and blends are nearest), and their view."""
    pictures = pictures.flatten(2)
    x, y = _pixels()
    ends = torch.tensor(list(SCENES.values())) / 255
    ground, along = ends[:, 0, :, None], (ends[:, 1] - ends[:, 0])[:, :, None]
    share = ((pictures[:, None] - ground) * along).sum(2, keepdim=True) / (along**2).sum(1, keepdim=True)
    share = share.clamp(0, 1)
    night = share[:, list(SCENES).index("night"), 0].unflatten(-1, (SIZE, SIZE))
    night[F.avg_pool2d(night, 5, 1, 2, count_include_pad=False) > STARRY] = 0
    nearest = ground + along * share
    distance = ((pictures[:, None] - nearest) ** 2).sum(2)
    border = torch.maximum((x - CENTER).abs(), (y - CENTER).abs()) > CENTER - BORDER
    scene = distance[:, :, border].clamp(max=(4 * FOREGROUND) ** 2).mean(-1).argmin(-1)
    return scene, View(pictures, nearest[torch.arange(len(scene)), scene], x, y)


@cache
def whole() -> Table:
    """One thing in any of the positions."""
    reach = range(-10, 11)
    places = [(x, y) for x in reach for y in reach if min(abs(x), abs(y)) <= 3]
    return _table(places, RADIUS_GRID, torch.arange(SIZE * SIZE))


@cache
def half(side: int) -> Table:
    """One thing of a pair in the left (-1) or the right (1) half, which is all that counts."""
    places = [(side * (PAIR_OFFSET + x), y) for x in range(-3, 4) for y in range(-4, 5)]
    radii = [radius for radius in RADIUS_GRID if radius < 1.3 * PAIR_RADIUS]
    return _table(places, radii, ((_pixels()[0] - CENTER) * side > 0).nonzero()[:, 0])


def fit(table: Table, pictures: View) -> Fit:
    """The thing of a table's kind that explains each picture best."""
    view = pictures.within(table.pixels)
    foreign = view.foreign()
    evidence = (foreign.sqrt() / FOREGROUND - 1).clamp(-1, 1)

    def by_silhouette(guesses: Guesses) -> Guesses:
        error = torch.empty_like(guesses.error)
        for form, rows, part in guesses.by_form():
            error[rows] = -(_silhouette(form, part, view.x, view.y) * evidence[part.picture]).sum(-1)
        return replace(guesses, error=error)

    def by_colors(guesses: Guesses) -> Guesses:
        return _rendered(guesses, view)

    rough = by_silhouette(_candidates(table, evidence)).climb(by_silhouette, ROUGH_STEPS)
    shape = rough.form < len(SHAPES)
    shapes = reduce(Guesses.or_better, (by_colors(rough[shape].moved(0, 0, more)) for more in SILHOUETTE_ERRORS))
    finalists = shapes.best(FINALISTS).beside(by_colors(rough[~shape]).best(FINALISTS))
    best = _rendered(finalists.climb(by_colors, FINE_STEPS), view, ALL_PATTERNS).best(1)
    noise = foreign.where(foreign < (1.5 * FOREGROUND) ** 2, 0).sum(-1)
    return Fit(best, foreign.sum(-1) - noise, (best.error - noise).clamp(min=0))


def _candidates(table: Table, evidence: torch.Tensor) -> Guesses:
    """Shapes whose silhouettes agree best with evidence [B, P] of foreground, and all plants, each where it does."""
    sizes = table.things.form.bincount()
    per_form = [part.max(-1) for part in (evidence @ table.silhouettes.T).split(sizes.tolist(), -1)]
    agreement = torch.stack([best for best, _ in per_form], -1)
    rows = torch.stack([place for _, place in per_form], -1) + sizes.cumsum(0) - sizes
    shapes = agreement[:, : len(SHAPES)].topk(CANDIDATES).indices
    chosen = torch.cat([rows.gather(-1, shapes), rows[:, len(SHAPES) :]], -1)
    picture = torch.arange(len(evidence)).repeat_interleave(chosen.shape[1])
    return replace(table.things[chosen.flatten()], picture=picture)


def _rendered(guesses: Guesses, view: View, patterns: Sequence[ShiftedPattern] = DRAWN_PATTERNS) -> Guesses:
    """Guesses in their best colors and patterns, with the squared errors that these leave."""
    color, pattern, error = guesses.color.clone(), guesses.pattern.clone(), torch.empty_like(guesses.error)
    for form, rows, part in guesses.by_form():
        behind, wanted = view.background[part.picture], view.pictures[part.picture]
        distances = _distances(form, part, view.x, view.y)
        if form < len(SHAPES):
            shares = _pattern_shares(patterns, view.x - part.x[:, None], view.y - part.y[:, None])
            errors = _shape_errors(distances[0], shares, behind, wanted)
            error[rows], best = errors.flatten(1).min(-1)
            kinds = torch.tensor([kind for kind, _, _ in patterns])
            pattern[rows], color[rows] = kinds[best // len(COLORS)], best % len(COLORS)
        else:
            for distance, paint in zip(distances, _plant_colors(form), strict=True):
                behind = behind + (paint[:, None] - behind) * cover(distance)[:, None]
            error[rows] = ((wanted - behind) ** 2).sum((1, 2))
    return replace(guesses, color=color, pattern=pattern, error=error)


def _shape_errors(
    distance: torch.Tensor, shares: torch.Tensor, behind: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    """Squared errors [N, patterns, colors] of shapes at signed distances [N, P] before ``behind`` [N, 3, P].

    A picture is linear in its colors, so inner products of the maps that they fill are enough for all of them.
    """
    outer, inner = cover(distance - OUTLINE), cover(distance + OUTLINE)
    second = inner[:, None] * shares
    line = (outer * (1 - inner))[:, None] * (1 - second)
    maps = torch.stack([line, inner[:, None] - second, second], 2)
    rest = wanted - behind * (1 - outer)[:, None]
    colors = _shape_colors()
    products = torch.einsum("npkx,nrx,ckr->npc", maps, rest, colors)
    squares = torch.einsum("npkx,nplx,ckr,clr->npc", maps, maps, colors, colors)
    return (rest**2).sum((1, 2))[:, None, None] - 2 * products + squares


def _pattern_shares(patterns: Sequence[ShiftedPattern], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Shares [N, patterns, P] of the second color at offsets x, y [N, P] from things' middles."""
    return torch.stack([pattern_share(kind, x - dx, y - dy) for kind, dx, dy in patterns], 1)


@cache
def _pixels() -> tuple[torch.Tensor, torch.Tensor]:
    axis = torch.arange(SIZE, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return x.flatten(), y.flatten()


@cache
def _shape_colors() -> torch.Tensor:
    """Outline, base and second color of shapes: [13 colors, 3, 3]."""
    base = torch.tensor(list(COLORS.values())) / 255
    outline = torch.where(base.sum(-1, keepdim=True) < 0.3, torch.tensor(0.78), torch.tensor(0.08))
    return torch.stack([outline.expand(-1, 3), base, second_color(base)], 1)


@cache
def _plant_colors(form: int) -> torch.Tensor:
    """Colors of the parts of a plant: [parts, 3]."""
    nowhere = torch.zeros(1)
    return torch.tensor([color for _, color in plant_layers(form - len(SHAPES), nowhere, nowhere)]) / 255


@cache
def _field(form: int) -> torch.Tensor:
    """Signed distances in radii to the parts of a form: [parts, FIELD, FIELD]."""
    axis = torch.linspace(-REACH, REACH, FIELD)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    if form < len(SHAPES):
        return shape_distance(form, x, y)[None]
    return torch.stack([distance for distance, _ in plant_layers(form - len(SHAPES), x, y)])


def _distances(form: int, things: Guesses, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Signed distances in pixels to the parts of things of one form, at pixels x, y [P]: [parts, N, P]."""
    grid = torch.stack([x - things.x[:, None], y - things.y[:, None]], -1) / (things.radius[:, None, None] * REACH)
    sampled = F.grid_sample(_field(form)[None], grid[None], padding_mode="border", align_corners=True)[0]
    return sampled * things.radius[:, None]


def _silhouette(form: int, things: Guesses, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Share [N, P] of the pixels that things of one form cover, shapes with their outlines."""
    distance = _distances(form, things, x, y).amin(0)
    return cover(distance - OUTLINE if form < len(SHAPES) else distance)


def _table(places: Sequence[tuple[float, float]], radii: Sequence[float], pixels: torch.Tensor) -> Table:
    """All forms at the places (offsets from the center); radii that only "huge" has stay near the center."""
    rows = torch.tensor(
        [
            (form, CENTER + x, CENTER + y, radius)
            for form in range(FORMS)
            for radius in (radii if form < len(SHAPES) else (PLANT_RADIUS,))
            for x, y in places
            if radius < 10 or max(abs(x), abs(y)) <= 3
        ]
    )
    form, nothing = rows[:, 0].long(), torch.zeros(len(rows))
    x, y, radius = rows[:, 1:].unbind(-1)
    things = Guesses(nothing.long(), form, x, y, radius, nothing.long(), nothing.long(), nothing)
    x, y = (axis[pixels] for axis in _pixels())
    silhouettes = [_silhouette(number, part, x, y) for number, _, part in things.by_form()]
    return Table(torch.cat(silhouettes), things, pixels)
