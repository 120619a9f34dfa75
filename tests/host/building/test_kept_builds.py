"""Builds that are cut off, repeated, sharded and stopped early: always the counts of the build in one piece."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from comfy.model_management import InterruptProcessingException
from hrv_pack.host.building.build import BuildSettings, build_hrv
from hrv_pack.host.work import states as kept_states
from hrv_pack.host.work.job import Progress
from hrv_pack.host.work.states import kept_state
from hrv_pack.hrv.building.convergence_picture import curve_of
from hrv_pack.hrv.building.state import BuildState
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.relevance import files
from hrv_pack.hrv.relevance.arithmetic import merge
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
from hrv_pack.hrv.storage.state_file import write_state
from hrv_pack.tests.support.evidence import votes
from hrv_pack.tests.support.small_host import picture_of_model, small_clip_sd15, small_sd15
from safetensors import safe_open

VOCABULARY = parse_vocabulary("Color: red, dark blue\nShape: circle, skyscrapers\nScene: day, night, snow")
PROMPTS = ["a red car", "a dog at night"]
SETTINGS = BuildSettings(
    images=7,
    seed=3,
    steps=2,
    cfg=4.0,
    sampler_name="euler_ancestral",
    scheduler="normal",
    width=32,
    height=32,
    batch_size=2,
)
BATCHES = 4


class Builder:
    """Builds with one model and states in one folder; counts the batches that are really sampled."""

    def __init__(self, states: Path, model: Any, clip: Any):
        self.states = states
        self.model, self.clip = model, clip
        self.reports: list[Progress] = []

    def __call__(
        self, *, prompts: Any = PROMPTS, report: Callable[[Progress], None] | None = None, **changes: Any
    ) -> HRV:
        self.reports = []

        def note(progress: Progress) -> None:
            self.reports.append(progress)
            if report is not None:
                report(progress)

        settings = replace(SETTINGS, **changes)
        return build_hrv(self.model, self.clip, VOCABULARY, prompts, settings, states=self.states, report=note)

    def elsewhere(self, folder: Path, **changes: Any) -> HRV:
        """The same build with states of its own."""
        here, self.states = self.states, folder
        try:
            return self(**changes)
        finally:
            self.states = here


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    return small_sd15(), small_clip_sd15()


@pytest.fixture
def builder(tmp_path: Path, pair: tuple[Any, Any]) -> Builder:
    return Builder(tmp_path / "states", *pair)


@pytest.fixture
def whole(builder: Builder, tmp_path: Path) -> HRV:
    """The build in one piece, made elsewhere."""
    return builder.elsewhere(tmp_path / "elsewhere")


def cancel_after(batches: int) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.done >= batches * SETTINGS.batch_size:
            raise InterruptProcessingException

    return report


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_a_cancelled_build_goes_on_where_it_was(builder: Builder, whole: HRV, batches: int) -> None:
    before = picture_of_model(builder.model)
    with pytest.raises(InterruptProcessingException):
        builder(report=cancel_after(batches))
    assert len(builder.reports) == batches
    assert picture_of_model(builder.model) == before
    assert builder().same_as(whole)
    assert len(builder.reports) == BATCHES - batches


def test_a_finished_build_is_there_at_once(builder: Builder, whole: HRV) -> None:
    assert builder().same_as(whole) and builder.reports
    assert builder().same_as(whole) and not builder.reports


def test_progress_tells_what_is_done_how_settled_it_is_and_the_time_left(builder: Builder) -> None:
    builder()
    assert [report.done for report in builder.reports] == [2, 4, 6, 7]
    left = [report.seconds for report in builder.reports]
    assert left[-1] == 0 and all(seconds for seconds in left[:-1])
    assert str(builder.reports[-1]) == f"7 of 7 images, {builder.reports[-1].detail}"


@pytest.mark.parametrize(
    "changes",
    [{"seed": 4}, {"steps": 3}, {"images": 8}, {"batch_size": 1}, {"estimator": "all words"}, {"prompts": ["a cat"]}],
    ids=str,
)
def test_other_inputs_are_another_build(builder: Builder, changes: dict[str, Any]) -> None:
    builder()
    builder(**changes)
    assert sum(report.done == report.total for report in builder.reports) == 1
    builder()
    assert not builder.reports


def test_another_model_is_another_build(builder: Builder) -> None:
    first = builder()
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_q.weight"
    weight = builder.model.model_state_dict()[key]
    builder.model = builder.model.clone()
    builder.model.add_patches({key: ("diff", (weight * 0.5,))})
    second = builder()
    assert builder.reports and second.provenance["model_digest"] != first.provenance["model_digest"]
    with pytest.raises(HRVError, match="'model_digest' differs"):
        merge([first, builder(seed=5), second])


def test_another_layer_of_the_text_encoder_is_another_build(builder: Builder) -> None:
    first = builder()
    builder.clip = builder.clip.clone()
    builder.clip.clip_layer(-2)
    assert builder().provenance["text_encoder_digest"] != first.provenance["text_encoder_digest"]
    assert builder.reports


def test_two_builds_cannot_have_one_state(builder: Builder) -> None:
    builder()
    (path,) = builder.states.glob("*.safetensors")
    with safe_open(path, "numpy") as file:
        held = BuildState(file.metadata()["hrv.build.key"], np.zeros((2, 3, 56), dtype=np.int64), [2, 4, 6, 7])
    with kept_state(held, builder.states, "build"), pytest.raises(HRVError, match="Another process is working on this"):
        builder()
    builder()


def test_a_state_that_cannot_be_kept_is_said_before_any_image(builder: Builder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    builder.states = tmp_path / "file" / "states"
    with pytest.raises(HRVError, match=r"Cannot save the state of the build in .*states"):
        builder()
    assert not builder.reports


@pytest.mark.parametrize("save", [2, 3])
def test_a_full_disk_stops_the_build_and_loses_nothing_saved(
    builder: Builder, whole: HRV, monkeypatch: pytest.MonkeyPatch, save: int
) -> None:
    saves = []
    synchronise = os.fsync

    def fill_up(descriptor: int) -> None:
        saves.append(descriptor)
        # A file and its folder are synchronised at each save.
        if len(saves) > 2 * save:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synchronise(descriptor)

    with monkeypatch.context() as full:
        full.setattr(kept_states, "SAVE_EVERY", 0.0)
        full.setattr("os.fsync", fill_up)
        with pytest.raises(HRVError, match=r"the disk is full. What was saved before is still there"):
            builder()
    assert builder().same_as(whole)
    assert len(builder.reports) == BATCHES - (save - 1)


@pytest.mark.parametrize(("count", "batch_size"), [(2, 2), (4, 2), (3, 1), (7, 1)])
def test_all_shards_are_the_whole(builder: Builder, count: int, batch_size: int) -> None:
    """Also with a sampler that draws noise for a whole batch."""
    shards = [builder(batch_size=batch_size, shard=(index, count)) for index in range(count, 0, -1)]
    merged, whole = merge(shards), builder(batch_size=batch_size)
    assert np.array_equal(votes(merged), votes(whole))
    assert {**merged.provenance, "convergence": whole.provenance["convergence"]} == whole.provenance


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shard": (3, 2)}, "There is no shard 3 of 2"),
        ({"shard": (0, 2)}, "There is no shard 0 of 2"),
        ({"shard": (1, 8)}, "7 images make at most 7 shards"),
        ({"shard": (1, 5)}, "Shard 1 of 5 has no images, because a shard is made of whole batches of 2"),
        ({"shard": (1, 2), "stop_at": 0.9}, "A shard cannot stop early"),
        ({"stop_at": 1.0}, "an agreement of 0 or more and below 1"),
        ({"images": 10**12}, "A build makes 1 to 1000000 images, not 1000000000000"),
        ({"images": 0}, "A build makes 1 to 1000000 images, not 0"),
        ({"estimator": "guess"}, "There is no estimator 'guess'; there are paper and all words"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(builder: Builder, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HRVError, match=message):
        builder(**changes)


def test_images_without_room_are_refused_before_the_first(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once means in a batch: as many images one after the other are no matter."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=200_000_000_000))
    large: dict[str, Any] = {"width": 65_536, "height": 65_536, "images": 900}
    with pytest.raises(
        HRVError, match=r"^256 images of 65536 x 65536 pixels at once need at least 1099\.5 GB of memory"
    ):
        builder(batch_size=256, **large)
    assert not builder.reports and not list(builder.states.glob("*"))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=1_000))
    with pytest.raises(HRVError, match=r"this machine has 0\.0 GB\. Lower batch_size, or make smaller images"):
        builder()


def test_concepts_that_no_file_can_hold_are_refused_before_the_first_image(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SIZE_LIMIT", 2_000)
    with pytest.raises(HRVError, match=r"This HRV would have 0 MB of numbers; .* Take fewer concepts\."):
        builder()
    assert not builder.reports and not builder.states.exists()


def test_an_impossible_state_is_set_aside_and_the_build_begins_again(builder: Builder, whole: HRV) -> None:
    with pytest.raises(InterruptProcessingException):
        builder(report=cancel_after(2))
    (path,) = builder.states.glob("*.safetensors")
    with safe_open(path, "numpy") as file:
        metadata, halves = file.metadata(), file.get_tensor("halves")
    curve = metadata["hrv.build.curve"]
    write_state(path, "build", metadata["hrv.build.key"], {"done": "900", "curve": curve}, {"halves": halves})
    before = path.read_bytes()
    assert builder().same_as(whole)
    assert len(builder.reports) == BATCHES and path.with_suffix(".unusable").read_bytes() == before


def test_an_early_stop_ends_where_the_agreement_is_reached(builder: Builder, tmp_path: Path) -> None:
    made: dict[str, Any] = {"images": 60, "steps": 1, "batch_size": 3}
    whole = builder(**made)
    curve = curve_of(whole)
    wanted = next(point for point in curve if point.images >= 24)
    # The first point from sixteen images on that reaches it is where the build has to end.
    end = next(point for point in curve if point.images >= 16 and point.expected >= wanted.expected - 1e-9)
    stopped = builder(**made, stop_at=wanted.expected - 1e-9)
    assert stopped.provenance["images"] == end.images < 60
    assert curve_of(stopped) == [point for point in curve if point.images <= end.images]
    assert stopped.same_as(builder.elsewhere(tmp_path / "again", **made, stop_at=wanted.expected - 1e-9))
    # Cut off and continued it ends at the same image.
    with pytest.raises(InterruptProcessingException):
        builder.elsewhere(tmp_path / "cut", **made, stop_at=wanted.expected - 1e-9, report=cancel_after(2))
    assert stopped.same_as(builder.elsewhere(tmp_path / "cut", **made, stop_at=wanted.expected - 1e-9))
    assert not builder.elsewhere(tmp_path / "cut", **made, stop_at=wanted.expected - 1e-9).provenance.get("parts")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="children that share a loaded model need fork")
def test_a_process_killed_at_any_moment_loses_nothing_saved(tmp_path: Path) -> None:
    """Twenty kills at random system calls and steps of the build (tests/support/killed_builds.py)."""
    script = Path(__file__).parents[2] / "support" / "killed_builds.py"
    command = [sys.executable, str(script), str(tmp_path), "20"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["kills"] == 20
    assert result["done"] == sorted(result["done"]) and len(set(result["done"])) > 3
    assert result["equal"], "the counts differ from those of the build in one piece"
    assert result["left"] == 0, "temporary files are left"
