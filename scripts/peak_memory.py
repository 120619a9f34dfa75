"""How long a piece of work takes, and the most memory that it holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

Made = TypeVar("Made")

_STATUS, _FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Cost(NamedTuple):
    """Seconds, and the highest memory in bytes: of a GPU as its allocator counts it, else of the process.

    Only Linux tells what a process held; elsewhere ``memory`` is None without a GPU.
    """

    seconds: float
    memory: int | None


def measured(
    device: Any, work: Callable[[], Made], clock: Callable[[], float] = time.perf_counter
) -> tuple[Made, Cost]:
    """What some work on a torch device makes, and what it costs, in seconds of a ``clock``."""
    import torch

    on_gpu, told = device.type == "cuda", _FORGET.exists()
    if on_gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    elif told:
        # Forget the highest resident size so far.
        _FORGET.write_text("5")
    started = clock()
    made = work()
    if on_gpu:
        torch.cuda.synchronize()
        return made, Cost(clock() - started, torch.cuda.max_memory_allocated())
    seconds = clock() - started
    if not told:
        return made, Cost(seconds, None)
    (peak,) = [line.split()[1] for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM")]
    return made, Cost(seconds, int(peak) * 1024)
