"""Tests of this folder run inside the host's own process."""

from __future__ import annotations

from hrv_pack.tests.support.host_process import (
    clip,
    hrv,
    loaded,
    model,
    nothing_dead,
    pytest_pycollect_makemodule,
    sd15,
    sd20,
    sdxl,
    shown,
)

__all__ = [
    "clip",
    "hrv",
    "loaded",
    "model",
    "nothing_dead",
    "pytest_pycollect_makemodule",
    "sd15",
    "sd20",
    "sdxl",
    "shown",
]
