"""Node.js and the packages of package-lock.json, which the checks of the front end need."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from .errors import LauncherError
from .paths import PACK_ROOT

MODULES = PACK_ROOT / "node_modules"


def node_program(name: str = "node") -> str:
    """Where ``node`` or ``npm`` is. Raises LauncherError if it is not on PATH."""
    program = shutil.which(name)
    if program is None:
        raise LauncherError(
            f"{name} is not on PATH, and the checks of the front end need it: install Node.js 20 or newer with npm."
        )
    return program


def install_packages() -> None:
    """Put what is locked in package-lock.json into node_modules/ unless it is there already.

    Raises LauncherError without npm and when npm fails.
    """
    lock = json.loads((PACK_ROOT / "package-lock.json").read_text(encoding="utf-8"))
    wanted = {PACK_ROOT / folder: entry["version"] for folder, entry in lock["packages"].items() if folder}
    if all(_installed_version(folder) == version for folder, version in wanted.items()):
        return
    command = [node_program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=PACK_ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise LauncherError(f"npm could not install the packages of package-lock.json. It said:\n{done.stderr}")


def _installed_version(folder: Path) -> str | None:
    try:
        version: str = json.loads((folder / "package.json").read_text(encoding="utf-8"))["version"]
    except FileNotFoundError:
        return None
    return version
