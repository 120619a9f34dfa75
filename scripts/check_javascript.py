"""Type-check the modules of the front end (web/) with TypeScript, which reads their JSDoc.

    python scripts/check_javascript.py

The settings stand in tsconfig.json. TypeScript and the typings of the host's page are put into node_modules/ first.
"""

from __future__ import annotations

import subprocess
import sys

from launcher.errors import LauncherError
from launcher.node import MODULES, install_packages, node_program
from launcher.paths import PACK_ROOT


def check_javascript() -> int:
    """Run TypeScript; its exit status."""
    print("== tsc", flush=True)
    try:
        install_packages()
        command = [node_program(), str(MODULES / "typescript" / "bin" / "tsc"), "--project", str(PACK_ROOT)]
    except LauncherError as error:
        print(error, flush=True)
        return 1
    return subprocess.run(command, cwd=PACK_ROOT).returncode


if __name__ == "__main__":
    sys.exit(check_javascript())
