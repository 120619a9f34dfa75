"""Commands of ``scripts/`` one after the other in one process: ``python tests/support/commands.py``, or
:class:`Commands`, which does that.

torch and the host are imported once for all of them, which is most of what a short command takes. Every line of input
is a command as JSON, the name of its script and its options; every line of output is what came of it.
"""

from __future__ import annotations

import io
import json
import os
import runpy
import subprocess
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from threading import Timer
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SECONDS = 300
"""After which a command that still runs is ended."""


def alone(script: str, *options: str) -> list[str]:
    """The command for a process of its own."""
    return [sys.executable, str(SCRIPTS / script), *options]


def run_alone(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run it in one until it ends."""
    command = alone(script, *options)
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


class Commands:
    """The process; what a command gives is as if it had run in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, script: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run a script with options until it ends."""
        assert self._process.stdin is not None and self._process.stdout is not None
        hanging = Timer(SECONDS, self._process.kill)
        hanging.start()
        self._process.stdin.write(json.dumps([script, *options]) + "\n")
        self._process.stdin.flush()
        told = self._process.stdout.readline()
        hanging.cancel()
        assert told, f"the process of the commands ended with status {self._process.wait(timeout=60)}"
        return subprocess.CompletedProcess([script, *options], **json.loads(told))

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def outcome(script: str, options: list[str]) -> dict[str, Any]:
    """The exit status of a script and what it wrote."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    sys.argv = [script, *options]
    with redirect_stdout(out), redirect_stderr(err):
        try:
            runpy.run_path(str(SCRIPTS / script), run_name="__main__")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except Exception:  # noqa: BLE001 as an interpreter ends a script, whatever it raises
            traceback.print_exc()
            status = 1
    return {"returncode": status, "stdout": out.getvalue(), "stderr": err.getvalue()}


def main() -> None:
    sys.path.insert(0, str(SCRIPTS))
    # What else is written to the output, such as by a library's threads, is no answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        script, *options = json.loads(line)
        print(json.dumps(outcome(script, options)), file=answers, flush=True)


if __name__ == "__main__":
    main()
