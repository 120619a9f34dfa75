"""Check the direction of imports with import-linter, with the root as the package ``hrv_pack``.

    python scripts/check_imports.py

The contracts stand in pyproject.toml; docs/development.md draws them.
"""

from __future__ import annotations

import os
import subprocess
import sys

from check_types import linked_pack
from launcher.paths import PACK_ROOT


def check_imports() -> int:
    """Run import-linter; its exit status."""
    print("== import-linter", flush=True)
    folder = linked_pack()
    # What runs is installed beside this Python, whether or not its folder is on PATH.
    program = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    command = [sys.executable, "-c", program, str(PACK_ROOT / "pyproject.toml"), "--no-cache"]
    return subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}).returncode


if __name__ == "__main__":
    sys.exit(check_imports())
