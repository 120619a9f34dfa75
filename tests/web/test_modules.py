"""The modules of web/ that know nothing of the page, by Node.js's own test runner."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from launcher.node import node_program
from launcher.paths import PACK_ROOT

TESTS = sorted((Path(__file__).parent / "modules").glob("*.test.js"))


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.name.removesuffix(".test.js"))
def test_modules(file: Path) -> None:
    command = [node_program(), "--test", "--test-reporter=spec", str(file)]
    done = subprocess.run(command, cwd=PACK_ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
