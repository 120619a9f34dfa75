"""Evidence is measured inside the host's own process."""

from __future__ import annotations

from hrv_pack.tests.support.host_process import nothing_dead, pytest_pycollect_makemodule

__all__ = ["nothing_dead", "pytest_pycollect_makemodule"]
