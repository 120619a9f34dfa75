"""One process for all commands that need none of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hrv_pack.tests.support.commands import Commands


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    started = Commands()
    yield started
    started.end()
