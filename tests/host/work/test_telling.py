"""What the page is told of work on a node, and what is remembered of it for later."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from comfy.model_management import InterruptProcessingException
from comfy_execution.utils import CurrentNodeContext
from hrv_pack.host.page.hrvs import given_hrv
from hrv_pack.host.routes.results import statuses_of
from hrv_pack.host.work import telling as telling_module
from hrv_pack.host.work.status import Curve, Curves, Seen
from hrv_pack.host.work.status_board import MOST, StatusBoard
from hrv_pack.host.work.telling import telling
from hrv_pack.hrv.heads.families import FAMILIES
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.tests.support.told_page import Message, told_page

LAYOUT = FAMILIES[0].layout()


def hrv_of(seed: int) -> HRV:
    return HRV(np.random.default_rng(seed).random((1, LAYOUT.head_count), dtype=np.float32), ("Color",), LAYOUT)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "user" / "statuses.json"


@pytest.fixture(autouse=True)
def sent(file: Path) -> Iterator[list[Message]]:
    with told_page(file) as sent:
        yield sent


def test_work_is_told_from_its_beginning_to_its_end(sent: list[Message], tmp_path: Path) -> None:
    kept = tmp_path / "state"
    kept.touch()
    made = [1.0, float("nan")]
    curves = Curves("images", "agreement", [Curve.of("all", [1, 2], made)])
    with telling("build", "images", 16, lambda: Seen(curves, hrv_of(1)), done=3, kept=kept) as teller:
        teller.tell(4, 12.5, "detail")
    assert {(name, page) for name, _, page in sent} == {("hrv.status", "page")}
    begun, going, ended = (message for _, message, _ in sent)
    assert (begun["workflow"], begun["prompt_id"], begun["node"]) == ("w", "run", "4:7")
    assert (begun["state"], begun["done"], begun["total"], begun["seconds"]) == ("running", 3, 16, None)
    assert (going["done"], going["seconds"], going["detail"], going["kept"]) == (4, 12.5, "detail", True)
    assert (ended["state"], ended["done"], ended["seconds"]) == ("done", 4, None)
    assert going["curves"]["curves"] == [{"name": "all", "across": [1, 2], "up": [1.0, None]}]
    assert str(tmp_path) not in json.dumps(sent)
    # The board holds the HRV so far, which nothing else does.
    assert given_hrv(going["hrv"]).same_as(hrv_of(1))


@pytest.mark.parametrize(
    ("error", "state"), [(InterruptProcessingException, "cancelled"), (ArithmeticError, "failed"), (None, "done")]
)
def test_how_work_ended_is_there_for_a_page_that_opens_later(error: type[BaseException] | None, state: str) -> None:
    def work() -> None:
        with telling("build", "images", 16, Seen) as teller:
            teller.tell(4)
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(error):
            work()
    assert [(one["node"], one["state"], one["done"], one["kept"]) for one in statuses_of("w")] == [
        ("4:7", state, 4, False)
    ]
    assert statuses_of("another") == statuses_of("") == []


def test_messages_leave_time_for_the_work(sent: list[Message], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling_module, "TELL_EVERY", 1000.0)
    looks: list[int] = []

    def seen() -> Seen:
        looks.append(1)
        return Seen()

    with telling("build", "images", 16, seen) as teller:
        for done in range(1, 17):
            teller.tell(done)
    assert [message["done"] for _, message, _ in sent] == [0, 1, 16]
    assert len(looks) == 3


def test_further_work_of_a_run_leaves_what_was_seen_before_it() -> None:
    curves = Curves("pairs", "agreement", [Curve.of("least", [1], [0.5])])
    with telling("causal build", "pairs", 1, lambda: Seen(curves, hrv_of(2))):
        pass
    with telling("causal check", "checks", 1, Seen):
        pass
    (found,) = statuses_of("w")
    assert (found["kind"], found["curves"]["up"]) == ("causal check", "agreement")
    assert given_hrv(found["hrv"]).same_as(hrv_of(2))
    with CurrentNodeContext("another run", "4:7", None), telling("build", "images", 1, Seen):
        pass


def test_outside_of_a_run_nobody_is_told(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setattr("hrv_pack.host.page.running.get_executing_context", lambda: None)
    with telling("build", "images", 16, lambda: pytest.fail("nobody looks")) as teller:
        teller.tell(4)
        teller.save()
    assert not file.exists()


def test_work_of_a_process_that_was_killed_is_interrupted(file: Path, tmp_path: Path) -> None:
    kept = tmp_path / "state"
    kept.touch()
    with telling("build", "images", 16, lambda: Seen(hrv=hrv_of(3)), kept=kept) as teller:
        teller.tell(4)
        teller.save()
        (after,) = StatusBoard(file).of("w")
        assert (after.state, after.done, after.hrv, after.public()["kept"]) == ("interrupted", 4, None, True)
        kept.unlink()
        assert not after.public()["kept"]
    (after,) = StatusBoard(file).of("w")
    assert (after.state, after.done) == ("done", 4)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'[{"workflow": "w"}]', b"[" * 5000, b"\xff"])
def test_a_file_that_is_no_board_counts_as_nothing(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert StatusBoard(file).of("w") == []


def test_memory_and_file_are_bounded(file: Path) -> None:
    for number in range(3 * MOST):
        with CurrentNodeContext("run", str(number), None), telling("build", "images", 1, Seen):
            pass
    assert [one["node"] for one in statuses_of("w")] == [str(number) for number in range(2 * MOST, 3 * MOST)]
    assert len(json.loads(file.read_text())) == MOST


def test_a_folder_that_cannot_be_written_stops_no_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "user").write_text("no folder")
    with telling("build", "images", 1, Seen) as teller:
        teller.tell(1)
    assert statuses_of("w")[0]["state"] == "done"
