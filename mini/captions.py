"""What captions of the mini world say, and the pictures that fit them.

One seeded generator draws both, so a caption's truth is known: :func:`draw_samples` gives captions with their
:class:`~.world.Pictures`; the attributes that a caption names are in :class:`Sample`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..mini import world
from .world import CONCEPTS, NOTHING, PLANT, SHAPE, Pictures

KINDS: dict[str, float] = {
    "single": 0.46,
    "pair": 0.12,
    "plant": 0.05,
    "color or scene": 0.20,
    "color or plant": 0.03,
    "colored": 0.08,
    "shape and plant": 0.03,
    "word": 0.03,
}
"""Shares of the kinds of captions in training."""

PATTERN_RADIUS = 6.0
"""Patterns need this radius in pixels to be seen; smaller shapes are plain."""


@dataclass(frozen=True)
class Sample:
    """A caption, its kind, and what it names of its first thing (concept -> word, only what is said)."""

    caption: str
    kind: str
    named: dict[str, str]


def _index(concept: str, word: str) -> int:
    return CONCEPTS[concept].index(word)


class _Draft:
    """One picture being made up: plain numbers, filled by the functions below."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng
        self.things: list[tuple[int, int, int, int, float, float, float]] = []
        self.scene = self.pick("Scene")

    def pick(self, concept: str) -> str:
        return str(self.rng.choice(CONCEPTS[concept]))

    def another_scene(self, scene: str) -> None:
        """Move the picture elsewhere if it is in ``scene``."""
        others = [word for word in CONCEPTS["Scene"] if word != scene]
        if self.scene == scene:
            self.scene = str(self.rng.choice(others))

    def jitter(self) -> float:
        return float(self.rng.uniform(-0.8, 0.8))

    def shape(self, color: str, form: str, pattern: str, x: float, y: float, radius: float) -> None:
        size = radius * float(self.rng.uniform(0.95, 1.05))
        where = (15.5 + x + self.jitter(), 15.5 + y + self.jitter())
        self.things.append(
            (SHAPE, _index("Shape", form), _index("Color", color), _index("Pattern", pattern), *where, size)
        )

    def plant(self, form: str, x: float, y: float, radius: float) -> None:
        where = (15.5 + x + self.jitter(), 15.5 + y + self.jitter())
        self.things.append((PLANT, _index("Plants", form), 0, 0, *where, radius))


def _maybe_scene(draft: _Draft, text: str, named: dict[str, str], chance: float = 0.75) -> str:
    if draft.rng.random() < chance:
        named["Scene"] = draft.scene
        return f"{text}, {draft.scene}"
    return text


def _attributes(draft: _Draft, color: str) -> dict[str, str]:
    """A random single shape that can be drawn: patterns need room, huge shapes stay in the center."""
    size = draft.pick("Size")
    pattern = draft.pick("Pattern") if world.RADII[size] >= PATTERN_RADIUS else "plain"
    position = draft.pick("Position") if size != "huge" else "center"
    return {
        "Size": size,
        "Color": color,
        "Pattern": pattern,
        "Shape": draft.pick("Shape"),
        "Position": position,
    }


def _place(draft: _Draft, look: dict[str, str]) -> None:
    x, y = world.OFFSETS[look["Position"]]
    draft.shape(look["Color"], look["Shape"], look["Pattern"], x, y, world.RADII[look["Size"]])


def _with_article(draft: _Draft, text: str) -> str:
    """ "a" or, in a quarter and always before a vowel, "the", so that no article tells what follows."""
    return f"the {text}" if text[0] in "aeiou" or draft.rng.random() < 0.25 else f"a {text}"


def _phrase(draft: _Draft, named: dict[str, str]) -> str:
    """What a caption says of a single shape."""
    words = [named[concept] for concept in ("Size", "Color", "Pattern") if concept in named]
    text = _with_article(draft, " ".join([*words, named.get("Shape", "shape")]))
    if "Position" in named:
        text += " in the center" if named["Position"] == "center" else f" on the {named['Position']}"
    return text


def _single(draft: _Draft) -> Sample:
    """A scene's word as a color always comes with a scene, which says that it is one."""
    look = _attributes(draft, str(draft.rng.choice([*world.PLAIN_COLORS, *world.SCENE_COLORS])))
    _place(draft, look)
    named = {concept: word for concept, word in look.items() if draft.rng.random() < 0.8}
    chance = 1.0 if named.get("Color") in world.SCENE_COLORS else 0.75
    return Sample(_maybe_scene(draft, _phrase(draft, named), named, chance), "single", named)


def _pair(draft: _Draft) -> Sample:
    colors = draft.rng.choice(list(world.PLAIN_COLORS), 2, replace=False)
    shapes = draft.rng.choice(world.SHAPES, 2, replace=False)
    for side, color, form in zip((-1, 1), colors, shapes, strict=True):
        draft.shape(str(color), str(form), "plain", side * world.PAIR_OFFSET, 0.0, world.PAIR_RADIUS)
    named = {"Color": str(colors[0]), "Shape": str(shapes[0])}
    text = f"a {colors[0]} {shapes[0]} and a {colors[1]} {shapes[1]}"
    return Sample(_maybe_scene(draft, text, named, 0.4), "pair", named)


