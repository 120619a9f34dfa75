"""The scorer reads the renderer's pictures right, clean, noisy, blurred or enlarged, and counts what captions ask."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hrv_pack.hrv.errors import HRVError
from hrv_pack.mini.captions import KINDS, Sample, draw_samples
from hrv_pack.mini.evaluation import (
    EVALUATED_KINDS,
    Report,
    Tally,
    ask,
    evaluate,
    evaluate_scorer,
    wilson_interval,
)
from hrv_pack.mini.scorer import Reading, Thing, describe, meaning, pair_correct, read_pictures, score
from hrv_pack.mini.world import COLORS, CONCEPTS, NOTHING, SHAPE, SIZE, Pictures, draw

FIELDS = {"Color": "color", "Shape": "shape", "Pattern": "pattern", "Size": "size", "Position": "position"}
COUNT = 24
"""Pictures of every kind of caption."""


def shape(color: str, form: str, x: float = 8.0, **rest: str) -> Thing:
    return Thing("shape", "left" if x < 15 else "right", x, 15.5, 6.0, color, form, **rest)


def plant(word: str, x: float = 23.0) -> Thing:
    return Thing("plant", "right" if x > 15 else "left", x, 15.5, 7.0, plant=word)


def night(*things: Thing) -> Reading:
    return Reading("night", things)


def drawn(seed: int) -> tuple[torch.Tensor, list[Reading]]:
    """Pictures of all kinds of captions with their truth."""
    parts = [draw_samples(COUNT, np.random.default_rng((seed, number)), kind)[1] for number, kind in enumerate(KINDS)]
    return torch.cat([draw(part) for part in parts]), [reading for part in parts for reading in describe(part)]


def shares_right(readings: list[Reading], truths: list[Reading]) -> dict[str, float]:
    """Concept -> share of things read right; a picture with another number of things is all wrong."""
    right: dict[str, list[bool]] = {concept: [] for concept in CONCEPTS}
    for reading, truth in zip(readings, truths, strict=True):
        right["Scene"].append(reading.scene == truth.scene)
        found = reading.things if len(reading.things) == len(truth.things) else [None] * len(truth.things)
        for shown, true in zip(found, truth.things, strict=True):
            for concept, name in ({"Plants": "plant"} if true.plant else FIELDS).items():
                right[concept].append(getattr(shown, name, None) == getattr(true, name))
    return {concept: sum(found) / len(found) for concept, found in right.items()}


@pytest.fixture(scope="module")
def clean() -> list[Reading]:
    return read_pictures(drawn(seed=11)[0])


@pytest.fixture(scope="module")
def pictures() -> tuple[torch.Tensor, list[Reading]]:
    return drawn(seed=11)


def test_renders_are_read_right(pictures: tuple[torch.Tensor, list[Reading]], clean: list[Reading]) -> None:
    shares = shares_right(clean, pictures[1])
    assert min(shares.values()) >= 0.98, shares


def test_noisy_renders_are_read_right(pictures: tuple[torch.Tensor, list[Reading]]) -> None:
    drawings, truths = pictures[0][::2], pictures[1][::2]
    noise = 0.05 * torch.randn(drawings.shape, generator=torch.Generator().manual_seed(0))
    shares = shares_right(read_pictures((drawings + noise).clamp(0, 1)), truths)
    assert min(shares.values()) >= 0.95, shares


def test_blurred_renders_are_read_right(pictures: tuple[torch.Tensor, list[Reading]]) -> None:
    drawings, truths = pictures[0][1::2], pictures[1][1::2]
    kernel = torch.tensor([0.12, 0.76, 0.12])
    padded = F.pad(drawings, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
    blurred = F.conv2d(padded, (kernel[:, None] * kernel)[None, None]).view_as(drawings)
    shares = shares_right(read_pictures(blurred), truths)
    assert min(shares.values()) >= 0.95, shares


def test_places_and_sizes_are_near_the_truth(
    pictures: tuple[torch.Tensor, list[Reading]], clean: list[Reading]
) -> None:
    off = []
    for reading, truth in zip(clean, pictures[1], strict=True):
        for shown, true in zip(reading.things, truth.things, strict=False):
            off.append((abs(shown.x - true.x), abs(shown.y - true.y), abs(shown.radius - true.radius)))
    assert float(np.quantile(np.array(off), 0.95)) < 0.5


def said(readings: list[Reading]) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Readings in words, without the numbers, whose last digits may depend on the batch."""
    names = ("kind", "position", "color", "shape", "pattern", "size", "plant")
    return [(one.scene, [tuple(getattr(thing, name) for name in names) for thing in one.things]) for one in readings]


def test_enlarged_pictures_are_read_the_same(
    pictures: tuple[torch.Tensor, list[Reading]], clean: list[Reading]
) -> None:
    assert said(read_pictures(F.interpolate(pictures[0][::8], scale_factor=4))) == said(clean[::8])


