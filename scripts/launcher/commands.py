"""Run a tool, show what it says, and turn its failure into a sentence."""

from __future__ import annotations

import os
import re
import subprocess
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from .errors import LauncherError
from .paths import CACHE_DIR

LINE_WIDTH = 180

NO_NETWORK = re.compile(
    r"Failed to establish a new connection|NewConnectionError|Connection ?(refused|reset|timed out|broken)"
    r"|Temporary failure in name resolution|Name or service not known|getaddrinfo failed|nodename nor servn"
    r"|Network is unreachable|No route to host|ProxyError|dns error|tcp connect error|error sending request"
    r"|Read timed out|ConnectTimeoutError|client error \(Connect\)",
    re.IGNORECASE,
)
NO_SPACE = re.compile(
    r"No space left on device|not enough space on the disk|Disk quota exceeded|os error (28|112|122)",
    re.IGNORECASE,
)


def tool_environment() -> dict[str, str]:
    """The variables that tools run with: caches in the work folder, nothing foreign on the import path."""
    variables = dict(os.environ)
    variables.pop("PYTHONPATH", None)
    variables.pop("PYTHONHOME", None)
    variables.setdefault("UV_CACHE_DIR", str(CACHE_DIR / "uv"))
    variables.setdefault("PIP_CACHE_DIR", str(CACHE_DIR / "pip"))
    variables["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    variables["PYTHONUTF8"] = "1"
    return variables


def explain(purpose: str, lines: Sequence[str]) -> LauncherError:
    """Say why a tool that was to do ``purpose`` failed, judged by the last ``lines`` it printed."""
    output = "\n".join(lines)
    if NO_SPACE.search(output):
        reason = "the disk is full. Free some space, then run the same command again."
    elif NO_NETWORK.search(output):
        reason = (
            "the package index cannot be reached. Check the network and the proxy and index settings of pip and uv, "
            "then run the same command again; anything already downloaded is kept."
        )
    else:
        reason = "the tool failed; see its output above."
    return LauncherError(f"Could not {purpose}: {reason}")


def run_tool(purpose: str, command: Sequence[str | Path]) -> None:
    """Run ``command`` with its output shown line by line.

    ``purpose`` completes the sentence "Could not ...". Raises :class:`LauncherError` when the tool cannot be
    started or ends with another status than 0.
    """
    lines: deque[str] = deque(maxlen=60)
    try:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=tool_environment(),
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise LauncherError(f"Could not {purpose}: {error}") from error
    with process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip())
                print(f"    {line.rstrip()[:LINE_WIDTH]}", flush=True)
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise explain(purpose, lines)
