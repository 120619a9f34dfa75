"""Starting and stopping the real server, and what people read when that fails."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from launcher import comfy_server
from launcher.api_client import ApiClient
from launcher.comfy_server import PACK_NAME, ComfyServer
from launcher.errors import LauncherError
from launcher.links import link_folder, remove_link
from launcher.paths import PACK_ROOT

HOLDER = f"""
import sys
sys.path.append({str(PACK_ROOT / "scripts")!r})
from pathlib import Path
from launcher import comfy_server
from launcher.errors import errors_for_people
from launcher.prepare import interrupt_on_termination

ports = [int(sys.argv[2]), comfy_server.free_port()]
comfy_server.free_port = lambda: ports.pop(0)
interrupt_on_termination()
with errors_for_people(), comfy_server.ComfyServer(Path(sys.argv[1]), packs={{}}) as server:
    print(server.address, server.base_directory, flush=True)
    server.wait()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal that a process can answer")
def test_a_taken_port_is_replaced_and_a_terminated_process_takes_its_server_along(comfy_host: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        command = [sys.executable, "-c", HOLDER, str(comfy_host), str(taken)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            address, base = process.stdout.readline().split()
            assert int(address.partition(":")[2]) != taken
            assert ApiClient(address).get("/system_stats")["devices"][0]["type"] == "cpu"
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 130
    assert not Path(base).exists()
    with pytest.raises(LauncherError, match="does not answer"):
        ApiClient(address).get("/system_stats")


def broken_host(folder: Path, program: str) -> Path:
    folder.mkdir()
    (folder / "main.py").write_text(program)
    return folder


def test_a_host_that_ends_while_starting_shows_its_last_words(tmp_path: Path) -> None:
    host = broken_host(tmp_path / "host", "raise SystemExit('the model of everything is missing')")
    with (
        pytest.raises(LauncherError, match=r"status 1 while starting(.|\n)*model of everything"),
        ComfyServer(host),
    ):
        pytest.fail("it cannot start")


def test_a_host_that_never_answers_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comfy_server, "START_SECONDS", 1.0)
    host = broken_host(tmp_path / "host", "import threading; print('musing'); threading.Event().wait()")
    server = ComfyServer(host, base_directory=tmp_path / "base")
    with pytest.raises(LauncherError, match=r"did not answer within 1 s(.|\n)*musing"):
        server.__enter__()
    assert not server.is_alive()
    assert not (tmp_path / "base" / "custom_nodes" / PACK_NAME).exists()


def test_removing_a_link_leaves_what_it_leads_to(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    link = tmp_path / "link"
    link_folder(folder, link)
    link_folder(folder, link)
    assert (link / "file").exists()
    remove_link(link)
    remove_link(link)
    assert not link.exists()
    assert (folder / "file").exists()


def test_a_real_folder_is_never_removed_for_a_link(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    with pytest.raises(OSError, match="folder"):
        link_folder(tmp_path, folder)
    assert (folder / "file").exists()


def test_the_pack_is_loaded(api: ApiClient) -> None:
    modules = {info["python_module"] for info in api.object_info().values()}
    assert f"custom_nodes.{PACK_NAME}" in modules
