"""Evidence is measured inside the host's own process."""

from __future__ import annotations

from hrv_pack.tests.support.host_process import pytest_pycollect_makemodule

__all__ = ["pytest_pycollect_makemodule"]
