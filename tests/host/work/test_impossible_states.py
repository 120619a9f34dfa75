"""States with a right checksum and a wrong content, of every kind of work: set aside, and the work begins again."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hrv_pack.host.building.causal_checks import CheckState
from hrv_pack.host.work.states import State, kept_state
from hrv_pack.hrv.building.causal_state import CausalState
from hrv_pack.hrv.building.state import BuildState
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.storage.state_file import write_state
from hrv_pack.hrv.weakening.state import WeakeningState
from hrv_pack.tests.support.fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st

KEY = "a" * 64
RANDOM = np.random.default_rng(0)

Texts = dict[str, str]
Arrays = dict[str, np.ndarray]
Change = Callable[[Texts, Arrays], object]


class Kind(NamedTuple):
    """A kind of work: its state at the beginning, and what a file of it holds half way."""

    fresh: Callable[[], Any]
    texts: Callable[[], Texts]
    arrays: Callable[[], Arrays]


def point(images: int) -> dict[str, Any]:
    return {"images": images, "halves": 0.5, "halves_least": 0.25, "expected": 0.75, "expected_least": 0.5}


def half(shape: tuple[int, ...], done: int) -> np.ndarray:
    found = np.full(shape, np.nan, dtype=np.float32)
    found[:done] = RANDOM.uniform(0.1, 1, found[:done].shape)
    return found


def scores() -> np.ndarray:
    found = np.full(6, np.nan)
    # The second could not be scored.
    found[[0, 2, 3]] = 0.25, 0.5, 0.75
    return found


KINDS = {
    "build": Kind(
        lambda: BuildState(KEY, np.zeros((2, 3, 5), np.int64), [2, 4, 6, 7]),
        lambda: {"done": "4", "curve": json.dumps([point(2), point(4)])},
        lambda: {"halves": RANDOM.integers(0, 9, (2, 3, 5))},
    ),
    "causal build": Kind(
        lambda: CausalState.beginning(KEY, 6, 5, range(4)),
        dict,
        lambda: {"effects": half((6, 5), 3), "norms": half((6,), 3), "groups": half((6, 4), 2)},
    ),
    "causal check": Kind(
        lambda: CheckState(KEY, np.full((3, 2), np.nan, np.float32)), dict, lambda: {"found": half((3, 2), 2)}
    ),
    "analysis": Kind(
        lambda: WeakeningState.beginning(KEY, 6, 3, (2, 4, 3)),
        lambda: {"done": "2"},
        lambda: {"scores": scores(), "sheet": np.zeros((2, 4, 3, 3), np.uint8)},
    ),
}


def path_in(folder: Path) -> Path:
    return folder / f"{KEY[:32]}.safetensors"


def put(where: tuple[Any, ...], value: float) -> Change:
    """Put a number into an array of a state, by its name and its place."""
    name, *place = where

    def change(texts: Texts, arrays: Arrays) -> None:
        arrays[name][tuple(place)] = value

    return change


def text(name: str, value: str) -> Change:
    return lambda texts, arrays: texts.update({name: value})


def curve(*points: Any) -> Change:
    return text("curve", json.dumps(list(points)))


def cast(name: str, dtype: str) -> Change:
    return lambda texts, arrays: arrays.update({name: arrays[name].astype(dtype)})


def drop(name: str) -> Change:
    return lambda texts, arrays: texts.pop(name, None) or arrays.pop(name, None)


DEEP = "[" * 100_000 + "]" * 100_000

IMPOSSIBLE: dict[str, dict[str, Change]] = {
    "build": {
        "negative counts": put(("halves", 0, 0, 0), -1),
        "overflowing counts": put(("halves", 0, 0, 0), 2**62),
        "floats": cast("halves", "float64"),
        "smaller counts": cast("halves", "int32"),
        "beyond the grid": text("done", "8"),
        "far beyond the grid": text("done", "9" * 400),
        "inside a batch": text("done", "3"),
        "negative done": text("done", "-2"),
        "no number": text("done", "two"),
        "another digit": text("done", "٤"),
        "counts of nothing": lambda texts, arrays: texts.update(done="0", curve="[]"),
        "no curve": drop("curve"),
        "no counts": drop("halves"),
        "deep": text("curve", DEEP),
        "no JSON": text("curve", "]"),
        "no list": text("curve", "{}"),
        "another list": curve(1, 2),
        "NaN": text("curve", json.dumps([{**point(2), "halves": float("nan")}])),
        "huge": curve({**point(2), "expected": 1e300}),
        "a text": curve({**point(2), "expected": "0.5"}),
        "half an image": curve({**point(2), "images": 2.0}),
        "a point more": curve(point(2), point(6)),
        "points backwards": curve(point(4), point(2)),
        "a field less": curve({"images": 2}),
        "a field more": curve({**point(2), "more": 1.0}),
        "more arrays": lambda texts, arrays: arrays.update(more=np.zeros(1)),
        "more texts": text("more", ""),
    },
    "causal build": {
        "infinite effects": put(("effects", 0, 0), np.inf),
        "half a pair": put(("effects", 0, 0), np.nan),
        "negative norms": put(("norms", 0), -0.5),
        "infinite norms": put(("norms", 0), np.inf),
        "pairs of another shard": lambda texts, arrays: [arrays[name].__setitem__(5, 0.5) for name in arrays],
        "half a group": put(("groups", 0, 0), np.nan),
        "infinite groups": put(("groups", 0, 0), -np.inf),
        "other dtypes": cast("norms", "float64"),
        "no groups": drop("groups"),
    },
    "causal check": {
        "half a check": put(("found", 0, 0), np.nan),
        "infinite": put(("found", 0, 0), np.inf),
        "negative": put(("found", 0, 1), -1.0),
        "other dtypes": cast("found", "float64"),
        "nothing": drop("found"),
    },
    "analysis": {
        "infinite": put(("scores", 0), np.inf),
        "beyond the grid": text("done", "4"),
        "negative": text("done", "-1"),
        "other dtypes": cast("scores", "float32"),
        "another sheet": cast("sheet", "float64"),
        "no sheet": drop("sheet"),
        "no number": drop("done"),
    },
}
CASES = [(kind, name) for kind, changes in IMPOSSIBLE.items() for name in changes]


def equal(mine: Any, its: Any) -> bool:
    if not isinstance(mine, np.ndarray):
        return bool(mine == its)
    return mine.dtype == its.dtype and np.array_equal(mine, its, equal_nan=mine.dtype.kind == "f")


def same(one: State, other: State) -> bool:
    return vars(one).keys() == vars(other).keys() and all(map(equal, vars(one).values(), vars(other).values()))


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_work_may_have_saved_is_resumed(kind: str, tmp_path: Path) -> None:
    work = KINDS[kind]
    texts, arrays = work.texts(), work.arrays()
    write_state(path_in(tmp_path), kind, KEY, texts, arrays)
    with kept_state(work.fresh(), tmp_path, kind) as kept:
        assert all(equal(array, vars(kept.state)[name]) for name, array in arrays.items())
    assert not list(tmp_path.glob("*.unusable*"))
    with kept_state(work.fresh(), tmp_path / "new", kind) as kept:
        assert same(kept.state, work.fresh())
    with kept_state(work.fresh(), tmp_path / "new", kind) as kept:
        assert same(kept.state, work.fresh())


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("analysis", put(("scores", 4), 0.5)),
        ("analysis", text("done", "1")),
        ("causal build", put(("effects", 3, 0), 0.5)),
        ("causal build", put(("groups", 3, 0), 0.5)),
    ],
)
def test_work_that_failed_while_it_kept_a_piece_is_resumed(kind: str, change: Change, tmp_path: Path) -> None:
    """Half a piece is there, which counts as none: a full disk costs no more than that."""
    work = KINDS[kind]
    texts, arrays = work.texts(), work.arrays()
    change(texts, arrays)
    write_state(path_in(tmp_path), kind, KEY, texts, arrays)
    with kept_state(work.fresh(), tmp_path, kind) as kept:
        assert not same(kept.state, work.fresh())
    assert not list(tmp_path.glob("*.unusable*"))


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_impossible_states_are_set_aside_and_the_work_begins_again(
    kind: str, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    work = KINDS[kind]
    texts, arrays = work.texts(), work.arrays()
    IMPOSSIBLE[kind][name](texts, arrays)
    path = path_in(tmp_path)
    write_state(path, kind, KEY, texts, arrays)
    before = path.read_bytes()
    with caplog.at_level(logging.WARNING), kept_state(work.fresh(), tmp_path, kind) as kept:
        assert same(kept.state, work.fresh())
    (sentence,) = (record.getMessage() for record in caplog.records)
    assert sentence.startswith(f"[HRV] The state of the {kind} in {path} cannot be used: it") and len(sentence) < 500
    assert sentence.endswith(f". It is now called {KEY[:32]}.unusable, and the {kind} begins again.")
    assert path.with_suffix(".unusable").read_bytes() == before
    caplog.clear()
    with kept_state(work.fresh(), tmp_path, kind) as kept:
        assert same(kept.state, work.fresh())
    assert not caplog.records


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 64, bytes(64)])
def test_damaged_states_are_set_aside_one_after_the_other(content: bytes, tmp_path: Path) -> None:
    path = path_in(tmp_path)
    work = KINDS["build"]
    for number in range(3):
        path.write_bytes(content + bytes([number]))
        with kept_state(work.fresh(), tmp_path, "build"):
            pass
    kept = {one.name.partition(".")[2]: one.read_bytes() for one in tmp_path.glob("*.unusable*")}
    assert kept == {
        "unusable": content + b"\0",
        "unusable-2": content + b"\1",
        "unusable-3": content + b"\2",
    }


@pytest.mark.parametrize("links", ["file", "folder", "both"])
def test_states_may_be_links(links: str, tmp_path: Path) -> None:
    """A link stays one when the state is saved, and is set aside when what it leads to cannot be used."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "states"
    elsewhere.mkdir()
    if links == "file":
        folder.mkdir()
    else:
        folder.symlink_to(elsewhere, target_is_directory=True)
    work, path = KINDS["analysis"], path_in(folder)
    target = tmp_path / "disk" / "state" if links != "folder" else elsewhere / path.name
    target.parent.mkdir(exist_ok=True)
    write_state(target, "analysis", KEY, work.texts(), work.arrays())
    if links != "folder":
        path.symlink_to(target)
    before = target.read_bytes()
    with kept_state(work.fresh(), folder, "analysis") as kept:
        assert kept.state.done == 2
        kept.state.done = 3
    assert target.read_bytes() != before and path.is_symlink() == (links != "folder")
    target.write_bytes(b"damaged")
    with kept_state(work.fresh(), folder, "analysis") as kept:
        assert kept.state.done == 0
    assert path.with_suffix(".unusable").read_bytes() == b"damaged"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.builds(point, st.integers(-1, 9)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
HOSTILE = [0, 1, -1, 0.5, float("nan"), float("inf"), -float("inf"), 2**53, 2**53 + 1, 2**62, -(2**62), 1e-45]


@fuzz(examples=200)
@given(kind=st.sampled_from(sorted(KINDS)), data=st.data())
def test_any_content_is_resumed_or_refused(kind: str, data: st.DataObject, tmp_path: Path) -> None:
    """What is resumed can go on: its numbers are such as work adds to and HRVs are made of."""
    work = KINDS[kind]
    texts, arrays = work.texts(), work.arrays()
    for _ in range(data.draw(st.integers(1, 3))):
        if data.draw(st.booleans()) and texts:
            name = data.draw(st.sampled_from(sorted(texts)))
            texts[name] = data.draw(st.text(max_size=8) | st.integers(-1, 9).map(str) | JSON.map(json.dumps))
        else:
            name = data.draw(st.sampled_from(sorted(arrays)))
            array = arrays[name]
            place = data.draw(st.integers(0, array.size - 1))
            with np.errstate(all="ignore"):
                array.flat[place] = np.array(data.draw(st.sampled_from(HOSTILE))).astype(array.dtype)
    write_state(tmp_path / "state", kind, KEY, texts, arrays)
    fresh = work.fresh()
    try:
        state = fresh.resumed(tmp_path / "state")
    except HRVError as error:
        assert str(error).startswith("it") and len(str(error)) < 300
        return
    assert state.key == KEY
    if isinstance(state, BuildState):
        assert (state.counts >= 0).all() and (state.done == 0 or state.done in state.ends)
        assert all(0 < one.images <= state.done for one in state.curve)
        state.add(np.ones_like(state.halves), range(2))
    elif isinstance(state, CausalState):
        assert np.isfinite(state.effects[state.done]).all() and not state.done[4:].any()
    elif isinstance(state, CheckState):
        assert (np.isnan(state.found).all(axis=1) | np.isfinite(state.found).all(axis=1)).all()
    else:
        assert 0 <= state.done <= 3 and not np.isinf(state.scores).any()
