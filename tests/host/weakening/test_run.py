"""Ordered weakening of HRV-mini: which images are made, that none is made twice, and what survives failures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from hrv_pack.host.files.experiments import experiment_file
from hrv_pack.host.files.folders import SHIPPED
from hrv_pack.host.mechanism import add_control
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.weakening.grid import WeakeningSettings
from hrv_pack.host.weakening.making import Examined
from hrv_pack.host.weakening.run import Analysis, analyse_weakening
from hrv_pack.host.work.job import Progress
from hrv_pack.hrv.controls.control import weaken
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.progress import Window
from hrv_pack.hrv.prompts.tokens import ALL_WORDS
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.hrv.relevance.orders import LEAST_RELEVANT_FIRST, MOST_RELEVANT_FIRST, RANDOM
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.hrv.scoring.experiments import Case, Experiment, parse_experiment
from hrv_pack.hrv.weakening.plan import Line, Plan
from hrv_pack.hrv.weakening.statistics import NO, YES, finding
from hrv_pack.mini.truth_scorer import MiniScorer
from hrv_pack.tests.support.small_host import encoded, latents, picture, picture_of_model, random_hrv, small_sd15
from hrv_pack.tests.support.told_page import statuses, told_page
from PIL import Image

EXPERIMENT = parse_experiment("[Color]\na <red | blue> circle\na <green> circle in the forest\n[Shape]\na red <star>")
PLAN = Plan((0, 16, 128), random_orders=1)
IMAGES = 2 + 4  # without and with all heads, and 16 heads in four orders
SETTINGS = WeakeningSettings((3, 4), 1, 2.0, "euler", "normal", 64, 64)

Mini = tuple[Any, Any, Any]


class Brightness:
    """The mean of an image; it can be told to fail."""

    name = "brightness"

    def __init__(self, fails: Callable[[torch.Tensor], bool] = lambda image: False, **provenance: Any):
        self.provenance = provenance
        self.fails = fails
        self.seen: list[tuple[Case, bytes]] = []

    def check(self, cases: Sequence[Case], width: int, height: int) -> None:
        if width > 64:
            raise HRVError("Too bright.")

    def score(self, images: torch.Tensor, cases: Sequence[Case]) -> list[float]:
        if any(self.fails(image) for image in images):
            raise RuntimeError("cannot see")
        assert images.dtype == torch.float32 and images.shape == (len(cases), 64, 64, 3)
        self.seen += [(case, image.numpy().tobytes()) for case, image in zip(cases, images, strict=True)]
        return [float(image.mean()) for image in images]


class Analyst:
    """Runs analyses of HRV-mini with states in one folder."""

    def __init__(self, mini: Mini, states: Path):
        self.model, self.clip, self.vae = mini
        self.hrv = random_hrv(head_layout(self.model))
        self.states = states
        self.reports: list[str] = []

    def __call__(
        self,
        scorer: Any,
        concepts: Sequence[str] = ("Color",),
        *,
        plan: Plan = PLAN,
        experiment: Experiment = EXPERIMENT,
        images: Path | None = None,
        report: Callable[[str], None] = lambda text: None,
        **changes: Any,
    ) -> Analysis:
        self.reports = []

        def note(progress: Progress) -> None:
            self.reports.append(str(progress))
            report(str(progress))

        with torch.inference_mode():
            return analyse_weakening(
                Examined(self.model, self.clip, self.vae, self.hrv, scorer),
                {concept: experiment.of(concept) for concept in concepts},
                plan,
                replace(SETTINGS, **changes),
                images=images,
                states=self.states,
                report=note,
            )


@pytest.fixture(scope="module")
def mini() -> Mini:
    return load_mini()


@pytest.fixture
def analyst(mini: Mini, tmp_path: Path) -> Analyst:
    return Analyst(mini, tmp_path / "states")


def test_every_image_is_made_once_and_scored_where_it_belongs(analyst: Analyst) -> None:
    """The score of a cell is that of the image that the nodes make by hand with the seed."""
    scorer = Brightness()
    (result,) = analyst(scorer, steps=2).results
    assert len(scorer.seen) == result.scores.size == IMAGES * 3 * 2
    assert result.provenance["prompts"] == [[case.prompt, case.target] for case in EXPERIMENT.of("Color")]
    window = Window()
    with torch.inference_mode():
        negative = encoded(analyst.clip, "")
        for order, draw in ((MOST_RELEVANT_FIRST, 0), (LEAST_RELEVANT_FIRST, 0), (RANDOM, 0)):
            for number, case in enumerate(result.cases):
                model, positive = add_control(
                    analyst.model,
                    encoded(analyst.clip, case.prompt),
                    [ALL_WORDS],
                    lambda positions, order=order: weaken(  # type: ignore[misc]
                        analyst.hrv, "Color", order, 16, positions, 1.0, window, seed=0
                    ),
                )
                latent = latents(model, positive, negative, steps=2, cfg=2.0, seeds=(4,), size=8)
                by_hand = float(analyst.vae.decode(latent).mean())
                measured = result.along(Line(order, draw=draw))[1, number, 1]
                assert measured == pytest.approx(by_hand, rel=1e-6)


def test_the_first_and_last_points_are_shared_and_unlike(analyst: Analyst) -> None:
    (result,) = analyst(Brightness()).results
    ends = result.along(Line(MOST_RELEVANT_FIRST))[[0, -1]]
    for line in PLAN.lines:
        assert np.array_equal(result.along(line)[[0, -1]], ends)
    assert np.mean(ends[0] == ends[1]) < 0.5


@pytest.mark.parametrize("batch_size", [2, 4, 100])
def test_batches_make_no_difference(analyst: Analyst, batch_size: int) -> None:
    alone, together = (analyst(Brightness(), ("Color", "Shape"), batch_size=size) for size in (1, batch_size))
    assert len(analyst.reports) < 6 * (3 + 1) * 2
    for one, other in zip(alone.results, together.results, strict=True):
        assert np.allclose(one.scores, other.scores, rtol=1e-5, atol=0)


def test_a_cancelled_analysis_goes_on_where_it_was(analyst: Analyst) -> None:
    whole = analyst(Brightness(run=1)).results[0]

    def cancel(text: str) -> None:
        if len(analyst.reports) == 5:
            raise InterruptProcessingException

    first, second = Brightness(), Brightness()
    with pytest.raises(InterruptProcessingException):
        analyst(first, report=cancel)
    result = analyst(second).results[0]
    assert np.array_equal(result.scores, whole.scores)
    assert len(first.seen) == 5 and len(second.seen) == whole.scores.size - 5
    third = Brightness()
    assert np.array_equal(analyst(third).results[0].scores, whole.scores) and not third.seen


@pytest.mark.parametrize("changes", [{"seeds": (3, 5)}, {"cfg": 5.0}, {"plan": replace(PLAN, factors=(0.0,))}])
def test_another_analysis_begins_anew(analyst: Analyst, changes: dict[str, Any]) -> None:
    analyst(Brightness())
    again = Brightness()
    analyst(again, **changes)
    assert len(again.seen) == IMAGES * 3 * 2
    other = Brightness(other="scorer")
    analyst(other)
    assert other.seen


def test_one_image_that_cannot_be_scored_loses_no_other(analyst: Analyst) -> None:
    whole = analyst(Brightness(), batch_size=4).results[0]
    worst = float(np.sort(whole.scores.ravel())[-1])
    result = analyst(Brightness(lambda image: float(image.mean()) >= worst, picky=1), batch_size=4).results[0]
    assert result.failed == 1
    assert np.array_equal(np.isnan(result.scores), whole.scores == worst)
    there = ~np.isnan(result.scores)
    assert np.array_equal(result.scores[there], whole.scores[there])


@pytest.mark.parametrize("kind", ["raises", "nan", "too few"])
def test_a_scorer_that_never_works_is_not_fed_for_hours(
    analyst: Analyst, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Useless(Brightness):
        def score(self, images: torch.Tensor, cases: Sequence[Case]) -> list[float]:
            if kind == "raises":
                raise ValueError("no eyes")
            return [] if kind == "too few" else [float("nan")] * len(cases)

    with pytest.raises(HRVError, match="brightness failed on all of the first 6 images"):
        analyst(Useless())
    assert len(analyst.reports) == 5
    assert {"raises": "no eyes", "nan": "", "too few": "0 scores for 1 images"}[kind] in caplog.text


def test_what_could_not_be_scored_is_tried_again(analyst: Analyst, mini: Mini) -> None:
    class Failing(Brightness):
        def score(self, images: torch.Tensor, cases: Sequence[Case]) -> list[float]:
            scores = list(super().score(images, cases))
            return [float("nan")] if len(self.seen) <= 5 else scores

    assert analyst(Failing()).results[0].failed == 5
    healed = Brightness()
    (result,) = analyst(healed).results
    assert result.failed == 0 and len(healed.seen) == 5
    (clean,) = Analyst(mini, analyst.states / "fresh")(Brightness()).results
    assert np.array_equal(result.scores, clean.scores)
    again = Brightness()
    analyst(again)
    assert not again.seen


def test_a_provenance_that_no_table_can_hold_is_refused(analyst: Analyst) -> None:
    scorer = Brightness()
    scorer.provenance = {"type": torch.float32}
    with pytest.raises(HRVError, match="provenance of the scorer brightness cannot be written as JSON"):
        analyst(scorer)
    assert not scorer.seen


def test_images_are_kept_if_asked(analyst: Analyst, tmp_path: Path) -> None:
    scorer = Brightness()
    analyst(scorer, images=tmp_path / "images")
    files = sorted((tmp_path / "images").rglob("*.png"))
    assert len(files) == len(scorer.seen)
    kept = {np.asarray(Image.open(file)).tobytes() for file in files}
    made = {(np.frombuffer(image, np.float32) * 255).round().astype(np.uint8).tobytes() for _, image in scorer.seen}
    assert kept == made
    names = {file.name for file in files}
    assert {"most-relevant-first-16-heads-factor-2.png", "random-1-backwards-16-heads-factor-2.png"} <= names
    # Those that are gone are made again, and only they.
    files[0].unlink()
    again = Brightness()
    assert analyst(again, images=tmp_path / "images").images == files[0].parents[3]
    assert files[0].exists() and len(again.seen) == 1


def test_an_image_that_cannot_be_kept_costs_no_more_than_itself(analyst: Analyst, tmp_path: Path) -> None:
    """Its score is there and its batch is not done, which is no reason to begin again."""
    first, second = Brightness(), Brightness()

    def fill_up(text: str) -> None:
        if len(analyst.reports) == 3:
            (tmp_path / "images").rename(tmp_path / "kept")
            (tmp_path / "images").write_bytes(b"no folder")

    with pytest.raises(HRVError, match="Cannot save the image"):
        analyst(first, images=tmp_path / "images", report=fill_up)
    (tmp_path / "images").unlink()
    (tmp_path / "kept").rename(tmp_path / "images")
    result = analyst(second, images=tmp_path / "images").results[0]
    assert len(first.seen) == 4 and len(second.seen) == result.scores.size - 3
    assert not list(analyst.states.glob("*.unusable"))


def test_the_sheet_is_of_the_first_prompt_and_seed(analyst: Analyst) -> None:
    scorer = Brightness()
    analysis = analyst(scorer, batch_size=3)
    first = {image for case, image in scorer.seen if case == EXPERIMENT.cases[0]}
    pixels = {(np.frombuffer(image, np.float32) * 255).round().astype(np.uint8).tobytes() for image in first}
    shown = {small.tobytes() for small in analysis.sheet.values()}
    assert len(shown) == 5 and shown <= pixels
    again = analyst(Brightness(), batch_size=3)
    assert all(np.array_equal(again.sheet[cell], small) for cell, small in analysis.sheet.items())


def test_nothing_of_the_users_is_changed(analyst: Analyst) -> None:
    digest = analyst.hrv.digest
    before = picture_of_model(analyst.model), picture(vars(analyst.hrv))
    with pytest.raises(InterruptProcessingException):
        analyst(Brightness(), report=lambda text: (_ for _ in ()).throw(InterruptProcessingException()))
    analyst(Brightness())
    assert (picture_of_model(analyst.model), picture(vars(analyst.hrv))) == before
    assert analyst.hrv.digest == digest


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"plan": Plan((0, 8, 64))}, "The plan is for 64 heads"),
        ({"width": 128}, "Too bright"),
        ({"seeds": ()}, "at least one seed"),
        ({"seeds": (1, 1)}, "each only once"),
        ({"concepts": ()}, "no prompts to analyse"),
        ({"experiment": parse_experiment("[Color]\n<()>")}, "has no words"),
        ({"concepts": ("Animals",), "experiment": parse_experiment("[Animals]\na <cat>")}, "Animals"),
    ],
)
def test_bad_input_is_said_before_any_image(analyst: Analyst, changes: dict[str, Any], says: str) -> None:
    scorer = Brightness()
    with pytest.raises(HRVError, match=says):
        analyst(scorer, **changes)
    assert not scorer.seen


def test_images_without_room_are_refused_before_the_first(analyst: Analyst, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here they are decoded too."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=4 * 3 * 64 * 64 * 3 // 2))
    scorer = Brightness()
    with pytest.raises(HRVError, match=r"2 images of 64 x 64 pixels at once need at least 0\.0 GB of memory"):
        analyst(scorer, batch_size=2)
    assert not scorer.seen and not list(analyst.states.rglob("*.safetensors"))


def test_an_hrv_of_another_model_is_refused(analyst: Analyst) -> None:
    analyst.hrv = random_hrv(head_layout(small_sd15()))
    with pytest.raises(HRVError, match="another kind of model"):
        analyst(Brightness())


@pytest.mark.slow
def test_hrv_minis_hrv_separates_and_a_shuffled_one_does_not(analyst: Analyst) -> None:
    """The paper's evidence, small and with HRV-mini's causal HRV: shuffled, the verdict turns."""
    experiment = Experiment(parse_experiment(experiment_file("hrv-mini")).of("Shape", 8))
    shipped = load_hrv(SHIPPED / "hrv-mini-causal.safetensors")
    plan = Plan((0, 11, 128), random_orders=3, factors=(0.0,))
    found = {}
    for name, order in (("shipped", np.arange(128)), ("shuffled", np.random.default_rng(0).permutation(128))):
        analyst.hrv = HRV(shipped.values[:, order], shipped.concepts, shipped.layout)
        changes: dict[str, Any] = {"seeds": (0,), "steps": 8, "cfg": 5.0, "width": 128, "height": 128, "batch_size": 8}
        found[name] = finding(analyst(MiniScorer(), ["Shape"], experiment=experiment, plan=plan, **changes).results[0])
    assert found["shipped"].verdict == YES and found["shipped"].area.value > 0.2
    assert found["shuffled"].verdict == NO


def test_the_page_sees_curves_as_they_fill(analyst: Analyst, tmp_path: Path) -> None:
    with told_page(tmp_path / "statuses.json") as sent:
        (result,) = analyst(Brightness()).results
    told = [one["curves"] for one in statuses(sent)]
    assert {(one["across"], one["up"]) for one in told} == {("heads weakened", "score of Color")}
    assert [curve["name"] for curve in told[-1]["curves"]] == [MOST_RELEVANT_FIRST, LEAST_RELEVANT_FIRST, RANDOM]
    for curve in told[-1]["curves"]:
        lines = [line for line in result.plan.lines if line.order == curve["name"]]
        means = np.mean([result.along(line) for line in lines], axis=(0, 2, 3))
        assert curve["across"] == list(result.plan.head_counts)
        assert curve["up"] == pytest.approx(means.tolist(), rel=1e-4)
    known = [sum(value is not None for curve in one["curves"] for value in curve["up"]) for one in told]
    assert known[0] == 0 and known == sorted(known)
