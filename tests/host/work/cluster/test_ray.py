"""Work on a real Ray cluster of this machine: the results of one process, whoever dies, hangs or comes late."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import comfy.model_management
import comfy.utils
import numpy as np
import psutil
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from hrv_pack.host.building.build import BuildSettings, build_hrv
from hrv_pack.host.building.causal import CausalSettings, build_causal_hrv
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.weakening.grid import WeakeningSettings
from hrv_pack.host.weakening.making import Examined
from hrv_pack.host.weakening.run import analyse_weakening
from hrv_pack.host.weakening.side_effects import measure_side_effects
from hrv_pack.host.work.cluster import dealing
from hrv_pack.host.work.cluster.recipe import Recipe, checkpoint_recipe, mini_recipe
from hrv_pack.host.work.executor import HERE, Executor
from hrv_pack.host.work.job import Progress, no_report
from hrv_pack.host.work.places import ALL_GPUS, executor_at
from hrv_pack.hrv.building.pairs import Example
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
from hrv_pack.hrv.scoring.experiments import parse_experiment
from hrv_pack.hrv.weakening.plan import Plan
from hrv_pack.hrv.weakening.side_effects import cases_by_prompt
from hrv_pack.mini.truth_scorer import MiniScorer
from hrv_pack.tests.support.commands import Commands, alone
from hrv_pack.tests.support.ray_cluster import RayCluster

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Ray's clusters of several machines are for Linux"),
]

VOCABULARY = parse_vocabulary("Color: red, blue\nShape: circle, star")
PROMPTS = ("a red circle", "a blue star")
BUILD = BuildSettings(12, 3, 2, 3.0, "euler_ancestral", "normal", 32, 32, batch_size=2)
CAUSAL = CausalSettings(2, 1, 2, 3.0, "euler", "normal", 32, 32, batch_size=2)
WEAKENING = WeakeningSettings((3, 4), 1, 3.0, "euler", "normal", 128, 128, batch_size=2)
EXPERIMENT = parse_experiment("[Color]\na <red> circle\n[Shape]\na red <star>")
EXAMPLES = {
    "Color": [Example("a red circle", "red"), Example("a blue circle", "blue")],
    "Shape": [Example("a red circle", "circle"), Example("a red star", "star")],
}

Mini = tuple[Any, Any, Any]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    found = RayCluster()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in found.environment.items():
            patch.setenv(name, value)
        yield found
    found.end()


@pytest.fixture(scope="module")
def commands(cluster: RayCluster) -> Iterator[Commands]:
    """In a process that may talk to the cluster."""
    started = Commands()
    yield started
    started.end()


@pytest.fixture(scope="module")
def mini() -> Mini:
    return load_mini()


@pytest.fixture(scope="module")
def whole(mini: Mini, tmp_path_factory: pytest.TempPathFactory) -> HRV:
    """The build in this process."""
    return build(mini, tmp_path_factory.mktemp("whole"))


def build(mini: Mini, states: Path, executor: Executor = HERE, report: Callable[[Progress], None] = no_report) -> HRV:
    with torch.inference_mode():
        return build_hrv(mini[0], mini[1], VOCABULARY, PROMPTS, BUILD, states=states, report=report, executor=executor)


def whole_recipe() -> Recipe:
    """HRV-mini with its scorer."""
    return mini_recipe().with_node("scorer", "HRV_ScorerMini", {})


def made(mini: Mini, hrv: HRV, folder: Path, executor: Executor) -> tuple[HRV, list[Any]]:
    """A causal HRV, and beside it everything else that a causal build and an analysis give."""
    model, clip, vae = mini
    built = build_causal_hrv(model, clip, EXAMPLES, CAUSAL, states=folder, executor=executor)
    analysis = analyse_weakening(
        Examined(model, clip, vae, hrv, MiniScorer()),
        {name: EXPERIMENT.of(name) for name in EXPERIMENT.concepts},
        Plan((0, 16, 128), random_orders=1),
        WEAKENING,
        images=folder / "images",
        states=folder,
        executor=executor,
    )
    names = list(EXPERIMENT.concepts)
    effects = measure_side_effects(
        Examined(model, clip, vae, hrv, MiniScorer()),
        names,
        cases_by_prompt(EXPERIMENT, names),
        16,
        0.0,
        WEAKENING,
        states=folder,
        executor=executor,
    )
    files = {file.name: file.read_bytes() for file in (folder / "images").rglob("*.png")}
    assert files and np.isfinite(built.hrv.values).all()
    return built.hrv, [
        built.report.to_json(),
        files,
        [result.scores.tobytes() for result in analysis.results],
        effects.scores.tobytes(),
        {place: picture.tobytes() for place, picture in analysis.sheet.items()},
    ]


def test_every_work_gives_what_it_gives_in_this_process(
    cluster: RayCluster, mini: Mini, whole: HRV, tmp_path: Path
) -> None:
    said: list[str] = []
    told: list[Progress] = []
    with executor_at(cluster.address, whole_recipe, said.append) as ray, torch.inference_mode():
        assert build(mini, tmp_path / "build", ray, told.append).same_as(whole)
        assert [progress.done for progress in told] == [2, 4, 6, 8, 10, 12]
        assert "worker" in str(told[-1]) and "images/s" in str(told[-1])
        hrv, others = made(mini, whole, tmp_path / "ray", ray)
        expected_hrv, expected = made(mini, whole, tmp_path / "here", HERE)
    assert hrv.same_as(expected_hrv) and others == expected
    assert not [sentence for sentence in said if "Still waiting" not in sentence]


def test_a_killed_worker_and_one_that_hangs_and_one_that_comes_late(
    cluster: RayCluster, mini: Mini, whole: HRV, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first step one worker dies and the other stops for good: the end is made by who came after that."""
    said: list[str] = []
    stopped: list[psutil.Process] = []

    def strike(done: int, *_: Any, **__: Any) -> None:
        if done and not stopped:
            dying, *others = cluster.workers()
            dying.kill()
            stopped.extend(others)
            for other in others:
                other.suspend()
            cluster.join(1)

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", strike)
    try:
        with executor_at(cluster.address, mini_recipe, said.append) as ray:
            assert build(mini, tmp_path, ray).same_as(whole)
    finally:
        for process in stopped:
            process.kill()
    assert any(sentence.startswith("Lost worker") for sentence in said)


