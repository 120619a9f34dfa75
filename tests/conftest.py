"""For every test: the pack as ``hrv_pack``, no host needed. For those that ask: a real server and its client.

Also in which order tests run, and which of them one worker of pytest-xdist has to run one after the other.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Tests run side by side (scripts/test.py), and their models are so small that more threads only wait for each other.
# Processes that a test starts do the same. To be set before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
if str(SCRIPTS) not in sys.path:
    sys.path.append(str(SCRIPTS))

from launcher.api_client import ApiClient  # noqa: E402
from launcher.comfy_server import PACK_NAME, ComfyServer  # noqa: E402
from launcher.model_files import model_files  # noqa: E402
from launcher.paths import PACK_ROOT  # noqa: E402
from pack_import import import_pack  # noqa: E402

import_pack()

import torch  # noqa: E402

# A loaded machine makes no example wrong.
settings.register_profile("hrv", deadline=None)
settings.load_profile("hrv")

PROBE_PACK = Path(__file__).parent / "server" / "probe_pack"

# Files that one worker runs one after the other, because they share a server; any other file is a group of its own.
# From the longest on: a long group that begins last would leave the other workers idle.
GROUPS = {
    "browser": ("tests/web/",),
    "server": ("tests/server/", "tests/scripts/", "tests/host/files/test_catalog.py"),
}


def group_of(node_id: str) -> str:
    """The group of a test: the name of one of :data:`GROUPS`, or its file."""
    file = node_id.split("::", 1)[0]
    return next((name for name, files in GROUPS.items() if file.startswith(files)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole groups go to one worker, whatever else pytest-xdist would do."""
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        """What has one scope is run by one worker."""

        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return GroupScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the groups first, then files with slow tests, then the others; skip what needs a GPU where there is none."""
    slow_files = {item.path for item in items if item.get_closest_marker("slow")}
    names = list(GROUPS)

    def rank(item: pytest.Item) -> int:
        group = group_of(item.nodeid)
        return names.index(group) if group in GROUPS else len(GROUPS) + (item.path not in slow_files)

    items.sort(key=rank)
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="torch finds no GPU here"))


def pytest_collection_finish() -> None:
    """What was imported stays to the end: whoever collects garbage needn't look through all of it each time."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say where the screenshots of the page are, if there are any."""
    from hrv_pack.tests.support.screenshots import SCREENSHOTS

    if any(SCREENSHOTS.glob("*.png")):
        terminalreporter.line(f"Screenshots of the page are in {SCREENSHOTS}.")


@pytest.fixture(scope="session")
def comfy_host() -> Path:
    """The ComfyUI to test against."""
    folder = os.environ.get("COMFYUI_PATH")
    if not folder:
        pytest.fail("COMFYUI_PATH is not set. Run `python scripts/test.py`, which finds a host.", pytrace=False)
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def comfy_server(comfy_host: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """The server, with this pack and the probe nodes that some tests need to make a run fail or last."""
    base = tmp_path_factory.mktemp("comfy")
    # Files that example workflows name and nobody needs for a look at them; nothing is in them.
    for example in (PACK_ROOT / "example_workflows").glob("*.json"):
        for file in model_files(json.loads(example.read_text(encoding="utf-8"))):
            (base / "models" / file).parent.mkdir(parents=True, exist_ok=True)
            (base / "models" / file).touch()
    packs = {PACK_NAME: PACK_ROOT, "probe_pack": PROBE_PACK}
    with ComfyServer(comfy_host, packs=packs, base_directory=base) as server:
        yield server


@pytest.fixture
def api(comfy_server: ComfyServer) -> ApiClient:
    """A client of the session's server."""
    return ApiClient(comfy_server.address)
