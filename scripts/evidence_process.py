"""A process that measures: it has the host and HRV-mini, and makes pieces of the evidence one after the other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from host_process import enter_host
from pack_import import import_pack


class Worker:
    """Makes pieces of a scale, with a model's ``weights``, into a folder; ``stage`` are weights of another stage."""

    def __init__(self, scale: str, folder: Path, stage: Path | None, weights: Path):
        prepare_host()
        import torch
        from hrv_pack.benchmarks.evidence.parts import all_parts
        from hrv_pack.benchmarks.evidence.pieces import Store
        from hrv_pack.benchmarks.evidence.sizes import SIZES

        torch.set_num_threads(1)
        hrvs, parts = all_parts(stage, weights)
        self.parts: dict[str, Any] = {hrvs.name: hrvs, **parts}
        self.store, self.sizes = Store(folder), SIZES[scale]

    def make(self, part: str, what: dict[str, Any]) -> None:
        import torch
        from hrv_pack.benchmarks.evidence.pieces import Piece

        started = time.process_time()
        with torch.inference_mode():
            found = self.parts[part].make(self.store, self.sizes, what)
        self.store.keep(Piece(part, what, 0.0), found, time.process_time() - started)


def prepare_host() -> None:
    """Make host and pack importable, with the attention that is fastest on a CPU where the host has chosen none yet."""
    enter_host()
    from comfy.cli_args import args

    # It is read once, as this module is imported; later the option would only say what isn't so.
    if "comfy.model_management" not in sys.modules:
        # Two thirds of the time that the host's own choice takes.
        args.use_pytorch_cross_attention = True
    import_pack()


_worker: Worker | None = None


def begin(scale: str, folder: Path, stage: Path | None, weights: Path) -> None:
    """Get ready, once in each process. Ctrl-C is for the one that started it, without which this one ends."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = Worker(scale, folder, stage, weights)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "this is one of several processes"
    parent.join()
    os._exit(1)


def make(part: str, what: dict[str, Any]) -> None:
    """Make a piece in this process."""
    assert _worker is not None, "begin() comes first"
    _worker.make(part, what)
