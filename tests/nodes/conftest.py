"""Tests of this folder run inside the host's own process."""

from __future__ import annotations

import asyncio

import pytest
from hrv_pack.tests.support.host_process import clip, hrv, model, pytest_pycollect_makemodule, shown

__all__ = ["clip", "hrv", "model", "pytest_pycollect_makemodule", "shown"]


@pytest.fixture(scope="session", autouse=True)
def loaded() -> None:
    """The pack is loaded as the host does it, before anything asks its nodes for schemas."""
    from hrv_pack.nodes import HRVExtension

    asyncio.run(HRVExtension().on_load())
