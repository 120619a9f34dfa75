"""The job loop and its executor, on a job whose work is adding numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import pytest
from comfy.model_management import InterruptProcessingException
from hrv_pack.host.work import states
from hrv_pack.host.work.executor import Here, Tick
from hrv_pack.host.work.job import Progress, job_key, run_job, shard_of
from hrv_pack.hrv.errors import HRVError
from hrv_pack.tests.support.squares import Squares


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What the host's progress bar is told: (steps done, steps in all)."""
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda done, total, *_, **__: found.append((done, total)))
    return found


def test_all_pieces_are_made_in_order_and_told(tmp_path: Path, told: list[tuple[int, int]]) -> None:
    job = Squares([1, 2, 3])
    reports: list[Progress] = []
    state = run_job(job, tmp_path, reports.append)
    assert state.squares.tolist() == [1, 4, 9] and job.made == [1, 2, 3] and job.prepared == 1
    assert [(report.done, report.total, report.detail) for report in reports] == [
        (1, 6, ""), (3, 6, "at 2"), (6, 6, "at 3"),
    ]  # fmt: skip
    assert reports[-1].seconds == 0
    assert told[0] == (0, 12) and told[-1] == (12, 12)


def test_a_finished_job_prepares_nothing_and_is_there_at_once(tmp_path: Path) -> None:
    run_job(Squares([1, 2]), tmp_path)
    again = Squares([1, 2])
    assert run_job(again, tmp_path).squares.tolist() == [1, 4] and not again.made and not again.prepared


def test_a_job_ends_early_when_there_is_enough(tmp_path: Path) -> None:
    job = Squares([1, 2, 3, 4], enough=5)
    assert run_job(job, tmp_path).squares.tolist() == [1, 4, 0, 0]
    again = Squares([1, 2, 3, 4], enough=5)
    run_job(again, tmp_path)
    assert not again.made


def test_what_was_made_before_a_failure_is_kept(tmp_path: Path, told: list[tuple[int, int]]) -> None:
    failing = Squares([1, 2, 3], fail_at=3)
    with pytest.raises(ArithmeticError):
        run_job(failing, tmp_path)
    again = Squares([1, 2, 3])
    told.clear()
    assert run_job(again, tmp_path).squares.tolist() == [1, 4, 9] and again.made == [3]
    assert told[0] == (6, 12), "progress begins with what is there"


def test_a_cancel_ends_the_job_before_the_next_piece(tmp_path: Path) -> None:
    def cancel(progress: Progress) -> None:
        comfy.model_management.interrupt_current_processing()

    job = Squares([1, 2, 3])
    with pytest.raises(InterruptProcessingException):
        run_job(job, tmp_path, cancel)
    assert job.made == [1]
    assert run_job(Squares([1, 2, 3]), tmp_path).squares.tolist() == [1, 4, 9]


def test_a_killed_process_loses_what_was_not_saved_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file on disk after each piece is one that the job resumes from."""
    monkeypatch.setattr(states, "SAVE_EVERY", 0.0)
    for pieces in range(1, 4):
        folder = tmp_path / str(pieces)
        files: list[bytes] = []

        def look(progress: Progress, folder: Path = folder, files: list[bytes] = files) -> None:
            files.append(content(folder))

        run_job(Squares([1, 2, 3]), folder, look)
        (file,) = folder.glob("*.safetensors")
        file.write_bytes(files[pieces - 1])
        again = Squares([1, 2, 3])
        assert run_job(again, folder).squares.tolist() == [1, 4, 9] and again.made == [1, 2, 3][pieces:]


def content(folder: Path) -> bytes:
    (file,) = folder.glob("*.safetensors")
    return file.read_bytes()


def test_one_job_is_done_by_one_process_at_a_time(tmp_path: Path) -> None:
    refused: list[str] = []

    def again(progress: Progress) -> None:
        with pytest.raises(HRVError) as caught:
            run_job(Squares([1, 2]), tmp_path)
        refused.append(str(caught.value))

    run_job(Squares([1, 2]), tmp_path, again)
    assert len(refused) == 2 and "Another process is working on this sum" in refused[0]


def test_another_executor_gets_the_pieces_that_are_left(tmp_path: Path) -> None:
    class Watched(Here):
        given: Sequence[Any] = ()

        def run(self, job: Any, pieces: Sequence[Any], tick: Tick) -> Iterator[tuple[Any, Any]]:
            self.given = list(pieces)
            yield from super().run(job, pieces, tick)

    watched = Watched()
    with pytest.raises(ArithmeticError):
        run_job(Squares([1, 2, 3], fail_at=2), tmp_path)
    run_job(Squares([1, 2, 3]), tmp_path, executor=watched)
    assert watched.given == [2, 3]


def test_progress_as_people_read_it() -> None:
    assert str(Progress(2, 7, "images", 3725.4, "agreement 0.973")) == "2 of 7 images, agreement 0.973, 1:02:05 left"
    assert str(Progress(1, 7, "pairs", 59.6)) == "1 of 7 pairs, 0:01:00 left"


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10])
def test_shards_are_the_whole_grid_each_piece_once(count: int) -> None:
    grid = list(range(10))
    assert [piece for index in range(1, count + 1) for piece in shard_of(grid, (index, count))] == grid


def test_keys_depend_on_every_part_and_not_on_the_order_of_names() -> None:
    assert job_key({"a": 1, "b": 2}, 3) == job_key({"b": 2, "a": 1}, 3)
    assert len({job_key({"a": 1}, 3), job_key({"a": 2}, 3), job_key({"a": 1}, 4), job_key(3, {"a": 1})}) == 4