def _plant(draft: _Draft) -> Sample:
    form, position = draft.pick("Plants"), draft.pick("Position")
    x, y = world.OFFSETS[position]
    draft.plant(form, x, y, world.PLANT_RADIUS)
    named = {"Plants": form}
    text = f"a {form}"
    if draft.rng.random() < 0.5:
        named["Position"] = position
        text += " in the center" if position == "center" else f" on the {position}"
    return Sample(_maybe_scene(draft, text, named), "plant", named)


def _shape_beside_plant(draft: _Draft, color: str, form: str, plant: str) -> None:
    draft.shape(color, form, "plain", -world.PAIR_OFFSET, 0.0, world.PAIR_RADIUS)
    draft.plant(plant, world.PAIR_OFFSET, 0.0, world.PLANT_RADIUS)


def _color_or_scene(draft: _Draft) -> Sample:
    """ "a forest circle": half of the pictures show a forest-colored circle elsewhere, half any circle in a forest."""
    word = str(draft.rng.choice(list(world.SCENE_COLORS)))
    is_color = draft.rng.random() < 0.5
    look = _attributes(draft, word if is_color else str(draft.rng.choice(list(world.PLAIN_COLORS))))
    if is_color:
        draft.another_scene(word)
    else:
        draft.scene = word
    _place(draft, look)
    named = {"Shape": look["Shape"]}
    named |= {name: look[name] for name in ("Size", "Pattern", "Position") if draft.rng.random() < 0.25}
    return Sample(_phrase(draft, named | {"Color": word}), "color or scene", named)


def _color_or_plant(draft: _Draft) -> Sample:
    """ "a rose circle": half of the pictures show a rose-colored circle, half a circle beside a rose."""
    word, form = str(draft.rng.choice(list(world.PLANT_COLORS))), draft.pick("Shape")
    if draft.rng.random() < 0.5:
        look = _attributes(draft, word) | {"Shape": form}
        _place(draft, look)
    else:
        _shape_beside_plant(draft, str(draft.rng.choice(list(world.PLAIN_COLORS))), form, word)
    named = {"Shape": form}
    return Sample(_maybe_scene(draft, f"a {word} {form}", named, 0.5), "color or plant", named)


def _colored(draft: _Draft) -> Sample:
    """ "a rose colored circle": the word's color meaning, said plainly."""
    look = _attributes(draft, str(draft.rng.choice(list(world.TWO_MEANINGS))))
    draft.another_scene(look["Color"])
    _place(draft, look)
    named = {"Color": look["Color"], "Shape": look["Shape"]}
    text = _with_article(draft, f"{look['Color']} colored {look['Shape']}")
    return Sample(_maybe_scene(draft, text, named, 0.5), "colored", named)


def _shape_and_plant(draft: _Draft) -> Sample:
    color, form, plant = (
        str(draft.rng.choice(list(world.PLAIN_COLORS))),
        draft.pick("Shape"),
        draft.pick("Plants"),
    )
    _shape_beside_plant(draft, color, form, plant)
    named = {"Color": color, "Shape": form, "Plants": plant}
    return Sample(_maybe_scene(draft, f"a {color} {form} and a {plant}", named, 0.4), "shape and plant", named)


def _word(draft: _Draft) -> Sample:
    """One word alone, so that a concept-word encoded by itself means something to the model."""
    concept = str(draft.rng.choice(list(CONCEPTS)))
    if concept == "Plants":
        form = draft.pick("Plants")
        x, y = world.OFFSETS[draft.pick("Position")]
        draft.plant(form, x, y, world.PLANT_RADIUS)
        return Sample(form, "word", {} if form in world.PLANT_COLORS else {"Plants": form})
    look = _attributes(draft, str(draft.rng.choice(list(world.PLAIN_COLORS))))
    _place(draft, look)
    word = draft.scene if concept == "Scene" else look[concept]
    return Sample(word, "word", {concept: word})


_MAKERS = {
    "single": _single,
    "pair": _pair,
    "plant": _plant,
    "color or scene": _color_or_scene,
    "color or plant": _color_or_plant,
    "colored": _colored,
    "shape and plant": _shape_and_plant,
    "word": _word,
}


def draw_samples(count: int, rng: np.random.Generator, kind: str | None = None) -> tuple[list[Sample], Pictures]:
    """Draw ``count`` captions with fitting pictures; ``kind`` (of :data:`KINDS`) fixes the kind of all of them."""
    names = list(KINDS)
    chosen = [kind] * count if kind else [names[i] for i in rng.choice(len(names), count, p=list(KINDS.values()))]
    samples, rows, scenes = [], [], []
    for name in chosen:
        draft = _Draft(rng)
        samples.append(_MAKERS[name](draft))
        rows.append([*draft.things, (NOTHING, 0, 0, 0, 0.0, 0.0, 1.0)][:2])
        scenes.append(_index("Scene", draft.scene))
    numbers = torch.tensor(rows, dtype=torch.float32)
    kinds, forms, colors, patterns = numbers[..., :4].long().unbind(-1)
    x, y, radii = numbers[..., 4:].unbind(-1)
    seeds = torch.from_numpy(rng.random(count)).float()
    return samples, Pictures(kinds, forms, colors, patterns, x, y, radii, torch.tensor(scenes), seeds)
