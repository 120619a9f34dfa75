"""Make, repair and enter the environment in which the host, the demo and the tests run.

Only the standard library is used here, in a syntax that older Pythons read, so that the sentence about a
wrong Python reaches the people who have one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from .commands import run_tool, tool_environment
from .errors import LauncherError
from .paths import ENV_DIR

OLDEST_PYTHON = (3, 10)
NEWEST_PYTHON = (3, 14)

# Builds that belong together: the newest torchaudio does not load beside the newest torch, and torchvision
# must match.
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")

GIB = 1024**3
# PyPI's torch for Linux brings the CUDA libraries; elsewhere the same pins are CPU builds.
if sys.platform == "linux":
    DISK_NEEDED = 8 * GIB
    DOWNLOAD_SIZE = "about 3 GB, because torch includes the CUDA libraries"
else:
    DISK_NEEDED = 4 * GIB
    DOWNLOAD_SIZE = "about 1 GB"

STAMP_NAME = "hrv-stamp.json"


def check_python(version: tuple[int, ...], system: str, machine: str) -> None:
    """Raise :class:`LauncherError` unless this Python on this machine has builds of everything that is
    needed.
    """
    name = ".".join(str(part) for part in version[:2])
    oldest = ".".join(map(str, OLDEST_PYTHON))
    newest = ".".join(map(str, NEWEST_PYTHON))
    if version[:2] < OLDEST_PYTHON:
        raise LauncherError(
            f"This is Python {name}; {oldest} or newer is needed. Install one from python.org or your "
            f"system's packages and run the command with it, for instance: python3.12 {sys.argv[0]}"
        )
    if version[:2] > NEWEST_PYTHON:
        raise LauncherError(
            f"This is Python {name}, for which {TORCH[0]} has no build yet. Run the command with any Python "
            f"from {oldest} to {newest}, for instance: python3.12 {sys.argv[0]}"
        )
    if system == "Darwin" and machine == "x86_64":
        raise LauncherError(
            f"{TORCH[0]} has no build for Macs with an Intel processor. (On an Apple processor this means "
            "that your Python is an Intel build; use a native one.)"
        )


def check_disk(folder: Path, needed: int = DISK_NEEDED) -> None:
    """Raise :class:`LauncherError` unless ``needed`` bytes are free where ``folder`` lies."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise LauncherError(
            f"{needed / GIB:.0f} GiB of free disk space are needed in {folder}, and {free / GIB:.1f} GiB are "
            "available. Free some space, or move the clone to a larger disk."
        )


def digest(requirements: Sequence[str]) -> str:
    """A name for a set of requirement lines that does not depend on their order."""
    return hashlib.sha256("\n".join(sorted(requirements)).encode()).hexdigest()


class Environment:
    """A virtual environment with a stamp that says what was installed into it, completely.

    The stamp is taken away before anything changes and put back last, so an environment without one was
    interrupted and is made anew.
    """

    def __init__(self, folder: Path = ENV_DIR) -> None:
        self.folder = folder
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self._stamp_path = folder / STAMP_NAME

    def is_current(self) -> bool:
        """Whether this process runs inside the environment."""
        return Path(sys.prefix).resolve() == self.folder.resolve()

    def create(self) -> None:
        """Make the bare environment unless a complete one is there."""
        if self._is_sound():
            return
        if importlib.util.find_spec("ensurepip") is None:
            package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
            raise LauncherError(
                "This Python cannot make environments: its venv module is incomplete. On Debian and Ubuntu "
                f"install it with: sudo apt-get install {package}"
            )
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._remove()
        check_disk(self.folder.parent)
        print(f"Making an environment in {self.folder} ...", flush=True)
        run_tool("make the environment", [sys.executable, "-m", "venv", self.folder])
        self._write_stamp({})

    def install(self, groups: Mapping[str, Sequence[str]]) -> None:
        """Install the requirement lines of every group whose lines differ from what the stamp says."""
        stamp = self._read_stamp()
        assert stamp is not None, "create() comes first"
        wanted = {name: digest(lines) for name, lines in groups.items()}
        if all(stamp.get(name) == value for name, value in wanted.items()):
            return
        if not stamp:
            print(f"Installing the host's packages (a download of {DOWNLOAD_SIZE}) ...", flush=True)
        else:
            print("Bringing the environment up to date ...", flush=True)
        check_disk(self.folder, DISK_NEEDED if not stamp else GIB)
        self._stamp_path.unlink()
        requirements = self.folder / "requirements.txt"
        requirements.write_text("\n".join(line for lines in groups.values() for line in lines), encoding="utf-8")
        run_tool(
            "install the packages",
            [self._uv(), "pip", "install", "--python", self.python, "-r", requirements],
        )
        self._write_stamp({**stamp, **wanted})

    def _uv(self) -> str:
        """uv, from PATH or put into the environment: it installs in seconds what takes pip minutes."""
        uv = shutil.which("uv")
        if uv is None:
            run_tool("install uv", [self.python, "-m", "pip", "install", "--quiet", "uv"])
            uv = str(self.python.parent / ("uv.exe" if os.name == "nt" else "uv"))
        return uv

    def _is_sound(self) -> bool:
        if self._read_stamp() is None:
            return False
        try:
            subprocess.run([self.python, "-c", "import pip"], check=True, capture_output=True, env=tool_environment())
        except (OSError, subprocess.CalledProcessError):  # the Python it was made with is gone
            return False
        return True

    def _read_stamp(self) -> dict[str, str] | None:
        """Digest by group, or None when the environment is absent, incomplete or was moved."""
        try:
            stamp = json.loads(self._stamp_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        groups: dict[str, str] = stamp["groups"]
        return groups if stamp["folder"] == str(self.folder) else None

    def _write_stamp(self, groups: Mapping[str, str]) -> None:
        temporary = self._stamp_path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"folder": str(self.folder), "groups": groups}), encoding="utf-8")
        temporary.replace(self._stamp_path)

    def _remove(self) -> None:
        if not self.folder.exists():
            return
        print(f"The environment in {self.folder} is incomplete or was moved; making it again.", flush=True)
        try:
            shutil.rmtree(self.folder)
        except OSError as error:
            raise LauncherError(
                f"Could not remove the incomplete environment {self.folder} ({error}). Close the programs "
                "that use it, delete the folder and run the same command again."
            ) from error

    def enter(self, script: Path) -> None:
        """Go on with ``script`` and this process's arguments inside the environment; does not return."""
        command = [str(self.python), str(script), *sys.argv[1:]]
        sys.stdout.flush()
        if os.name == "nt":
            # exec on Windows starts a process that nobody waits for.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise SystemExit(subprocess.call(command, env=tool_environment()))
        os.execve(self.python, command, tool_environment())
