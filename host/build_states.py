"""Where builds under way are kept, one process at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import folder_paths
from filelock import FileLock, Timeout

from ..hrv.atomic_files import reason, remove_temporaries
from ..hrv.build_state import BuildState, load_state, save_state
from ..hrv.errors import HRVError

SAVE_EVERY = 30.0
"""Seconds between two saves, so that with the batch under way at most a minute is lost."""


def states_folder() -> Path:
    """The host's folder for it; names that begin with two underscores are not served over HTTP (folder_paths.py)."""
    return Path(folder_paths.get_user_directory()) / "__hrv" / "builds"


class KeptState(BuildState):
    """A state with its file."""

    def __init__(self, state: BuildState, path: Path):
        super().__init__(**vars(state))
        self._path = path
        self._saved = time.monotonic()

    def save(self) -> None:
        save_state(self, self._path)
        self._saved = time.monotonic()

    def save_now_and_then(self) -> None:
        """Save if the last time is :data:`SAVE_EVERY` ago."""
        if time.monotonic() - self._saved >= SAVE_EVERY:
            self.save()


@contextmanager
def kept_state(fresh: BuildState, folder: Path | None = None) -> Iterator[KeptState]:
    """The saved state of the build of ``fresh``, or ``fresh``; it is saved at the beginning and however the block ends.

    Raises HRVError if the folder cannot be written, if the file is damaged, and while another process has it.
    """
    folder = states_folder() if folder is None else folder
    path = folder / f"{fresh.key[:32]}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The system lets go of the lock when a process dies, however it dies.
        lock = FileLock(path.with_suffix(".lock"), timeout=0)
        lock.acquire()
    except Timeout:
        raise HRVError(
            "This very build is being made by another process at this moment. Wait for it, or build another shard."
        ) from None
    except OSError as error:
        raise HRVError(f"Cannot keep the state of the build in {folder}: {reason(error)}.") from error
    try:
        remove_temporaries(path)
        state = KeptState(load_state(path, fresh), path)
        # Now rather than after hours: a state that cannot be saved is no reason to begin.
        state.save()
        try:
            yield state
        finally:
            state.save()
    finally:
        lock.release()
