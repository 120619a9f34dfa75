"""Show a folder under another path without copying it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.platform == "win32":
    from _winapi import CreateJunction

    # A symbolic link needs rights on Windows that most users lack; a junction needs none.
    def _link(folder: Path, link: Path) -> None:
        CreateJunction(str(folder), str(link))

    def _unlink(link: Path) -> None:
        link.rmdir()

else:

    def _link(folder: Path, link: Path) -> None:
        link.symlink_to(folder, target_is_directory=True)

    def _unlink(link: Path) -> None:
        link.unlink()


def link_folder(folder: Path, link: Path) -> None:
    """Make ``link`` lead to ``folder``, in place of an older link."""
    remove_link(link)
    _link(folder.resolve(), link)


def remove_link(link: Path) -> None:
    """Remove ``link`` if it is there; what it leads to stays as it is. A real folder makes this fail with
    OSError.
    """
    if os.path.lexists(link):
        _unlink(link)
