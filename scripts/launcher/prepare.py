"""The way from any Python to the environment with a host: what the demo and the tests both begin with."""

from __future__ import annotations

import platform
import signal
import sys
from pathlib import Path
from types import FrameType

from .environment import Environment, check_python
from .hosts import Host, find_host
from .lock import exclusive
from .paths import PACK_ROOT, WORK_DIR

TEST_REQUIREMENTS = PACK_ROOT / "scripts" / "requirements-test.txt"


def enter_environment(script: Path, host_version: str | None, *, with_tests: bool = False) -> Host:
    """Return the host once this process runs in an environment that has all it needs.

    In any other Python the environment and the host are made ready and ``script`` is started again inside.
    """
    check_python(sys.version_info[:2], platform.system(), platform.machine())
    environment = Environment()
    with exclusive(WORK_DIR / "lock"):
        environment.create()
        host = find_host(host_version, environment.python)
        groups = {"host": host.requirements}
        if with_tests:
            groups["tests"] = tuple(TEST_REQUIREMENTS.read_text(encoding="utf-8").split())
        environment.install(groups)
    if not environment.is_current():
        environment.enter(script)
    return host


def interrupt_on_termination() -> None:
    """Let a request to terminate unwind the process like Ctrl-C does, so that what it started is stopped."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, interrupt)
