"""pytest with a host and a worker for each core, as the test and fuzz commands run it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .paths import PACK_ROOT


def workers() -> int:
    """How many processes run tests side by side."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def run_pytest(host: Path, arguments: Sequence[str], plugins: Sequence[object] = ()) -> int:
    """Run pytest in this process with ``host`` as its ComfyUI; its exit status.

    tests/conftest.py says in which order tests go to workers, and which of them to the same.
    """
    import pytest

    print("== pytest", flush=True)
    os.environ["COMFYUI_PATH"] = str(host)
    os.chdir(PACK_ROOT)
    chosen = ["-n", str(workers()), "--dist", "loadscope", "--no-loadscope-reorder"]
    return int(pytest.main([*chosen, *arguments], plugins=list(plugins)))
