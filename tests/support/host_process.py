"""Put a real ComfyUI on the import path of this process, on the CPU and with folders of its own.

Test modules in folders whose ``conftest.py`` imports all of it import ``comfy``, ``nodes`` and the rest like code
inside the host does.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

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

HOST = os.environ.get("COMFYUI_PATH")


def become_host(folder: Path) -> None:
    """Set what the host's command line would have set, before the host's other modules read it."""
    sys.path.insert(0, str(folder))
    from comfy.cli_args import args

    base = tempfile.mkdtemp(prefix="hrv-host-")
    atexit.register(shutil.rmtree, base)
    args.cpu = True
    args.base_directory = base
    # Like main.py, before anything can put another module of this common name in its place.
    importlib.import_module("utils.extra_config")


if HOST:
    become_host(Path(HOST).resolve())


class HostMissing(pytest.Collector):
    """Stands for a test module that cannot be imported without a host."""

    def collect(self) -> list[pytest.Item | pytest.Collector]:
        raise self.CollectError("COMFYUI_PATH is not set. Run `python scripts/test.py`, which finds a host.")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Say in a sentence that the host is missing, instead of failing at the first import of ``comfy``."""
    if HOST:
        return None
    return HostMissing.from_parent(parent, name=module_path.name)


@pytest.fixture(scope="session", autouse=True)
def loaded() -> None:
    """The pack is loaded as the host does it, before anything asks its nodes for schemas."""
    from hrv_pack.nodes import HRVExtension

    asyncio.run(HRVExtension().on_load())


@pytest.fixture(autouse=True)
def nothing_dead() -> Iterator[None]:
    """The host forgets models that a test let go of but something still holds, as compilers do.

    While it knows of one, it collects all garbage before every use of any model, and in a process of many tests that
    takes longer than the use (``cleanup_models_gc`` in comfy/model_management.py).
    """
    yield
    from comfy.model_management import current_loaded_models

    current_loaded_models[:] = [one for one in current_loaded_models if not one.is_dead()]


@pytest.fixture(scope="module")
def model() -> Any:
    """The small MODEL like SD 1.x, one for each test module."""
    from hrv_pack.tests.support.small_host import small_sd15

    return small_sd15()


@pytest.fixture(scope="module")
def clip() -> Any:
    """Its CLIP."""
    from hrv_pack.tests.support.small_host import small_clip_sd15

    return small_clip_sd15()


def _setup(request: pytest.FixtureRequest, family: str) -> Any:
    """A model of a family with its CLIP and the module's ``PROMPT``, as the module's ``SETUP`` or a plain one."""
    from hrv_pack.tests.support import small_host

    kind = getattr(request.module, "SETUP", small_host.Setup)
    model, clip = getattr(small_host, f"small_{family}"), getattr(small_host, f"small_clip_{family}")
    return kind.of(model(), clip(), request.module.PROMPT)


@pytest.fixture(scope="module")
def sd15(request: pytest.FixtureRequest) -> Any:
    """A small model like SD 1.x, its CLIP, an HRV for it and the module's prompt, one for each test module."""
    return _setup(request, "sd15")


@pytest.fixture(scope="module")
def sd20(request: pytest.FixtureRequest) -> Any:
    """As :func:`sd15`, like SD 2.x."""
    return _setup(request, "sd20")


@pytest.fixture(scope="module")
def sdxl(request: pytest.FixtureRequest) -> Any:
    """As :func:`sd15`, like SDXL."""
    return _setup(request, "sdxl")


@pytest.fixture(scope="module")
def hrv(model: Any) -> Any:
    """An HRV of random elements for it."""
    from hrv_pack.host.models.layouts import head_layout
    from hrv_pack.tests.support.small_host import random_hrv

    return random_hrv(head_layout(model))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, str]]:
    """What the host's server is given to show on nodes: (text, node, page)."""
    from server import PromptServer

    texts: list[tuple[str, str, str]] = []
    queue = SimpleNamespace(get_current_queue_volatile=lambda: ([], []))
    server = SimpleNamespace(
        client_id="page", prompt_queue=queue, send_progress_text=lambda *given: texts.append(given)
    )
    monkeypatch.setattr(PromptServer, "instance", server, raising=False)
    return texts
