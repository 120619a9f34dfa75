"""Writing files so that they appear under their names complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import uuid
from pathlib import Path


def write_atomically(target: Path, content: bytes) -> None:
    """Write ``content`` under the name ``target``, replacing what is there; a failure leaves nothing behind.

    Where ``target`` is a symbolic link, it stays one, and what it leads to is replaced. The content is on the disk
    before the name is. A process that is killed meanwhile may leave a temporary file, see :func:`remove_temporaries`.
    Raises OSError.
    """
    target = Path(os.path.realpath(target))
    # In the same folder, because only there is a rename atomic.
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def remove_temporaries(target: Path) -> None:
    """Remove what killed processes left of writing ``target``; nobody may be writing it now. Raises OSError."""
    target = Path(os.path.realpath(target))
    for temporary in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        temporary.unlink(missing_ok=True)


def reason(error: OSError) -> str:
    """Why a file could not be used, as the end of a sentence."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return "the disk is full"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "permission denied, or the file or its folder is read-only"
    if error.errno == errno.ENOENT:
        return "there is no such file or folder"
    return error.strerror or str(error)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system lets folders be opened and synchronised."""
    if os.name != "posix":
        return
    # The file is complete and in place; a file system without this call (some network ones) is no failure.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
