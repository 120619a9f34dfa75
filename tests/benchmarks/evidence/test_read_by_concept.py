"""Pairs of prompts that Read by Concept is measured on, and what is counted of their pictures."""

from __future__ import annotations

from hashlib import sha256

import numpy as np
import pytest
import torch
from hrv_pack.benchmarks.evidence.sizes import REPORTING
from hrv_pack.benchmarks.read_by_concept import (
    CONCEPTS,
    MEASURES,
    OF_SHAPES,
    PLANT,
    SCENE,
    Pair,
    Reader,
    counted,
    draw_pairs,
    prompt_of,
    shown,
)
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.hrv.controls.reading import Reading
from hrv_pack.mini.captions import draw_samples
from hrv_pack.mini.scorer import describe
from hrv_pack.mini.world import CONCEPTS as WORDS
from hrv_pack.mini.world import draw

# Of the pairs that docs/evidence.md has had numbers of since it was first written.
DIGEST = "b2e69464ebdcaee735bd707a1831aab17a636d5226c40735e3ead8e26eb4c062"


@pytest.mark.parametrize("concept", OF_SHAPES)
def test_reported_pairs_of_shapes_stay_what_they_were(concept: str) -> None:
    pairs = draw_pairs(concept, 128, REPORTING)
    text = "\n".join(f"{prompt_of(pair.own)} | {prompt_of(pair.other)} | {pair.seed}" for pair in pairs)
    assert sha256(text.encode()).hexdigest() == DIGEST
    assert all(sorted(pair.differ) == sorted(OF_SHAPES) for pair in pairs)


@pytest.mark.parametrize("concept", CONCEPTS)
def test_more_pairs_begin_with_the_same(concept: str) -> None:
    assert draw_pairs(concept, 40, 7)[:16] == draw_pairs(concept, 16, 7)


def test_pairs_of_scene_differ_from_those_of_shapes_in_the_second_scene_alone() -> None:
    for pair, of_shape in zip(draw_pairs(SCENE, 128, 7), draw_pairs("Shape", 128, 7), strict=True):
        assert sorted(pair.differ) == sorted([*OF_SHAPES, SCENE])
        assert pair == Pair(of_shape.own, of_shape.other | {SCENE: pair.other[SCENE]}, of_shape.seed)


def test_pairs_of_plants_are_of_all_plants_and_share_their_scene() -> None:
    pairs = draw_pairs(PLANT, 128, 7)
    assert all(pair.differ == [PLANT, "Position"] for pair in pairs)
    assert {pair.own[PLANT] for pair in pairs} == set(WORDS[PLANT]) == {pair.other[PLANT] for pair in pairs}
    assert [pair.seed for pair in pairs] == list(range(7, 135))


def test_prompts_of_plants_are_captions_of_the_model_s_training() -> None:
    captions = {sample.caption for sample in draw_samples(10_000, np.random.default_rng(0), "plant")[0]}
    assert {prompt_of(look) for pair in draw_pairs(PLANT, 128, REPORTING) for look in (pair.own, pair.other)} < captions


def test_what_a_picture_shows_is_of_what_the_pair_is_about() -> None:
    _, pictures = draw_samples(12, np.random.default_rng(3), "shape and plant")
    of_shape, of_plant = (draw_pairs(concept, 12, 7) for concept in ("Shape", PLANT))
    drawn = draw(pictures)
    for truth, shape, plant in zip(describe(pictures), shown(drawn, of_shape), shown(drawn, of_plant), strict=True):
        assert shape == {
            "Shape": truth.shapes[0].shape, "Color": truth.shapes[0].color, "Pattern": "plain", "Size": "small",
            "Position": "left", SCENE: truth.scene,
        }  # fmt: skip
        assert plant == {PLANT: truth.plants[0].plant, "Position": "right", SCENE: truth.scene}
    (without,) = shown(draw(draw_samples(1, np.random.default_rng(3), "single")[1]), of_plant[:1])
    assert set(without) == {SCENE}


@pytest.mark.parametrize("concept", [SCENE, PLANT])
def test_all_heads_take_what_the_model_draws_of_the_second_prompt(concept: str) -> None:
    mini = load_mini()
    layout = head_layout(mini[0])
    reader = Reader(mini, {}, 8, 3.0)
    pairs = draw_pairs(concept, 8, REPORTING)
    with torch.inference_mode():
        alone = reader.looks(pairs, None)
        read = reader.looks(pairs, Reading(np.ones(layout.head_count, np.float32), layout))
    assert np.mean([look[SCENE] == pair.own[SCENE] for look, pair in zip(alone, pairs, strict=True)]) >= 0.75
    assert np.mean([look[SCENE] == pair.other[SCENE] for look, pair in zip(read, pairs, strict=True)]) >= 0.75
    for looks, least, most in ((alone, 0.0, 0.25), (read, 0.5, 1.0)):
        assert least <= np.mean(counted(pairs, looks, concept)["taken"]) <= most


def test_kept_are_the_attributes_in_which_the_prompts_differ() -> None:
    shape, scene, plant = (draw_pairs(concept, 1, 7)[0] for concept in ("Shape", SCENE, PLANT))
    for pair, concept, others in ((shape, "Shape", 4), (scene, SCENE, 5), (plant, PLANT, 1)):
        took = pair.own | {concept: pair.other[concept]}
        found = counted([pair] * 4, [took, pair.own, pair.other, {}], concept)
        assert found["taken"] == [[True], [False], [True], [False]]
        assert found["kept"] == [[True] * others, [True] * others, [False] * others, [False] * others]
        assert found["both"] == [[True], [False], [False], [False]] and tuple(found) == MEASURES
    elsewhere = shape.own | {"Shape": shape.other["Shape"], SCENE: "nowhere"}
    assert counted([shape], [elsewhere], "Shape")["both"] == [[True]]
