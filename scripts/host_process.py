"""Make a ComfyUI importable in this process, for training, evaluation and benchmarks without a server."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def enter_host(*, gpu: bool = False) -> Path:
    """Put the host at COMFYUI_PATH on the import path, on the CPU unless ``gpu``; returns its folder.

    Sets what the host's command line would have set, before the host's other modules read it. Exits with a
    sentence if COMFYUI_PATH is not set.
    """
    folder = os.environ.get("COMFYUI_PATH")
    if not folder:
        raise SystemExit("Set COMFYUI_PATH to a ComfyUI folder and use its Python environment.")
    sys.path.insert(0, folder)
    from comfy.cli_args import args

    args.cpu = not gpu
    return Path(folder)
