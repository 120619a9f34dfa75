"""A process on a leash ends with the process that holds it, however that one ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from launcher import comfy_server

LEASHED = """
import sys, threading
try:
    print("ready", *sys.argv[1:], __name__, flush=True)
    threading.Event().wait()
except KeyboardInterrupt:
    print("unwound", flush=True)
"""

HOLDER = f"""
import subprocess, sys
command = [sys.executable, {str(comfy_server.LEASH)!r}, sys.argv[1]]
subprocess.Popen(command, stdin=subprocess.PIPE).wait()
"""


def test_the_end_of_the_pipe_unwinds_the_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(LEASHED)
    command = [sys.executable, str(comfy_server.LEASH), str(script), "--option", "value"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().split() == ["ready", "--option", "value", "__main__"]
        output, _ = process.communicate(timeout=60)
    assert output == "unwound\n"


def test_nothing_stays_when_the_holder_is_killed_outright(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(LEASHED)
    command = [sys.executable, "-c", HOLDER, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().startswith("ready")
        holder.kill()
        # The leashed process has the same output: it reads as ended only when both are gone.
        assert holder.stdout.read() == "unwound\n"