def test_reading_does_not_depend_on_the_batch(
    pictures: tuple[torch.Tensor, list[Reading]], clean: list[Reading]
) -> None:
    alone = [read_pictures(picture[None])[0] for picture in pictures[0][::COUNT]]
    assert said(alone) == said(clean[::COUNT])


def test_a_scene_alone_holds_nothing() -> None:
    _, truth = draw_samples(48, np.random.default_rng(3))
    truth.kind.zero_()
    readings = read_pictures(draw(truth))
    assert [reading.things for reading in readings] == [()] * 48
    assert [reading.scene for reading in readings] == [reading.scene for reading in describe(truth)]


def test_noise_alone_holds_nothing() -> None:
    noise = torch.rand(16, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    assert all(not reading.things for reading in read_pictures(noise))


def test_no_pictures_have_no_readings() -> None:
    assert read_pictures(torch.zeros(0, 3, SIZE, SIZE)) == []


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 4, 32, 32), (1, 3, 32, 64), (1, 3, 48, 48), (1, 3, 16, 16)])
def test_other_shapes_are_refused_by_name(shape: tuple[int, ...]) -> None:
    with pytest.raises(HRVError, match=r"\[B, 3, 32n, 32n\], not \[") as caught:
        read_pictures(torch.zeros(shape))
    assert str(list(shape)) in str(caught.value)


def test_whole_numbers_and_nan_are_refused() -> None:
    for bad in (torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8), torch.full((1, 3, SIZE, SIZE), math.nan)):
        with pytest.raises(HRVError, match="finite floating-point"):
            read_pictures(bad)


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_truth_itself_scores_full(kind: str) -> None:
    samples, truth = draw_samples(100, np.random.default_rng(5), kind)
    for sample, reading in zip(samples, describe(truth), strict=True):
        assert score(reading, sample) == dict.fromkeys(sample.named, True)


def test_each_concept_is_scored_by_itself() -> None:
    sample = Sample("a small red striped circle on the left, night", "single", {
        "Size": "small", "Color": "red", "Pattern": "striped", "Shape": "circle", "Position": "left", "Scene": "night",
    })  # fmt: skip
    right = shape("red", "circle", pattern="striped", size="small")
    assert all(score(night(right), sample).values())
    for concept, name in FIELDS.items():
        wrong = Thing(**{**vars(right), name: "other"})
        assert [key for key, good in score(night(wrong), sample).items() if not good] == [concept]
    assert [key for key, good in score(Reading("day", (right,)), sample).items() if not good] == ["Scene"]
    assert score(night(), sample) == dict.fromkeys(sample.named, False) | {"Scene": True}


def test_a_plant_is_no_shape() -> None:
    sample = Sample("a rose on the right", "plant", {"Plants": "rose", "Position": "right"})
    assert score(night(shape("rose", "circle", 23.0)), sample) == {"Plants": False, "Position": False}
    assert score(night(shape("rose", "circle"), plant("rose")), sample) == {"Plants": True, "Position": True}


def test_pairs_are_compared_in_order_bound_and_present() -> None:
    asked = [("red", "circle"), ("blue", "square")]
    cases = [
        ((shape("red", "circle"), shape("blue", "square", 23.0)), (True, True, True)),
        ((shape("blue", "square"), shape("red", "circle", 23.0)), (False, True, True)),
        ((shape("blue", "circle"), shape("red", "square", 23.0)), (False, False, True)),
        ((shape("red", "circle"), shape("blue", "star", 23.0)), (False, False, False)),
        ((shape("red", "circle"), plant("rose")), (False, False, False)),
        ((shape("red", "circle"),), (False, False, False)),
        ((), (False, False, False)),
    ]
    for things, (ordered, bound, present) in cases:
        found = pair_correct(night(*things), asked)
        assert (found.ordered, found.bound, found.present) == (ordered, bound, present)


def test_a_word_with_two_meanings_is_read_as_what_is_there() -> None:
    assert meaning(night(shape("rose", "circle")), "rose") == "color"
    assert meaning(night(shape("red", "circle"), plant("rose")), "rose") == "plant"
    assert meaning(night(shape("rose", "circle"), plant("rose")), "rose") == "both"
    assert meaning(night(shape("violet", "circle"), plant("mint")), "rose") == "neither"
    assert meaning(night(), "rose") == "neither"
    forest = Reading("forest", (shape("red", "circle"),))
    assert meaning(night(shape("forest", "circle")), "forest") == "color"
    assert meaning(forest, "forest") == "scene"
    assert meaning(Reading("forest", (shape("forest", "circle"),)), "forest") == "both"
    assert meaning(forest, "ocean") == "neither"


