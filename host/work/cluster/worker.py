"""What a Ray worker is before it has the pack: it finds a ComfyUI and the pack on its machine, and enters them.

Ray carries this module to the workers by value, so nothing here may need more than the standard library.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Any


class NoPlaceError(Exception):
    """There is no ComfyUI, or no pack, on a machine."""


class Worker:
    """Makes pieces of one job after the other; ``setup`` is of :mod:`.setup`."""

    def __init__(self, setup: dict[str, Any]):
        self.setup = setup
        self.session: Any = None

    def process(self) -> int:
        """The number of its process."""
        return os.getpid()

    def prepare(self, job: dict[str, Any]) -> str:
        """Get ready for a job; why this worker cannot do it, or nothing."""
        try:
            if self.session is None:
                self.session = enter(self.setup)
            self.session.prepare(job)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other workers go on
            return reason(error)
        return ""

    def make(self, piece: Any) -> tuple[bool, Any, int]:
        """Whether a piece was made, what was made of it, and how many units times steps it took.

        Of a failure: a sentence, and whether any other worker would fail alike.
        """
        try:
            made, steps = self.session.make(piece)
        except Exception as error:  # noqa: BLE001 - it is told to whoever asked for the piece
            return False, (reason(error), type(error).__name__ == "HRVError"), 0
        return True, made, steps

    def steps(self) -> int:
        """How many units times steps the piece at hand has come."""
        return 0 if self.session is None else int(self.session.steps)


def enter(setup: dict[str, Any]) -> Any:
    """A session in this machine's ComfyUI, with the sender's options that results depend on."""
    host = Path(os.environ.get("COMFYUI_PATH") or setup["host"])
    if not (host / "comfy").is_dir():
        raise NoPlaceError(f"there is no ComfyUI in {host}. Set COMFYUI_PATH before `ray start` on that machine.")
    nodes = host / "custom_nodes"
    packs = [folder for folder in (Path(setup["pack"]), *nodes.glob("*")) if (folder / "hrv_presets").is_dir()]
    if not packs:
        raise NoPlaceError(f"this node pack is neither in {nodes} nor in {setup['pack']}. Install it there.")
    os.environ["COMFYUI_PATH"] = str(host)
    sys.path.insert(0, str(packs[0] / "scripts"))
    importlib.import_module("host_process").enter_host(gpu=setup["gpu"])
    # The host's other modules read the options as they are imported.
    options = importlib.import_module("comfy.cli_args")
    vars(options.args).update(setup["options"])
    options.args.fast = {options.PerformanceFeature(name) for name in setup["fast"]}
    # Under the sender's name: it is part of the digest of HRV-mini, whose classes are the pack's.
    importlib.import_module("pack_import").import_pack(setup["package"])
    return importlib.import_module(f"{setup['package']}.host.work.cluster.session").Session(setup)


def reason(error: Exception) -> str:
    """What went wrong, for people; the worker's log has all of it."""
    logging.warning("[HRV] %r", error, exc_info=error)
    if type(error).__name__ in ("HRVError", "NoPlaceError"):
        return str(error)
    return f"{type(error).__name__}: {str(error).strip()[:300]}"