def test_a_cancel_stops_all_workers(
    cluster: RayCluster, mini: Mini, whole: HRV, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work: list[psutil.Process] = []

    def cancel(done: int, *_: Any, **__: Any) -> None:
        if done and not at_work:
            at_work.extend(cluster.workers())
            comfy.model_management.interrupt_current_processing()

    with monkeypatch.context() as patch:
        patch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", cancel)
        with pytest.raises(InterruptProcessingException), executor_at(cluster.address, mini_recipe, print) as ray:
            build(mini, tmp_path, ray)
    assert at_work and not psutil.wait_procs(at_work, timeout=30)[1]
    # As if nothing had happened.
    assert build(mini, tmp_path).same_as(whole)


def test_two_commands_at_once_of_which_one_is_killed_and_resumes(
    cluster: RayCluster, whole: HRV, commands: Commands, tmp_path: Path
) -> None:
    """The one that is killed had begun; then its workers go to the other."""
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS), encoding="utf-8")
    (tmp_path / "concepts.txt").write_text(VOCABULARY.to_text(), encoding="utf-8")

    def command(name: str) -> list[str]:
        return [
            "build_hrv.py", "--checkpoint", "hrv-mini", "--run-on", cluster.address,
            "--concepts", str(tmp_path / "concepts.txt"), "--prompts", str(tmp_path / "prompts.txt"),
            "--states", str(tmp_path / f"{name}-states"), "--out", str(tmp_path / f"{name}.safetensors"),
            "--images", "12", "--seed", "3", "--steps", "2", "--cfg", "3", "--sampler", "euler_ancestral",
            "--width", "32", "--height", "32", "--batch-size", "2",
        ]  # fmt: skip

    def start(name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(alone(*command(name)), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    with start("one") as one, start("two") as two:
        assert one.stderr is not None and two.stderr is not None
        told = ""
        while " of 12 images" not in told and (character := one.stderr.read(1)):
            told += character
        assert " of 12 images" in told, told
        os.kill(one.pid, signal.SIGKILL)
        _, log = two.communicate(timeout=300)
        assert two.returncode == 0, log
    assert load_hrv(tmp_path / "two.safetensors").same_as(whole)
    assert not (tmp_path / "one.safetensors").exists()
    done = commands.run(*command("one"))
    assert done.returncode == 0, done.stderr
    assert load_hrv(tmp_path / "one.safetensors").same_as(whole)


def test_the_command_that_checks_hrvs_finds_the_same(cluster: RayCluster, commands: Commands, tmp_path: Path) -> None:
    def found(place: str, name: str) -> Any:
        command = [
            "which_hrv.py", "--checkpoint", "hrv-mini", "--run-on", place,
            "--states", str(tmp_path / f"{name}-states"), "--out", str(tmp_path / name), "--check", "Color",
            "--pairs", "1", "--prompts", "2", "--seeds", "1", "--random-orders", "1", "--head-counts", "20%",
            "--steps", "2", "--width", "32", "--height", "32",
        ]  # fmt: skip
        done = commands.run(*command)
        assert done.returncode == 0, done.stderr
        report = json.loads((tmp_path / name / "report.json").read_text(encoding="utf-8"))
        return report["hrvs"], report["findings"]

    assert found(cluster.address, "there") == found("this machine", "here")


def test_a_checkpoint_that_workers_do_not_have(cluster: RayCluster, mini: Mini, tmp_path: Path) -> None:
    said: list[str] = []
    with (
        pytest.raises(HRVError, match=r"No worker is left\. Worker \d+ on .+ cannot take part: the node Checkpoint"),
        executor_at(cluster.address, lambda: checkpoint_recipe("nowhere.safetensors"), said.append) as ray,
    ):
        build(mini, tmp_path, ray)
    assert any("nowhere.safetensors" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("127.0.0.1:1", r"No Ray cluster answers at 127\.0\.0\.1:1 \("),
        ("somewhere", "'somewhere' isn't the address of a Ray cluster: write one like"),
        ("ray://127.0.0.1:10001", "Addresses with ray:// are not supported"),
    ],
)
def test_addresses_of_no_cluster(place: str, sentence: str, mini: Mini, tmp_path: Path) -> None:
    with pytest.raises(HRVError, match=sentence), executor_at(place, mini_recipe, print) as ray:
        build(mini, tmp_path, ray)


@contextlib.contextmanager
def what_listens() -> Iterator[set[str]]:
    """The addresses at which processes that this one starts meanwhile listen."""
    found: set[str] = set()
    over = Event()

    def watch() -> None:
        while not over.wait(0.5):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    connections = process.net_connections("inet")
                    found.update(one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN)

    watching = Thread(target=watch)
    watching.start()
    try:
        yield found
    finally:
        over.set()
        watching.join()


def test_a_machine_without_gpus(mini: Mini, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cluster that is started to find that out, for this machine alone, listens on the loopback device only."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with tempfile.TemporaryDirectory(prefix="hrv-ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        with (
            what_listens() as addresses,
            pytest.raises(HRVError, match="Ray finds no GPU on this machine"),
            executor_at(ALL_GPUS, mini_recipe, print) as ray,
        ):
            build(mini, tmp_path, ray)
    assert addresses and addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_without_ray_a_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with (
        pytest.raises(HRVError, match=r"Ray isn't installed\. Install it with: .+ -m pip install"),
        executor_at(ALL_GPUS, mini_recipe, print),
    ):
        pass
    with executor_at("this machine", mini_recipe, print) as here:
        assert here is HERE


def test_pieces_fit_into_what_may_wait() -> None:
    """Otherwise no test here would see results out of order."""
    assert BUILD.images // BUILD.batch_size < dealing.AHEAD