@pytest.mark.parametrize(("right", "total", "low", "high"), [(0, 0, 0, 1), (0, 10, 0, 0.2775), (5, 10, 0.2366, 0.7634)])
def test_wilson_intervals_are_the_published_ones(right: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(right, total) == pytest.approx((low, high), abs=1e-4)


def test_intervals_of_all_and_none_mirror_each_other() -> None:
    for total in (1, 7, 400):
        low, high = wilson_interval(0, total)
        assert wilson_interval(total, total) == pytest.approx((1 - high, 1 - low))


def test_captions_of_a_kind_do_not_depend_on_the_other_kinds_asked() -> None:
    everything = ask(5, seed=3)
    assert [part.kind for part in everything] == list(EVALUATED_KINDS)
    assert ask(5, seed=3)[0].captions == everything[0].captions
    assert ask(5, seed=4)[0].captions != everything[0].captions


@pytest.fixture(scope="module")
def evaluated() -> Report:
    return evaluate_scorer(ask(12, seed=0))


def test_the_scorer_is_right_about_the_renderer(evaluated: Report) -> None:
    assert min(evaluated.pairs[name].right for name in ("ordered", "bound", "present")) >= 11
    found = sum(evaluated.meanings.values(), Counter())
    assert found.total() == 24
    assert found["color"] + found["plant"] + found["scene"] >= 23


def test_an_evaluation_counts_what_the_pictures_show() -> None:
    asked = ask(2, seed=0, kinds=["single", "pair", "color or scene"])
    truths = {part.captions[0]: part.truth for part in asked}
    perfect = evaluate(lambda captions: draw(truths[captions[0]]), asked)
    assert perfect.to_json() == evaluate_scorer(asked).to_json()

    empty = evaluate(lambda captions: torch.zeros(len(captions), 3, SIZE, SIZE), asked)
    for kind, tallies in empty.concepts.items():
        expected = perfect.concepts[kind]
        assert {name: tally.total for name, tally in tallies.items()} == {
            name: tally.total for name, tally in expected.items()
        }
        assert not any(tally.right for name, tally in tallies.items() if name != "Scene")
    assert empty.pairs["present"] == Tally(0, 2)
    assert sum(found["neither"] for found in empty.meanings.values()) == 2


def test_reports_are_json_and_tables(evaluated: Report) -> None:
    back = json.loads(json.dumps(evaluated.to_json()))
    single = evaluated.concepts["single"]["Scene"]
    assert back["concepts"]["single"]["Scene"]["total"] == single.total
    text = evaluated.to_markdown()
    for word in (*CONCEPTS, *EVALUATED_KINDS, "ordered", "bound", "present", "neither"):
        assert word in text
    widths = {line.count("|") for line in text.split("\n\n")[0].splitlines()}
    assert widths == {len(EVALUATED_KINDS) + 2}
    assert Report().to_markdown().startswith("| Share right |")


@pytest.mark.parametrize("pattern", ["plain", "striped", "dotted", "checkered"])
def test_a_pattern_is_what_it_is_wherever_it_begins(pattern: str) -> None:
    """The inside of plain shapes is filled from sheets of the pattern that begin at other places."""
    colors, shifts = ("red", "blue", "turquoise"), [(0.0, 0.0), (1.5, 0.5), (2.5, 2.0), (3.0, 1.0), (4.0, 2.5)]
    read = []
    for color, (dx, dy), form in product(colors, shifts, ("square", "circle")):
        look = [CONCEPTS["Shape"].index(form), CONCEPTS["Color"].index(color)]
        plain, sheet = (
            draw(
                Pictures(
                    kind=torch.tensor([[SHAPE, NOTHING]]),
                    form=torch.tensor([[look[0] if radius < 20 else CONCEPTS["Shape"].index("square"), 0]]),
                    color=torch.tensor([[look[1], 0]]),
                    pattern=torch.tensor([[CONCEPTS["Pattern"].index(kind), 0]]),
                    x=torch.tensor([[15.5 + (dx if radius > 20 else 0.0), 0.0]]),
                    y=torch.tensor([[15.5 + (dy if radius > 20 else 0.0), 0.0]]),
                    radius=torch.tensor([[radius, 1.0]]),
                    scene=torch.tensor([CONCEPTS["Scene"].index("day")]),
                    seed=torch.tensor([0.3]),
                )
            )
            for radius, kind in ((9.0, "plain"), (40.0, pattern))
        )
        base = torch.tensor(COLORS[color])[:, None, None] / 255
        inside = ((plain - base).abs().amax(1, keepdim=True) < 0.01).expand_as(plain)
        (reading,) = read_pictures(plain.where(~inside, sheet))
        read.append(
            (reading.shapes[0].pattern, reading.shapes[0].color, reading.shapes[0].shape) == (pattern, color, form)
        )
    assert sum(read) / len(read) >= 0.9
