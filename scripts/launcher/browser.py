"""The browser in which the host's page is tested and pictured."""

from __future__ import annotations

import shutil

from .errors import LauncherError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def browser_program() -> str:
    """Where the first of :data:`BROWSERS` on PATH is. Raises LauncherError if none is there."""
    for name in BROWSERS:
        program = shutil.which(name)
        if program:
            return program
    raise LauncherError(
        f"{BROWSERS[0]} is not on PATH, and the page needs it: install it, on Debian and Ubuntu with: "
        "sudo apt-get install chromium"
    )
