"""Make a ComfyUI importable in this process, for training, evaluation and benchmarks without a server."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pack_import import PACK_ROOT


def enter_host(*, gpu: bool = False) -> Path:
    """Put a host on the import path, on the CPU unless ``gpu``; returns its folder.

    It is the one at COMFYUI_PATH, or the one whose ``custom_nodes`` the pack lies in. Sets what the host's command line
    would have set, before the host's other modules read it. Exits with a sentence if there is no host.
    """
    custom_nodes = PACK_ROOT.parent
    around = str(custom_nodes.parent) if (custom_nodes.parent / "comfy").is_dir() else ""
    folder = os.environ.get("COMFYUI_PATH") or (around if custom_nodes.name == "custom_nodes" else "")
    if not (Path(folder) / "comfy").is_dir() or not folder:
        raise SystemExit("Set COMFYUI_PATH to a ComfyUI folder and use its Python environment.")
    sys.path.insert(0, folder)
    from comfy.cli_args import args

    args.cpu = not gpu
    return Path(folder)
