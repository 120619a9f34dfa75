"""The last status of each node of each workflow, in bounded memory and in a file that outlives the process."""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

from ...hrv.errors import HRVError
from ...hrv.relevance.vectors import HRV
from ...hrv.storage.atomic_files import write_atomically
from ...hrv.storage.strict_json import parse_json
from .states import states_folder
from .status import INTERRUPTED, RUNNING, STATES, Status

MOST = 64
"""Nodes that are remembered; those that were told of last."""

HELD, LARGEST_HELD = 8, 1 << 24
"""HRVs of a node, and bytes of their values, that can still be asked for while new ones come: a page may be slow.

The last one always is.
"""

_LARGEST_FILE = 1 << 24

_Entry = tuple[Status, tuple[HRV, ...]]


class StatusBoard:
    """``path`` is read once, before the first use; whatever can't be read there counts as nothing."""

    def __init__(self, path: Path | None = None):
        self._path = path
        self._entries: OrderedDict[tuple[str, str], _Entry] | None = None
        self._lock = Lock()

    def put(self, status: Status, hrv: HRV | None) -> None:
        """Remember a status, and hold the HRV that it names if that is a new one."""
        with self._lock:
            entries = self._read()
            key = status.workflow, status.node
            held = entries[key][1] if key in entries else ()
            entries[key] = status, held if hrv is None else _newest((*held, hrv))
            entries.move_to_end(key)
            while len(entries) > MOST:
                entries.popitem(last=False)

    def get(self, workflow: str, node: str) -> Status | None:
        """The last status of a node."""
        with self._lock:
            found = self._read().get((workflow, node))
        return None if found is None else found[0]

    def of(self, workflow: str) -> list[Status]:
        """The statuses of a workflow's nodes."""
        with self._lock:
            return [status for status, _ in self._read().values() if status.workflow == workflow]

    def save(self) -> None:
        """Let what is remembered be known after this process has ended."""
        with self._lock:
            content = json.dumps([asdict(status) for status, _ in self._read().values()]).encode()
            # The work itself is saved elsewhere, and says so if it can't be.
            with contextlib.suppress(OSError):
                self._file().parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self._file(), content)

    def _file(self) -> Path:
        return self._path or states_folder("statuses.json")

    def _read(self) -> OrderedDict[tuple[str, str], _Entry]:
        if self._entries is None:
            self._entries = OrderedDict()
            with contextlib.suppress(OSError, HRVError):
                with self._file().open("rb") as file:
                    content = file.read(_LARGEST_FILE + 1)
                for status in _parsed(content):
                    self._entries[status.workflow, status.node] = status, ()
        return self._entries


def _newest(held: Sequence[HRV]) -> tuple[HRV, ...]:
    """The last ones, as many as are held."""
    sizes = accumulate(hrv.values.nbytes for hrv in reversed(held))
    count = sum(size <= LARGEST_HELD for size in sizes)
    return tuple(held[-max(1, min(count, HELD)) :])


def _parsed(content: bytes) -> list[Status]:
    """The statuses in a file of an earlier process, whose HRVs are gone; HRVError for anything else."""
    found = parse_json(content, "content")
    if not isinstance(found, list) or not all(map(_is_status, found)):
        raise HRVError("it has no statuses.")
    statuses = [replace(Status(**entry), hrv=None) for entry in found[-MOST:]]
    return [replace(one, state=INTERRUPTED) if one.state == RUNNING else one for one in statuses]


def _is_status(entry: Any) -> bool:
    texts = ("workflow", "prompt_id", "node", "kind", "unit", "kept", "state", "detail")
    return (
        isinstance(entry, dict)
        and entry.keys() == {one.name for one in fields(Status)}
        and all(isinstance(entry[name], str) for name in texts)
        and entry["state"] in STATES
        and type(entry["total"]) is int
        and type(entry["done"]) is int
        and type(entry["at"]) is float
        and isinstance(entry["seconds"], (float, type(None)))
        and isinstance(entry["curves"], (dict, type(None)))
    )


BOARD = StatusBoard()
"""That of this process."""
