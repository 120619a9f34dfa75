"""Where the state of work under way is kept, one process at a time."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import folder_paths
from filelock import FileLock, Timeout

from ...hrv.errors import HRVError
from ...hrv.storage.atomic_files import reason, remove_temporaries
from ..page.texts import show_on_running_node

SAVE_EVERY = 30.0
"""Seconds between two saves, so that with the batch under way at most a minute is lost."""


S = TypeVar("S", bound="State")


class State(Protocol):
    """What can be kept: its ``key`` tells it from the state of any other work."""

    key: str

    def save(self, path: Path) -> None: ...

    def resumed(self: S, path: Path) -> S:
        """The state in a file, or this one if there is no file.

        Raises OSError for a file that cannot be read, and HRVError for one that this work cannot have saved; its
        sentence begins with "it".
        """
        ...


def states_folder(name: str) -> Path:
    """The host's folder for it; names that begin with two underscores are not served over HTTP (folder_paths.py)."""
    return Path(folder_paths.get_user_directory()) / "__hrv" / name


class Kept(Generic[S]):
    """A ``state`` with its file."""

    def __init__(self, state: S, path: Path):
        self.state = state
        self.path = path
        self._saved = time.monotonic()

    def save(self) -> None:
        self.state.save(self.path)
        self._saved = time.monotonic()

    def save_now_and_then(self) -> bool:
        """Save if the last time is :data:`SAVE_EVERY` ago; whether it was."""
        due = time.monotonic() - self._saved >= SAVE_EVERY
        if due:
            self.save()
        return due


@contextmanager
def kept_state(fresh: S, folder: Path, what: str) -> Iterator[Kept[S]]:
    """The saved state of the work of ``fresh``, or ``fresh``; it is saved at the beginning and however the block ends.

    ``what`` names the work ("build"). A file that cannot be used is renamed, which the log and the running node say.
    Raises HRVError if the folder cannot be written, if the file cannot be read, and while another process has it.
    """
    path = folder / f"{fresh.key[:32]}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The system lets go of the lock when a process dies, however it dies.
        lock = FileLock(path.with_suffix(".lock"), timeout=0)
        lock.acquire()
    except Timeout:
        raise HRVError(f"Another process is working on this {what}. Wait for it, or change the settings.") from None
    except OSError as error:
        raise HRVError(f"Cannot save the state of the {what} in {folder}: {reason(error)}.") from error
    try:
        kept = Kept(_resumed(fresh, path, what), path)
        # Now rather than after hours: a state that cannot be saved is no reason to begin.
        kept.save()
        try:
            yield kept
        finally:
            kept.save()
    finally:
        lock.release()


def _resumed(fresh: S, path: Path, what: str) -> S:
    """The saved state of the work of ``fresh``, or ``fresh`` if there is none that can be used."""
    try:
        remove_temporaries(path)
        try:
            return fresh.resumed(path)
        except HRVError as error:
            aside = _set_aside(path)
            sentence = (
                f"The state of the {what} in {path} cannot be used: {error} It is now called {aside.name}, and the "
                f"{what} begins again."
            )
    except OSError as error:
        raise HRVError(f"Cannot read the state of the {what} in {path}: {reason(error)}.") from error
    logging.warning("[HRV] %s", sentence)
    show_on_running_node(f"HRV: {sentence}")
    return fresh


def _set_aside(path: Path) -> Path:
    """Rename a file, or a link to one, so that nothing is lost; its new place. Raises OSError."""
    aside, number = path.with_suffix(".unusable"), 2
    while os.path.lexists(aside):
        aside, number = path.with_suffix(f".unusable-{number}"), number + 1
    return path.rename(aside)
