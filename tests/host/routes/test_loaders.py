"""How long the page waits for the words of a loader's text encoder."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hrv_pack.host.routes import loaders

MINI = {"node": "HRV_LoadMini", "widgets": {}}


def test_a_loader_that_takes_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = threading.Event()

    def slow(_: Any) -> Any:
        return disk.wait()

    monkeypatch.setitem(loaders._LOADERS, "Slow", slow)
    with monkeypatch.context() as patched:
        patched.setattr(loaders, "_SECONDS", 0.1)
        assert loaders.clip_of({"node": "Slow", "widgets": {}}) is None
        assert loaders.clip_of(MINI) is None  # it would have to wait for the other
    disk.set()
    assert loaders.clip_of(MINI) is not None
