"""Runs on the real server: results, refusals, failures, cancelling, and that the server survives each."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from launcher.api_client import (
    ApiClient,
    ConnectionLostError,
    Event,
    InterruptedRunError,
    RunTimeoutError,
    WorkflowError,
)
from launcher.comfy_server import free_port
from launcher.progress import ProgressBar
from PIL import Image


def plain(color: int, *, width: Any = 16) -> dict[str, Any]:
    """A workflow that saves one image of one color."""
    return {
        "make": {
            "class_type": "EmptyImage",
            "inputs": {"width": width, "height": 16, "batch_size": 1, "color": color},
        },
        "save": {"class_type": "SaveImage", "inputs": {"images": ["make", 0], "filename_prefix": "plain"}},
    }


def lasting(steps: int) -> dict[str, Any]:
    """A workflow that takes ``steps`` times 50 ms."""
    return {
        "last": {"class_type": "ProbeLast", "inputs": {"steps": steps}},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["last", 0]}},
    }


def assert_works(api: ApiClient) -> None:
    assert api.run(plain(0x010203), timeout=60).outputs


def test_a_run_gives_the_picture_that_was_asked_for(api: ApiClient) -> None:
    result = api.run(plain(0x3366CC), timeout=60)
    assert set(result.executed) == {"make", "save"}
    (record,) = result.images("save")
    picture = np.asarray(Image.open(io.BytesIO(api.view(record))))
    assert picture.shape == (16, 16, 3)
    assert (picture == (0x33, 0x66, 0xCC)).all()


def test_what_did_not_change_is_cached(api: ApiClient) -> None:
    api.run(plain(0x112233), timeout=60)
    again = api.run(plain(0x112233), timeout=60)
    assert "make" in again.cached
    assert "make" not in again.executed
    assert again.images("save")
    api.free_memory()


def test_every_event_belongs_to_the_run(api: ApiClient) -> None:
    events: list[Event] = []
    result = api.run(lasting(3), events.append, timeout=60)
    assert {event["data"]["prompt_id"] for event in events} == {result.prompt_id}
    assert [event["type"] for event in events].count("execution_success") == 1


@pytest.mark.parametrize(
    ("change", "node", "class_type", "message"),
    [
        ({"make": {"class_type": "NoSuchNode", "inputs": {}}}, "make", "NoSuchNode", "not found"),
        (plain(0, width=-5), "make", "EmptyImage", "Value -5 smaller than min"),
        (plain(0, width="wide"), "make", "EmptyImage", "width, wide"),
        (
            {"save": {"class_type": "SaveImage", "inputs": {}}},
            "save",
            "SaveImage",
            "Required input is missing",
        ),
    ],
)
def test_a_refused_workflow_names_node_and_problem(
    api: ApiClient, change: dict[str, Any], node: str, class_type: str, message: str
) -> None:
    with pytest.raises(WorkflowError, match=message) as caught:
        api.run({**plain(0), **change}, timeout=60)
    assert (caught.value.node_id, caught.value.class_type) == (node, class_type)
    assert str(caught.value).startswith(f"{class_type} (node {node}): ")
    assert_works(api)


def test_a_workflow_without_outputs_is_refused(api: ApiClient) -> None:
    workflow = plain(0)
    del workflow["save"]
    with pytest.raises(WorkflowError, match="no outputs") as caught:
        api.run(workflow, timeout=60)
    assert caught.value.node_id == ""


def test_one_invalid_output_fails_the_whole_workflow(api: ApiClient) -> None:
    workflow = plain(0)
    workflow["other"] = {"class_type": "SaveImage", "inputs": {"filename_prefix": "other"}}
    with pytest.raises(WorkflowError, match="Required input is missing") as caught:
        api.run(workflow, timeout=60)
    assert caught.value.node_id == "other"
    assert_works(api)


def test_a_failing_node_is_named_with_its_own_words(api: ApiClient) -> None:
    workflow = plain(0)
    workflow["make"] = {"class_type": "ProbeFail", "inputs": {"message": "no such concept: Colour"}}
    with pytest.raises(WorkflowError, match=re.escape("ProbeFail (node make): no such concept: Colour")) as caught:
        api.run(workflow, timeout=60)
    assert caught.value.kind == "ValueError"
    assert_works(api)


def test_a_run_is_cancelled_from_its_own_progress(api: ApiClient) -> None:
    def cancel(event: Event) -> None:
        if event["type"] == "progress":
            api.interrupt()

    with pytest.raises(InterruptedRunError):
        api.run(lasting(10_000), cancel, timeout=60)
    assert_works(api)


def test_a_run_that_takes_too_long_is_cancelled(api: ApiClient) -> None:
    with pytest.raises(RunTimeoutError, match=r"longer than 0\.5 s"):
        api.run(lasting(10_000), timeout=0.5)
    assert_works(api)


def test_an_uploaded_image_is_read_by_the_host(api: ApiClient) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    name = api.upload_image("random picture.png", buffer.getvalue())
    workflow = plain(0)
    workflow["make"] = {"class_type": "LoadImage", "inputs": {"image": name}}
    (record,) = api.run(workflow, timeout=60).images("save")
    assert (np.asarray(Image.open(io.BytesIO(api.view(record)))) == pixels).all()


def test_the_bar_shows_the_running_node_and_ends_full(api: ApiClient, capsys: pytest.CaptureFixture[str]) -> None:
    workflow = lasting(7)
    with ProgressBar(workflow, api.titles()) as bar:
        api.run(workflow, bar.show, timeout=60)
    shown = capsys.readouterr().err
    assert "ProbeLast 3/7" in shown
    last = shown.rstrip().rpartition("\r")[2]
    assert last.startswith("100%")
    assert last.endswith("done")


def test_an_absent_server_is_a_sentence() -> None:
    api = ApiClient(f"127.0.0.1:{free_port()}")
    with pytest.raises(ConnectionLostError, match="does not answer"):
        api.run(plain(0))
    with pytest.raises(ConnectionLostError, match="does not answer"):
        api.object_info()
