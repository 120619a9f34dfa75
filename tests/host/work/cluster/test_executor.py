"""What this process does with what the dealing one tells, which is a stand-in here: no Ray, no workers."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import comfy.model_management
import psutil
import pytest
from comfy.model_management import InterruptProcessingException
from hrv_pack.host.work import states
from hrv_pack.host.work.cluster import executor
from hrv_pack.host.work.cluster.executor import RayExecutor
from hrv_pack.host.work.cluster.recipe import Recipe
from hrv_pack.host.work.job import Progress, run_job
from hrv_pack.hrv.errors import HRVError
from hrv_pack.tests.support.squares import Squares
from launcher.paths import PACK_ROOT

DEALING = f"""
import sys
sys.path.append({str(PACK_ROOT / "host" / "work" / "cluster")!r})
from messages import Channel
parent = Channel(sys.stdin.buffer, sys.stdout.buffer)
parent.receive()
made = 0
while message := parent.receive():
    if message[0] != "job":
        continue
    for number, piece in enumerate(message[2]):
        WHAT
        parent.send("made", 1, number, piece * piece)
"""
"""A script that squares numbers as the dealing process deals pieces, and does WHAT before each."""

SENTENCE = "Worker 2 on second (10.0.0.2) cannot take part: its ComfyUI is version 0.0.1."

Dealing = Callable[..., RayExecutor]


@pytest.fixture
def dealing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dealing:
    """An executor whose dealing process does something before each piece."""

    def started(what: str, say: Callable[[str], None] = print) -> RayExecutor:
        (tmp_path / "scripts").mkdir()
        (tmp_path / "scripts" / "deal_work.py").write_text(DEALING.replace("WHAT", what), encoding="utf-8")
        monkeypatch.setattr(executor, "PACK_ROOT", tmp_path)
        return RayExecutor("auto", Recipe({}, {}), say)

    return started


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "deal_work.py" in "".join(child.cmdline())]


def test_a_full_disk_here_stops_the_workers_and_loses_nothing_saved(
    dealing: Dealing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = dealing("pass")
    saved = []
    synchronise = os.fsync

    def fill_up(descriptor: int) -> None:
        saved.append(descriptor)
        # A file and its folder are synchronised at each save: at the beginning, after the first piece.
        if len(saved) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synchronise(descriptor)

    with monkeypatch.context() as full:
        full.setattr(states, "SAVE_EVERY", 0.0)
        full.setattr("os.fsync", fill_up)
        with pytest.raises(HRVError, match=r"the disk is full\. What was saved before is still there"):
            run_job(Squares([1, 2, 3]), tmp_path, executor=ray)
    (process,) = children()
    ray.close()
    assert not process.is_running()
    again = Squares([1, 2, 3])
    assert run_job(again, tmp_path).squares.tolist() == [1, 4, 9] and again.made == [2, 3]


def test_a_dealing_process_that_is_gone_is_told_and_what_was_made_is_saved(dealing: Dealing, tmp_path: Path) -> None:
    ray = dealing("number == 2 and sys.exit(3)")
    with pytest.raises(HRVError, match=r"The connection to auto was lost\. What was made is saved"):
        run_job(Squares([1, 2, 3]), tmp_path, executor=ray)
    ray.close()
    again = Squares([1, 2, 3])
    assert run_job(again, tmp_path).squares.tolist() == [1, 4, 9] and again.made == [3]


def test_a_cancel_is_noticed_while_nothing_comes(dealing: Dealing, tmp_path: Path) -> None:
    ray = dealing("number == 1 and parent.receive()")

    def cancel(progress: Progress) -> None:
        comfy.model_management.interrupt_current_processing()

    with pytest.raises(InterruptProcessingException):
        run_job(Squares([1, 2, 3]), tmp_path, cancel, ray)
    ray.close()
    assert not children()


def test_sentences_of_workers_are_passed_on_and_errors_end_the_work(
    dealing: Dealing, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = f"number == 1 and parent.send('said', {SENTENCE!r}); number == 2 and parent.send('error', 'Enough.')"
    said: list[str] = []
    ray = dealing(told, said.append)
    with pytest.raises(HRVError, match=r"^Enough\.$"):
        run_job(Squares([1, 2, 3]), tmp_path, executor=ray)
    ray.close()
    assert f"[HRV] {SENTENCE}" in caplog.messages and said == [SENTENCE]
