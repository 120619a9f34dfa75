"""Telling the page how far work on a node is, while it goes on and for pages that are opened later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from comfy.model_management import InterruptProcessingException
from server import PromptServer

from ..page.hrvs import remember
from ..page.running import running_node
from .status import CANCELLED, DONE, FAILED, RUNNING, Seen, Status
from .status_board import BOARD

MESSAGE = "hrv.status"
"""What a status is called on the way to the page."""

TELL_EVERY = 0.5
"""Seconds between two messages at least."""

LARGEST_PART = 0.05
"""Of the time of the work, what telling of it may take."""


class Teller:
    """Tells of the work of a node, its first piece at once. Without a status, so outside of a run, it tells nobody."""

    def __init__(self, status: Status | None, seen: Callable[[], Seen]):
        self._status, self._seen = status, seen
        self._next = 0.0

    def tell(self, done: int, seconds: float | None = None, detail: str = "") -> None:
        """Tell that so many are done; what comes too soon after the last message is told later."""
        if self._status is not None:
            self._status = replace(self._status, done=done, seconds=seconds, detail=detail)
            started = time.monotonic()
            if started >= self._next:
                self.tell_now(RUNNING)
                self._next = started + max(TELL_EVERY, (time.monotonic() - started) / LARGEST_PART)

    def tell_now(self, state: str) -> None:
        """Tell how the work stands."""
        if self._status is None:
            return
        curves, hrv = self._seen()
        self._status = replace(
            self._status,
            state=state,
            seconds=self._status.seconds if state == RUNNING else None,
            curves=self._status.curves if curves is None else asdict(curves),
            hrv=self._status.hrv if hrv is None else remember(hrv),
            at=time.time(),
        )
        BOARD.put(self._status, hrv)
        server = PromptServer.instance
        server.send_sync(MESSAGE, self._status.public(), server.client_id)

    def save(self) -> None:
        """Let the status outlive this process, as what was done does now."""
        if self._status is not None:
            BOARD.save()


@contextmanager
def telling(
    kind: str,
    unit: str,
    total: int,
    seen: Callable[[], Seen],
    *,
    done: int = 0,
    kept: Path | None = None,
    node: str = "",
) -> Iterator[Teller]:
    """Tell of the work in the block, its beginning and however it ends, on the running node or another of the run.

    ``kind`` names the work ("build"), ``unit`` what is counted ("images"), ``total`` how many there are, ``done`` how
    many were there before; ``kept`` is the file that the work resumes from. ``seen`` is asked at every message.
    """
    teller = Teller(_beginning(kind, unit, total, done, kept, node), seen)
    teller.tell_now(RUNNING)
    teller.save()
    state = FAILED
    try:
        yield teller
        state = DONE
    except InterruptProcessingException:
        state = CANCELLED
        raise
    finally:
        teller.tell_now(state)
        teller.save()


def _beginning(kind: str, unit: str, total: int, done: int, kept: Path | None, node: str) -> Status | None:
    place = running_node(node)
    if place is None:
        return None
    status = Status(*place, kind, unit, total, str(kept or ""), done=done)
    before = BOARD.get(place.workflow, place.node)
    if before is not None and before.prompt_id == place.prompt_id:
        # Further work of the same node, such as checks of what was built, which stays to be seen.
        status = replace(status, curves=before.curves, hrv=before.hrv)
    return status
