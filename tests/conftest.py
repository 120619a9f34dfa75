"""For every test: the pack as ``hrv_pack``, no host needed. For those that ask: one real server and its client."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
if str(SCRIPTS) not in sys.path:
    sys.path.append(str(SCRIPTS))

from launcher.api_client import ApiClient  # noqa: E402
from launcher.comfy_server import PACK_NAME, ComfyServer  # noqa: E402
from launcher.paths import PACK_ROOT  # noqa: E402
from pack_import import import_pack  # noqa: E402

import_pack()

# A loaded machine makes no example wrong.
settings.register_profile("hrv", deadline=None)
settings.load_profile("hrv")

PROBE_PACK = Path(__file__).parent / "server" / "probe_pack"


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
    packs = {PACK_NAME: PACK_ROOT, "probe_pack": PROBE_PACK}
    with ComfyServer(comfy_host, packs=packs, base_directory=base) as server:
        yield server


@pytest.fixture
def api(comfy_server: ComfyServer) -> ApiClient:
    """A client of the session's server."""
    return ApiClient(comfy_server.address)
