"""HRV-mini's truth as a scorer: right words get 1, others 0, and what the mini world lacks is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.scoring.experiments import Case
from hrv_pack.hrv.scoring.scorer import Scorer
from hrv_pack.mini.captions import KINDS, Sample, draw_samples
from hrv_pack.mini.scorer import read_pictures, score
from hrv_pack.mini.truth_scorer import MiniScorer
from hrv_pack.mini.world import CONCEPTS, draw

SCORER: Scorer = MiniScorer()


def drawn(kind: str, count: int = 6) -> tuple[list[Sample], torch.Tensor]:
    """Captions of a kind that name something, and images [B, 128, 128, 3] that fit them."""
    samples, truth = draw_samples(2 * count, np.random.default_rng(7), kind)
    rows = [row for row, sample in enumerate(samples) if sample.named][:count]
    samples, truth = [samples[row] for row in rows], truth[torch.tensor(rows)]
    images = draw(truth).movedim(1, -1).repeat_interleave(4, 1).repeat_interleave(4, 2)
    return samples, images


def cases_of(samples: list[Sample]) -> list[Case]:
    """A case for one of the things that each caption names."""
    chosen = [(sample, sorted(sample.named)[row % len(sample.named)]) for row, sample in enumerate(samples)]
    return [Case(concept, sample.caption, sample.named[concept]) for sample, concept in chosen]


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_the_reader_says_of_the_caption(kind: str) -> None:
    samples, images = drawn(kind)
    cases = cases_of(samples)
    readings = read_pictures(images.movedim(-1, 1))
    truths = [score(reading, sample) for reading, sample in zip(readings, samples, strict=True)]
    found = SCORER.score(images, cases)
    assert found == [float(truth[case.concept]) for truth, case in zip(truths, cases, strict=True)]
    assert sum(found) >= len(found) - 1 and all(type(number) is float for number in found)


def test_other_words_are_wrong() -> None:
    samples, images = drawn("single")
    cases = cases_of(samples)
    others = [
        Case(case.concept, case.prompt, next(word for word in CONCEPTS[case.concept] if word != case.target))
        for case in cases
    ]
    assert sum(SCORER.score(images, others)) <= 1


def test_case_and_space_make_no_difference() -> None:
    samples, images = drawn("single")
    cases = cases_of(samples)
    loud = [Case(f" {case.concept.upper()} ", case.prompt.upper(), f"{case.target.upper()} ") for case in cases]
    assert SCORER.score(images, loud) == SCORER.score(images, cases)


def test_places_are_those_of_what_the_prompt_is_about() -> None:
    """A circle on the left beside a plant on the right."""
    _, images = drawn("shape and plant", 1)
    prompts = ("a fern", "a fern and a red circle", "a red shape and a fern", "a rose circle", "a rose, night", "snow")
    sides = [
        [target for target in ("left", "right") if SCORER.score(images, [Case("Position", prompt, target)]) == [1.0]]
        for prompt in prompts
    ]
    assert sides == [["right"], ["left"], ["left"], ["left"], ["right"], ["left"]]


@pytest.mark.parametrize(("width", "height"), [(128, 96), (96, 128), (100, 100), (16, 16), (0, 0)])
def test_sizes_that_cannot_be_read_are_refused(width: int, height: int) -> None:
    with pytest.raises(HRVError, match=f"square images .* multiple of 32, .* not on {width} x {height}"):
        SCORER.check([], width, height)


@pytest.mark.parametrize("size", [32, 96, 128])
def test_what_it_can_score_passes(size: int) -> None:
    SCORER.check([Case(name, word, word) for name, words in CONCEPTS.items() for word in words], size, size)


@pytest.mark.parametrize(
    ("concept", "target", "sentence"),
    [
        ("Mood", "happy", "There is no concept .Mood. in this mini world. It has: .*Color"),
        ("Colour", "red", "Did you mean Color"),
        ("Color", "pink", "There is no Color 'pink' in the world of HRV-mini. It has: red, yellow"),
        ("shape", "red", "There is no Shape 'red'"),
        ("Color", "", "There is no Color ''"),
    ],
)
def test_what_the_mini_world_lacks_is_refused(concept: str, target: str, sentence: str) -> None:
    case = Case(concept, f"a {target} circle", target)
    with pytest.raises(HRVError, match=sentence):
        SCORER.check([Case("Color", "a red circle", "red"), case], 128, 128)
    with pytest.raises(HRVError, match=sentence):
        SCORER.score(drawn("single", 1)[1], [case])


def test_images_that_are_not_finite_are_refused() -> None:
    images = drawn("single", 1)[1].clone()
    images[0, 0, 0, 0] = torch.nan
    with pytest.raises(HRVError, match="finite"):
        SCORER.score(images, [Case("Color", "a red circle", "red")])


def test_provenance_is_json_and_always_the_same() -> None:
    assert json.loads(json.dumps(SCORER.provenance)) == MiniScorer().provenance
    assert SCORER.name == "HRV-mini's truth"
