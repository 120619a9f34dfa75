"""Type-check the whole repository with mypy, with the root as the package ``hrv_pack``.

    python scripts/check_types.py

mypy names a package after its folder, and the clone's folder may be called anything; so it is shown the
repository under a link of the right name.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from launcher.links import link_folder
from launcher.paths import PACK_ROOT, WORK_DIR
from pack_import import PACK_NAME

FOLDER = WORK_DIR / "types"


def linked_pack() -> Path:
    """A folder in which the clone is seen as the package :data:`~pack_import.PACK_NAME`."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    link_folder(PACK_ROOT, FOLDER / PACK_NAME)
    return FOLDER


def check_types() -> int:
    """Run mypy; its exit status."""
    print("== mypy", flush=True)
    command = [sys.executable, "-m", "mypy", "--config-file", str(PACK_ROOT / "pyproject.toml"), PACK_NAME]
    return subprocess.run(command, cwd=linked_pack()).returncode


if __name__ == "__main__":
    sys.exit(check_types())
