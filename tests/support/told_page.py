"""A page that the host tells of long work: a server in this process that runs a prompt and keeps what it sends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from comfy_execution.utils import CurrentNodeContext
from server import PromptServer

WORKFLOW, PROMPT, NODE = "w", "run", "4:7"

Message = tuple[str, dict[str, Any], str]


@contextmanager
def told_page(file: Path) -> Iterator[list[Message]]:
    """What is sent while :data:`NODE` of a prompt runs: names, contents and the page; it is remembered in ``file``.

    Everything is sent at once, however little time that leaves for the work.
    """
    from hrv_pack.host.routes import results
    from hrv_pack.host.work import telling
    from hrv_pack.host.work.status_board import StatusBoard

    sent: list[Message] = []
    queue: list[Any] = [(0, PROMPT, {}, {"extra_pnginfo": {"workflow": {"id": WORKFLOW}}}, [])]
    server = SimpleNamespace(
        client_id="page",
        prompt_queue=SimpleNamespace(get_current_queue_volatile=lambda: (queue, [])),
        send_sync=lambda *message: sent.append(message),
        send_progress_text=lambda *_: None,
    )
    board = StatusBoard(file)
    with (
        mock.patch.object(PromptServer, "instance", server, create=True),
        mock.patch.object(telling, "BOARD", board),
        mock.patch.object(results, "BOARD", board),
        mock.patch.object(telling, "TELL_EVERY", 0.0),
        mock.patch.object(telling, "LARGEST_PART", float("inf")),
        CurrentNodeContext(PROMPT, NODE, None),
    ):
        yield sent


def statuses(sent: list[Message]) -> list[dict[str, Any]]:
    """The statuses among what was sent."""
    return [content for name, content, _ in sent if name == "hrv.status"]
