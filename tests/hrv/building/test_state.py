"""States of builds: what is saved comes back bit for bit, and what cannot be used is refused and left alone."""

from __future__ import annotations

import errno
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hrv_pack.hrv.building.state import BuildState
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.storage.atomic_files import remove_temporaries, write_atomically
from hrv_pack.tests.support.growth import growth_of, sparse

SHAPE = (2, 3, 5)
ENDS = range(3, 60, 3)


def fresh(key: str = "a" * 64, shape: tuple[int, ...] = SHAPE) -> BuildState:
    return BuildState(key, np.zeros(shape, dtype=np.int64), ENDS)


def counted(batches: int, seed: int = 0, size: int = 3) -> BuildState:
    state, random = fresh(), np.random.default_rng(seed)
    for batch in range(batches):
        state.add(random.integers(0, 9, SHAPE), range(batch * size, (batch + 1) * size))
    return state


def same(one: BuildState, other: BuildState) -> bool:
    return np.array_equal(one.halves, other.halves) and (one.key, one.done, one.curve) == (
        other.key,
        other.done,
        other.curve,
    )


def test_a_saved_state_comes_back(tmp_path: Path) -> None:
    state = counted(12)
    assert len(state.curve) > 5
    state.save(tmp_path / "state")
    assert same(fresh().resumed(tmp_path / "state"), state)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_without_a_file_a_build_begins(tmp_path: Path) -> None:
    beginning = fresh()
    assert beginning.resumed(tmp_path / "state") is beginning


@pytest.mark.parametrize("broken_at", range(1, 9))
def test_going_on_ends_like_never_having_stopped(tmp_path: Path, broken_at: int) -> None:
    """Also in where convergence is measured, on which an early stop depends."""
    random = np.random.default_rng(0)
    state = fresh()
    for batch in range(9):
        if batch == broken_at:
            state.save(tmp_path / "state")
            state = fresh().resumed(tmp_path / "state")
        state.add(random.integers(0, 9, SHAPE), range(batch * 3, (batch + 1) * 3))
    assert same(state, counted(9))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other", "foreign", "shape"])
def test_what_cannot_be_used_is_refused_and_stays(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state"
    counted(4).save(path)
    content = bytearray(path.read_bytes())
    wanted = fresh()
    if damage == "cut":
        content = content[:-3]
    elif damage == "flipped":
        content[-1] ^= 1
    elif damage == "empty":
        content = bytearray()
    elif damage == "foreign":
        content = bytearray(b"hello" * 100)
    elif damage == "other":
        wanted = fresh("b" * 64)
    else:
        wanted = fresh(shape=(2, 3, 6))
    path.write_bytes(content)
    with pytest.raises(HRVError, match=r"^it(s header)? .*\.$"):
        wanted.resumed(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("more", [False, True], ids=["counts", "more"])
def test_large_files_are_refused_without_reading_them(tmp_path: Path, more: bool) -> None:
    """Three gigabytes with the name of a state: of what the build has, or of what it doesn't know."""
    metadata = {f"hrv.build.{name}": "" for name in ("done", "curve", "sha256")}
    metadata |= {"hrv.build.format": "1", "hrv.build.key": "a" * 64}
    shape, size = (SHAPE, 240) if more else ((2, 3, 70_000_000), 3_360_000_000)
    header = {"__metadata__": metadata, "halves": {"dtype": "I64", "shape": shape, "data_offsets": [0, size]}}
    if more:
        header["more"] = {"dtype": "U8", "shape": [3_000_000_000], "data_offsets": [size, size + 3_000_000_000]}
        size += 3_000_000_000
    text = json.dumps(header).encode()
    path = sparse(tmp_path / "state", struct.pack("<Q", len(text)) + text, 8 + len(text) + size)
    growth = growth_of("state", path)
    assert growth.said == "it is of another build: its arrays have other shapes." and growth.bytes < 50_000_000


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_failure_to_save_keeps_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    path = tmp_path / "state"
    counted(2).save(path)

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as failing:
        failing.setattr("os.fsync", fail)
        with pytest.raises(HRVError, match=r"What was saved before is still there"):
            counted(3).save(path)
    assert same(fresh().resumed(path), counted(2))
    assert [left.name for left in tmp_path.iterdir()] == ["state"]


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, other = tmp_path / "a[1]", tmp_path / "b"

    class Killed(BaseException):
        pass

    def killed(*args: Any, **kwargs: Any) -> None:
        raise Killed

    for path in (target, other):
        with monkeypatch.context() as dying:
            dying.setattr(Path, "replace", killed)
            dying.setattr(Path, "unlink", lambda path, missing_ok: None)
            with pytest.raises(Killed):
                write_atomically(path, b"new")
    assert len(list(tmp_path.iterdir())) == 2
    remove_temporaries(target)
    assert [path.name.startswith(".b.") for path in tmp_path.iterdir()] == [True]
