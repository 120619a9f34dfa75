"""Side effects of weakening on HRV-mini: which images are made, and that each is scored by all that its prompt says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.weakening.grid import WeakeningSettings
from hrv_pack.host.weakening.making import Examined
from hrv_pack.host.weakening.run import analyse_weakening
from hrv_pack.host.weakening.side_effects import measure_side_effects
from hrv_pack.host.work.job import Progress, no_report
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.relevance.orders import MOST_RELEVANT_FIRST
from hrv_pack.hrv.scoring.experiments import Case, parse_experiment
from hrv_pack.hrv.weakening.plan import Line, Plan
from hrv_pack.hrv.weakening.side_effects import SideEffects, cases_by_prompt
from hrv_pack.tests.support.small_host import random_hrv

EXPERIMENT = parse_experiment("[Color]\na <red> circle\na <blue> thing\n[Shape]\na red <star>\na red <circle>")
PROMPTS = cases_by_prompt(EXPERIMENT, ["Color", "Shape"])
SETTINGS = WeakeningSettings((3, 4), 1, 2.0, "euler", "normal", 64, 64)
IMAGES = 3 * 3 * 2  # without weakening and by two concepts, of three prompts and two seeds

Mini = tuple[Any, Any, Any]


class Seen:
    """Scores by the mean of an image and the length of its target, and remembers what it saw."""

    name = "seen"

    def __init__(self, **provenance: Any) -> None:
        self.provenance = provenance
        self.cases: list[Case] = []
        self.images: list[bytes] = []

    def check(self, cases: Sequence[Case], width: int, height: int) -> None:
        if width > 64:
            raise HRVError("Too large.")

    def score(self, images: torch.Tensor, cases: Sequence[Case]) -> list[float]:
        self.cases += cases
        self.images += [image.numpy().tobytes() for image in images]
        return [float(image.mean()) + len(case.target) for image, case in zip(images, cases, strict=True)]


class Measure:
    """Measures side effects on HRV-mini with states in one folder."""

    def __init__(self, mini: Mini, states: Path) -> None:
        self.model, self.clip, self.vae = mini
        self.hrv, self.states = random_hrv(head_layout(self.model)), states

    def examined(self, scorer: Any) -> Examined:
        return Examined(self.model, self.clip, self.vae, self.hrv, scorer)

    def __call__(self, scorer: Any, report: Any = no_report, factor: float = 0.0, **changes: Any) -> SideEffects:
        settings = replace(SETTINGS, **changes)
        with torch.inference_mode():
            return measure_side_effects(
                self.examined(scorer), ["Color", "Shape"], PROMPTS, 16, factor, settings,
                states=self.states, report=report,
            )  # fmt: skip


@pytest.fixture(scope="module")
def mini() -> Mini:
    return load_mini()


@pytest.fixture
def measure(mini: Mini, tmp_path: Path) -> Measure:
    return Measure(mini, tmp_path / "states")


def test_an_image_is_made_once_and_scored_by_all_cases_of_its_prompt(measure: Measure) -> None:
    scorer = Seen()
    found = measure(scorer)
    assert [len(those) for those in PROMPTS] == [2, 1, 2] and len(found.cases) == 5
    assert len(scorer.cases) == 3 * 5 * 2 and len(set(scorer.images)) == IMAGES
    rest = found.scores - np.array([len(case.target) for case in found.cases])[:, None]
    first = [0, 0, 2, 3, 3]  # the prompt's first case
    assert np.allclose(rest, rest[:, first], atol=1e-6)
    assert not np.allclose(rest[:, 0], rest[:, 2], atol=1e-4)


def test_scores_are_those_of_the_analysis(measure: Measure) -> None:
    found = measure(Seen())
    experiment = {name: [case for case in found.cases if case.concept == name] for name in ("Color", "Shape")}
    with torch.inference_mode():
        results = analyse_weakening(
            measure.examined(Seen()), experiment, Plan((0, 16, 128), 0, (0.0,)), SETTINGS, states=measure.states
        ).results
    for row, result in enumerate(results):
        own = found.scores[:, [case.concept == result.concept for case in found.cases]]
        along = result.along(Line(MOST_RELEVANT_FIRST, 0.0))
        assert np.allclose(own[[0, 1 + row]], along[:2], rtol=1e-5)


def test_batches_make_no_difference(measure: Measure) -> None:
    assert np.allclose(measure(Seen()).scores, measure(Seen(), batch_size=4).scores, rtol=1e-5)


def test_a_cancelled_measurement_goes_on_where_it_was(measure: Measure, mini: Mini) -> None:
    def cancel(progress: Progress) -> None:
        assert progress.total == IMAGES
        if progress.done == 5:
            raise InterruptProcessingException

    first, second, third = Seen(), Seen(), Seen()
    with pytest.raises(InterruptProcessingException):
        measure(first, cancel)
    resumed = measure(second)
    assert len(set(first.images)) == 5 and len(set(second.images)) == IMAGES - 5
    assert np.array_equal(resumed.scores, Measure(mini, measure.states / "fresh")(Seen()).scores)
    measure(third)
    assert not third.images
    measure(third, factor=-2.0)
    assert len(set(third.images)) == IMAGES


def test_what_the_scorer_refuses_is_refused(measure: Measure) -> None:
    with pytest.raises(HRVError, match="Too large"):
        measure(Seen(), width=128)
