"""Settings, subjects, maps and reports of attend-and-excite."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hrv_pack.hrv.attend_and_excite.loss import image_losses, map_size, subject_map
from hrv_pack.hrv.attend_and_excite.pictures import curves_picture, maps_picture
from hrv_pack.hrv.attend_and_excite.report import ExcitedStep, ExcitementReport, Iteration, ReportLog
from hrv_pack.hrv.attend_and_excite.settings import ExcitementSettings, Threshold, parse_thresholds
from hrv_pack.hrv.attend_and_excite.subjects import find_subjects, parse_subjects
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.hrv.progress import Window
from hrv_pack.hrv.prompts.tokens import PromptWord, TokenMap
from hrv_pack.hrv.relevance.vectors import HRV

LAYOUT = HeadLayout((AttentionLayer("input", 1, 0, 2),))
PROMPT = ("a", "cat", "and", "a", "tree", "frog")
WORDS = TokenMap(" ".join(PROMPT), tuple(PromptWord(word, (number,)) for number, word in enumerate(PROMPT, 1)), 77)


@pytest.fixture
def hrv() -> HRV:
    return HRV(np.array([[0.5, 1.5], [12.0, 0.0], [0, 0]], dtype=np.float32), ("Animals", "Plants", "Nothing"), LAYOUT)


def test_the_published_schedule_of_fifty_steps() -> None:
    settings = ExcitementSettings()
    # Fifty steps from 0 on, a fiftieth apart, as in the published runs.
    progresses = [step / 50 for step in range(50)]
    inside = [step for step, at in enumerate(progresses) if settings.window.start <= at < settings.window.end]
    assert inside == list(range(25))
    before = [-1.0, *progresses]
    asked = {
        step: settings.maximum_at(before[step], at)
        for step, at in enumerate(progresses)
        if settings.maximum_at(before[step], at) is not None
    }
    assert asked == {0: 0.05, 10: 0.5, 20: 0.8}
    assert settings.step_at(0.0) == 20.0
    assert settings.step_at(1.0) == pytest.approx(20 * math.sqrt(0.5))
    assert settings.step_at(0.5) == pytest.approx(20 * math.sqrt(0.75))


def test_of_thresholds_that_fall_into_one_step_the_last_counts() -> None:
    assert ExcitementSettings().maximum_at(-1.0, 0.3) == 0.5
    assert ExcitementSettings().maximum_at(0.0, 0.45) == 0.8
    assert ExcitementSettings().maximum_at(0.45, 0.9) is None


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"step_size": -1.0}, "step size must be 0 or more, not -1"),
        ({"step_size": math.nan}, "step size must be 0 or more, not nan"),
        ({"decay": 1.5}, "decay of the step size must be from 0 to 1, not 1.5"),
        ({"iterations": 0}, "1 to 1000 iterations, not 0"),
        ({"resolution": 1}, "resolution of the maps must be from 2 to 64, not 1"),
        ({"smoothing": -0.1}, "smoothing must be a sigma from 0 to 10, not -0.1"),
        ({"thresholds": (Threshold(0.2, 0.5), Threshold(0.1, 0.5))}, "in the order of their progress"),
        ({"thresholds": (Threshold(0.2, 0.5), Threshold(0.2, 0.8))}, "each progress once"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changed: dict[str, object], sentence: str) -> None:
    with pytest.raises(HRVError, match=sentence):
        ExcitementSettings(**changed)  # type: ignore[arg-type]


def test_a_window_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(HRVError, match="from a start to an end"):
        ExcitementSettings(window=Window(0.5, 0.2))


def test_thresholds_as_text() -> None:
    assert parse_thresholds("0: 0.05, 0.2: 0.5,0.4:0.8") == ExcitementSettings().thresholds
    assert parse_thresholds("  ") == ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0.5", "'progress: maximum' pairs"),
        ("0: high", "not '0: high'"),
        ("0: 0.1: 0.2", "not '0: 0.1: 0.2'"),
        ("1.2: 0.5", "of 0 or more and below 1, not at 1.2"),
        ("0: 1.5", "above 0 and at most 1, not 1.5"),
        ("0: 0", "above 0 and at most 1, not 0"),
        ("nan: 0.5", "not at nan"),
    ],
)
def test_thresholds_that_are_none(text: str, sentence: str) -> None:
    with pytest.raises(HRVError, match=sentence):
        parse_thresholds(text)


def test_subjects_as_text() -> None:
    assert parse_subjects("cat: Animals, tree frog") == [("cat", "Animals"), ("tree frog", "")]
    assert parse_subjects("cat\n\nfrog : Animals,") == [("cat", ""), ("frog", "Animals")]
    assert parse_subjects("cat") == [("cat", "")]
    ten = [(f"thing{number}", "") for number in range(10)]
    assert parse_subjects(", ".join(words for words, _ in ten)) == ten


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "There is no subject"),
        (" , \n", "There is no subject"),
        (": Animals", "not ': Animals'"),
        ("cat:", "'words' or 'words: concept'"),
        ("cat, frog, Cat: Animals", "'Cat' is in the list of subjects twice"),
        (", ".join(f"thing{number}" for number in range(17)), "17 subjects are more than one image can show"),
    ],
)
def test_lists_of_subjects_that_are_none(text: str, sentence: str) -> None:
    with pytest.raises(HRVError, match=sentence):
        parse_subjects(text)


def test_subjects_are_found_in_the_prompt(hrv: HRV) -> None:
    cat, frog = find_subjects(WORDS, [("cat", "animals"), ("tree frog", "")], hrv, None)
    assert (cat.positions, cat.concept, frog.positions, frog.concept) == ((2,), "Animals", (5, 6), "")
    assert cat.weights is not None and cat.weights.tolist() == [0.5, 1.5] and frog.weights is None
    (clamped,) = find_subjects(WORDS, [("cat", "Plants")], hrv, 9.0)
    assert clamped.weights is not None and clamped.weights.tolist() == [9.0, 0.0]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ([("dog", "")], 'does not contain "dog"'),
        ([("frog", ""), ("tree frog", "")], "'frog' and 'tree frog' share a word"),
        ([("cat", "Colour")], "Colour"),
        ([("cat", "Nothing")], "No head of this HRV is relevant for Nothing"),
    ],
)
def test_subjects_that_cannot_be_found(hrv: HRV, asked: list[tuple[str, str]], sentence: str) -> None:
    with pytest.raises(HRVError, match=sentence):
        find_subjects(WORDS, asked, hrv, None)


def test_a_concept_needs_an_hrv() -> None:
    with pytest.raises(HRVError, match="'cat' has the concept 'Animals', but no HRV is connected"):
        find_subjects(WORDS, [("cat", "Animals")], None, None)


def test_maps_have_the_aspect_of_the_picture() -> None:
    assert map_size(64, 64, 8) == map_size(16, 16, 8) == map_size(128, 128, 8) == (8, 8)
    assert map_size(64, 96, 8) == (7, 10)
    assert map_size(96, 64, 8) == (10, 7)
    assert map_size(8, 800, 8) == (2, 80)


def test_a_subject_gets_the_sum_of_its_tokens_without_the_start() -> None:
    maps = torch.zeros(1, 2, 2, 4, dtype=torch.float64)
    maps[0, 0, 0] = torch.tensor([0.9, 0.01, 0.02, 0.02])
    found = subject_map(maps, (2, 3), (0,), 0.0)
    weights = [math.exp(1), math.exp(2), math.exp(2)]
    assert found[0, 0, 0].item() == pytest.approx((weights[1] + weights[2]) / sum(weights))
    assert found[0, 1, 1].item() == pytest.approx(2 / 3)
    assert subject_map(maps, (2, 3), (0,), 0.5)[0, 0, 0] < found[0, 0, 0]


def test_the_most_neglected_subject_makes_the_loss() -> None:
    assert image_losses(torch.tensor([[0.9, 0.25], [1.5, 1.25]])).tolist() == [0.75, 0.0]


def report(iterations: int = 3) -> ExcitementReport:
    found = [
        Iteration(np.array([0.6, 0.2], dtype=np.float32), np.array([[0.4, 0.9], [0.75, 0.875]], dtype=np.float32))
        for _ in range(iterations)
    ]
    steps = [ExcitedStep(0, 0.0, 14.5, 0.5, found), ExcitedStep(1, 0.1, 9.5, None, found[:1])]
    maps = np.eye(8, dtype=np.float32)[None].repeat(2, 0)
    return ExcitementReport([("cat", "Animals"), ("frog", "")], steps, [maps, maps])


def test_a_report_as_json() -> None:
    made = report().to_json()
    assert made["updates"] == 4
    assert made["unmet"] == ["Step 1: after 2 iterations 'cat' reached 0.40 of 0.5."]
    assert made["steps"][1]["iterations"][0]["maxima"]["frog"] == [0.75, 0.875]


def test_a_report_as_pictures() -> None:
    curves, maps = curves_picture(report(5)), maps_picture(report())
    assert curves.mode == maps.mode == "RGB"
    ink = np.asarray(curves).reshape(-1, 3)
    assert (ink == (150, 45, 18)).all(1).any() and (ink == (50, 98, 169)).all(1).any()
    assert len(np.unique(np.asarray(maps).reshape(-1, 3), axis=0)) > 2
    assert curves_picture(ExcitementReport([("cat", "")])).mode == "RGB"
    assert maps_picture(ExcitementReport([("cat", "")])).mode == "RGB"


def test_the_curves_say_what_the_updates_took() -> None:
    costly = report()
    costly.seconds, costly.peak_bytes = 12.34, 3_000_000_000
    assert curves_picture(costly).tobytes() != curves_picture(report()).tobytes()
    assert costly.to_json()["peak_bytes"] == 3_000_000_000


def test_a_log_finds_reports_by_latents_and_forgets_the_oldest() -> None:
    log = ReportLog()
    latents = [np.full((1, 4, 2, 2), number, dtype=np.float32) for number in range(20)]
    reports = [ExcitementReport([(str(number), "")]) for number in range(20)]
    for latent, made in zip(latents, reports, strict=True):
        log.add(latent, made)
    assert copy.deepcopy(log) is log
    assert log.find(latents[19].copy()) is reports[19]
    with pytest.raises(HRVError, match="No run with this Attend and Excite"):
        log.find(latents[0])
