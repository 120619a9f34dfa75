"""Start the real server with the pack in it, and stop it whatever happens."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from .errors import LauncherError
from .links import link_folder, remove_link
from .paths import PACK_ROOT

PACK_NAME = "head-relevance-vectors"
LEASH = Path(__file__).with_name("leash.py")
START_SECONDS = 600.0
STOP_SECONDS = 15.0
PORT_ATTEMPTS = 5
LOG_LINES = 30

# The host is on this machine: a proxy for the outside has no part in it.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class PortTakenError(Exception):
    """Another process took the port between its choice and the server's start."""


def _says_taken(line: str, port: int) -> bool:
    """Whether a line of the host's log says that another process has the port; older hosts end with Python's error."""
    return f"Port {port} is already in use" in line or (str(port) in line and "address already in use" in line)


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def excerpt(log: Sequence[str]) -> str:
    """The last lines of ``log``, indented, as they stand in an error."""
    return "\n".join(f"    {line}" for line in log[-LOG_LINES:])


class ComfyServer:
    """A server of its own: own folders, own port, no custom nodes but those it is given.

    Use it as a context manager. ``packs`` maps folder names under ``custom_nodes`` to the packs' folders; by
    default it is this pack alone. Without ``base_directory`` everything it writes goes into a temporary
    folder that is deleted at the end. ``address`` ("127.0.0.1:PORT"), ``base_directory`` and ``log_path`` are
    valid while it runs.
    """

    address: str
    base_directory: Path
    log_path: Path

    def __init__(
        self,
        host: Path,
        *,
        packs: Mapping[str, Path] | None = None,
        base_directory: Path | None = None,
        output_directory: Path | None = None,
        gpu: bool = False,
        arguments: Sequence[str] = (),
    ) -> None:
        self._host = host
        self._packs = dict(packs) if packs is not None else {PACK_NAME: PACK_ROOT}
        self._given_base = base_directory
        self._output_directory = output_directory
        self._arguments = [*([] if gpu else ["--cpu"]), *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ComfyServer:
        if self._given_base is None:
            self.base_directory = Path(tempfile.mkdtemp(prefix="hrv-server-"))
        else:
            self.base_directory = self._given_base
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def is_alive(self) -> bool:
        """Whether the server's process runs."""
        return self._process is not None and self._process.poll() is None

    def wait(self) -> None:
        """Return when the server ends by itself; Ctrl-C ends the wait as ``KeyboardInterrupt``."""
        assert self._process is not None
        self._process.wait()

    def log(self) -> list[str]:
        """The lines that the server has logged since its start, without terminal colors."""
        text = self.log_path.read_text(encoding="utf-8", errors="replace")
        return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()

    def _start(self) -> None:
        custom_nodes = self.base_directory / "custom_nodes"
        custom_nodes.mkdir(parents=True, exist_ok=True)
        for name, folder in self._packs.items():
            link_folder(folder, custom_nodes / name)
        self.log_path = self.base_directory / "server.log"
        for _ in range(PORT_ATTEMPTS):
            try:
                self._start_on(free_port())
            except PortTakenError:
                continue
            self._check_packs()
            return
        raise LauncherError(f"No free port was found in {PORT_ATTEMPTS} attempts.")

    def _command(self, port: int) -> list[str]:
        command = [sys.executable, str(LEASH), str(self._host / "main.py")]
        command += [
            "--listen",
            "127.0.0.1",
            "--port",
            str(port),
            "--base-directory",
            str(self.base_directory),
        ]
        command += ["--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:"]
        if self._output_directory is not None:
            command += ["--output-directory", str(self._output_directory)]
        command += ["--disable-all-custom-nodes"]
        if self._packs:
            command += ["--whitelist-custom-nodes", *self._packs]
        return command + self._arguments

    def _start_on(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._command(port),
                cwd=self._host,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for this process, which then stops the server in order.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if not self.is_alive():
                if any(_says_taken(line, port) for line in self.log()):
                    raise PortTakenError
                raise LauncherError(
                    f"ComfyUI exited with status {self._process.returncode} while starting. "
                    f"The end of its log:\n{excerpt(self.log())}"
                )
            if time.monotonic() > deadline:
                raise LauncherError(
                    f"ComfyUI did not answer within {START_SECONDS:.0f} s. The end of its log:\n{excerpt(self.log())}"
                )
            time.sleep(0.2)

    def _answers(self) -> bool:
        """Whether a server answers and is ours: it names the base directory that ours was started with."""
        try:
            with _opener.open(f"http://{self.address}/system_stats", timeout=5) as response:
                stats = json.load(response)
        except (OSError, ValueError):
            return False
        return str(self.base_directory) in stats["system"]["argv"]

    def _check_packs(self) -> None:
        """The host only logs that a pack failed to load; a server without it is of no use here."""
        log = self.log()
        for number, line in enumerate(log):
            failed = re.search(r"\(IMPORT FAILED\): (.+)$", line)
            if failed and Path(failed.group(1)).name in self._packs:
                raise LauncherError(
                    f"ComfyUI could not load the pack {failed.group(1)}. Its log:\n{excerpt(log[:number])}"
                )

    def _stop(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for name in self._packs:
            remove_link(self.base_directory / "custom_nodes" / name)
        if self._given_base is None:
            shutil.rmtree(self.base_directory)
