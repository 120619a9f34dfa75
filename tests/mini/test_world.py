"""The drawn world: what captions say is what the renderer's records hold, and drawing depends on nothing else."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
import torch
from hrv_pack.mini.captions import KINDS, PATTERN_RADIUS, Sample, draw_samples
from hrv_pack.mini.latents import to_latents, to_pictures
from hrv_pack.mini.scorer import Reading, describe, meaning
from hrv_pack.mini.world import (
    COLORS,
    CONCEPTS,
    NOTHING,
    PAIR_OFFSET,
    PLANT,
    PLANT_COLORS,
    PLANTS,
    RADII,
    SCENE_COLORS,
    SCENES,
    SHAPE,
    SHAPES,
    SIZE,
    Pictures,
    draw,
    thing_distance,
)

WORDS = {word for words in CONCEPTS.values() for word in words}
SMALL_WORDS = {"a", "and", "in", "the", "on", "colored", "shape"}


def world(count: int, seed: int = 0, kind: str | None = None) -> tuple[list[Sample], Pictures]:
    return draw_samples(count, np.random.default_rng(seed), kind)


def words_of(caption: str) -> list[str]:
    return re.findall(r"[a-z]+", caption)


def changed(pictures: Pictures, **columns: torch.Tensor) -> Pictures:
    """A copy with other columns."""
    return Pictures(**{**vars(pictures), **columns})


def test_the_same_seed_gives_the_same_captions_and_pictures_and_another_gives_others() -> None:
    (samples, pictures), (again, same) = world(64), world(64)
    assert samples == again
    assert torch.equal(draw(pictures), draw(same))
    others, _ = world(64, seed=1)
    assert [sample.caption for sample in others] != [sample.caption for sample in samples]


@pytest.mark.parametrize("size", [1, 7, 64])
def test_drawing_in_parts_draws_the_same(size: int) -> None:
    _, pictures = world(128)
    parts = [draw(pictures[slice(start, start + size)]) for start in range(0, len(pictures), size)]
    assert torch.equal(torch.cat(parts), draw(pictures))


def test_the_order_of_pictures_does_not_matter() -> None:
    _, pictures = world(128)
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw(pictures[order]), draw(pictures)[order])


def test_pictures_are_rgb_between_0_and_1() -> None:
    drawn = draw(world(256)[1])
    assert drawn.shape == (256, 3, SIZE, SIZE)
    assert drawn.dtype == torch.float32
    assert bool(drawn.isfinite().all()) and 0 <= float(drawn.min()) < 0.1 < 0.95 < float(drawn.max()) <= 1


def test_a_thing_moved_by_a_pixel_moves_by_a_pixel() -> None:
    """Compared where the scene does not show through: there another scene makes no difference."""
    _, pictures = world(128, kind="single")
    pictures = changed(pictures, x=pictures.x * 0 + 15.3, y=pictures.y * 0 + 15.6)
    here = draw(pictures)
    moved = draw(changed(pictures, x=pictures.x + 1))
    covered = (draw(changed(pictures, scene=(pictures.scene + 1) % len(SCENES))) == here).all(1, keepdim=True)
    covered[..., -1] = False
    assert int(covered.sum()) > 20 * len(pictures)
    torch.testing.assert_close(
        moved.roll(-1, -1).where(covered, torch.tensor(0.0)), here.where(covered, torch.tensor(0.0)), atol=1e-4, rtol=0
    )


def test_things_are_drawn_where_their_distance_says() -> None:
    _, pictures = world(256)
    empty = changed(pictures, kind=torch.full_like(pictures.kind, NOTHING))
    painted = (draw(pictures) != draw(empty)).any(1)
    distance = thing_distance(pictures)
    assert not painted[distance >= 0.5].any()
    assert painted[distance < 0.49].all()


def test_a_larger_thing_covers_more() -> None:
    _, pictures = world(128, kind="single")
    pictures = changed(pictures, x=pictures.x * 0 + 15.5, y=pictures.y * 0 + 15.5)
    empty = draw(changed(pictures, kind=pictures.kind * 0))
    areas = []
    for radius in RADII.values():
        things = draw(changed(pictures, radius=torch.full_like(pictures.radius, radius)))
        areas.append(((things - empty).abs().sum(1) > 0).sum((1, 2)))
    assert all(bool((smaller < larger).all()) for smaller, larger in pairwise(areas))


def test_a_picture_of_nothing_is_its_scene_alone() -> None:
    _, pictures = world(64)
    nothing = changed(pictures, kind=pictures.kind * 0)
    other = changed(nothing, form=nothing.form * 0, color=nothing.color * 0, x=nothing.x + 3)
    assert torch.equal(draw(nothing), draw(other))
    ends = torch.tensor(list(SCENES.values()))[pictures.scene] / 255
    low, high = ends.amin(1)[:, :, None, None], ends.amax(1)[:, :, None, None]
    drawn = draw(nothing)
    assert bool(((drawn >= low - 1e-6) & (drawn <= high + 1e-6)).all())


def test_the_seed_of_a_picture_moves_nothing_but_its_texture() -> None:
    _, pictures = world(64, kind="single")
    drawn, moved = draw(pictures), draw(changed(pictures, seed=(pictures.seed + 0.4) % 1))
    covered = (draw(changed(pictures, scene=(pictures.scene + 1) % len(SCENES))) == drawn).all(1)
    difference = (drawn - moved).abs().amax(1)
    assert float(difference[covered].max()) < 1e-6
    assert float(difference.amax((1, 2)).min()) > 1e-3


def test_truth_is_in_range() -> None:
    _, pictures = world(2000)
    shape, plant = pictures.kind == SHAPE, pictures.kind == PLANT
    assert set(pictures.kind.unique().tolist()) == {NOTHING, SHAPE, PLANT}
    assert bool((pictures.kind[:, 0] != NOTHING).all())
    assert int(pictures.form.min()) == 0
    assert int(pictures.form[shape].max()) == len(SHAPES) - 1
    assert int(pictures.form[plant].max()) == len(PLANTS) - 1
    assert 0 <= int(pictures.color.min()) <= int(pictures.color.max()) == len(CONCEPTS["Color"]) - 1
    assert 0 <= int(pictures.pattern.min()) <= int(pictures.pattern.max()) == len(CONCEPTS["Pattern"]) - 1
    assert 0 <= int(pictures.scene.min()) <= int(pictures.scene.max()) == len(SCENES) - 1
    assert float(pictures.seed.min()) >= 0 and float(pictures.seed.max()) < 1
    things = shape | plant
    for column in (pictures.x, pictures.y):
        assert float((column[things] - (SIZE - 1) / 2).abs().max()) <= PAIR_OFFSET + 0.8 + 1e-4
    assert min(RADII.values()) * 0.95 - 1e-4 <= float(pictures.radius[shape].min())
    assert float(pictures.radius[shape].max()) <= max(RADII.values()) * 1.05 + 1e-4
    patterned = shape & (pictures.pattern > 0)
    assert float(pictures.radius[patterned].min()) >= PATTERN_RADIUS * 0.95 - 1e-4


def test_every_word_of_every_concept_occurs_in_captions_and_in_pictures() -> None:
    samples, pictures = world(1500)
    said: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        for concept, word in sample.named.items():
            said[concept].add(word)
    shown: dict[str, set[str]] = defaultdict(set)
    for reading in describe(pictures):
        shown["Scene"].add(reading.scene)
        for thing in reading.things:
            shown["Position"].add(thing.position)
            for concept in ("Color", "Shape", "Pattern", "Size"):
                shown[concept].add(getattr(thing, concept.lower()) or "-")
            shown["Plants"].add(thing.plant or "-")
    for concept, words in CONCEPTS.items():
        assert said[concept] == set(words)
        assert shown[concept] - {"-"} == set(words)


def test_captions_are_made_of_known_words() -> None:
    samples, _ = world(1500)
    assert {word for sample in samples for word in words_of(sample.caption)} <= WORDS | SMALL_WORDS


def test_kinds_of_captions_come_in_their_shares() -> None:
    samples, _ = world(1500)
    for kind, share in KINDS.items():
        found = sum(sample.kind == kind for sample in samples) / len(samples)
        assert abs(found - share) < 4 * (share * (1 - share) / len(samples)) ** 0.5


def truths(reading: Reading) -> dict[str, set[str]]:
    """Concept -> the words that are true of anything in the picture."""
    found: dict[str, set[str]] = defaultdict(set)
    found["Scene"].add(reading.scene)
    for thing in reading.things:
        for concept, name in [("Plants", "plant"), *((c, c.lower()) for c in ("Color", "Shape", "Pattern", "Size"))]:
            found[concept].add(getattr(thing, name))
        found["Position"].add(thing.position)
    return found


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_captions_name_is_said_and_true(kind: str) -> None:
    samples, pictures = world(150, kind=kind)
    for sample, reading in zip(samples, describe(pictures), strict=True):
        assert sample.kind == kind
        true = truths(reading)
        for concept, word in sample.named.items():
            assert word in words_of(sample.caption)
            assert word in true[concept]


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_word_of_a_caption_is_true(kind: str) -> None:
    samples, pictures = world(150, kind=kind)
    for sample, reading in zip(samples, describe(pictures), strict=True):
        anything = set().union(*truths(reading).values())
        for word in words_of(sample.caption):
            assert word in anything | SMALL_WORDS


def test_both_things_of_a_pair_are_as_the_caption_says_from_left_to_right() -> None:
    samples, pictures = world(150, kind="pair")
    for sample, reading in zip(samples, describe(pictures), strict=True):
        left, right = reading.shapes
        assert sample.caption.startswith(f"a {left.color} {left.shape} and a {right.color} {right.shape}")
        assert left.x < right.x
        assert left.color != right.color and left.shape != right.shape


@pytest.mark.parametrize(("kind", "words"), [("color or scene", SCENE_COLORS), ("color or plant", PLANT_COLORS)])
def test_words_with_two_meanings_mean_either_half_of_the_time(kind: str, words: dict[str, object]) -> None:
    samples, pictures = world(400, kind=kind)
    found: Counter[str] = Counter()
    for sample, reading in zip(samples, describe(pictures), strict=True):
        (word,) = (word for word in words_of(sample.caption.split(",")[0]) if word in words)
        found[meaning(reading, word)] += 1
    assert set(found) == set(kind.split(" or "))
    assert abs(found["color"] - 200) < 2 * 400**0.5


def test_the_word_of_a_scene_beside_another_scene_is_a_color() -> None:
    samples, pictures = world(600, kind="single")
    seen = set()
    for sample, reading in zip(samples, describe(pictures), strict=True):
        phrase = sample.caption.split(",")[0]
        for word in SCENE_COLORS.keys() & set(words_of(phrase)):
            assert reading.shapes[0].color == word and "," in sample.caption
            seen.add(word)
    assert seen == set(SCENE_COLORS)


def test_colored_things_are_never_where_the_word_could_mean() -> None:
    samples, pictures = world(200, kind="colored")
    readings = describe(pictures)
    assert all(sample.named["Color"] != one.scene for sample, one in zip(samples, readings, strict=True))


def test_articles_fit_and_do_not_tell_what_follows() -> None:
    samples, _ = world(1500)
    assert not any(re.search(r"\ba [aeiou]", sample.caption) for sample in samples)
    after_the = {words_of(sample.caption)[1] for sample in samples if sample.caption.startswith("the ")}
    assert len(after_the) > 15


def test_colors_are_apart_from_each_other_and_from_all_scenes() -> None:
    colors = torch.tensor(list(COLORS.values())) / 255
    apart = torch.cdist(colors, colors) + torch.eye(len(colors))
    assert float(apart.min()) > 0.3
    ground, texture = (torch.tensor(list(SCENES.values())) / 255).unbind(1)
    blends = torch.stack([ground + share * (texture - ground) for share in torch.linspace(0, 1, 21)]).flatten(0, 1)
    assert float(torch.cdist(colors, blends).min()) > 0.2


def test_latents_give_back_the_pictures() -> None:
    drawn = draw(world(32)[1])
    latents = to_latents(drawn)
    assert latents.shape == (32, 12, SIZE // 2, SIZE // 2)
    assert float(latents.abs().max()) <= 1
    torch.testing.assert_close(to_pictures(latents), drawn, atol=1e-6, rtol=0)
