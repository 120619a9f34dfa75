"""The environment: which Pythons are taken, and that an incomplete one is never used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from launcher.environment import GIB, OLDEST_PYTHON, Environment, check_disk, check_python, digest
from launcher.errors import LauncherError
from launcher.paths import PACK_ROOT


@pytest.mark.parametrize("version", [(3, 10), (3, 12), (3, 14)])
@pytest.mark.parametrize(("system", "machine"), [("Linux", "x86_64"), ("Darwin", "arm64"), ("Windows", "AMD64")])
def test_supported_pythons_are_taken(version: tuple[int, int], system: str, machine: str) -> None:
    check_python(version, system, machine)


@pytest.mark.parametrize(
    ("version", "system", "machine", "message"),
    [
        ((2, 7), "Linux", "x86_64", r"Python 2\.7; 3\.10 or newer"),
        ((3, 9), "Linux", "x86_64", r"Python 3\.9; 3\.10 or newer"),
        ((3, 15), "Windows", "AMD64", r"no build yet.*from 3\.10 to 3\.14"),
        ((3, 12), "Darwin", "x86_64", "Intel"),
    ],
)
def test_other_pythons_are_told_what_to_use(version: tuple[int, int], system: str, machine: str, message: str) -> None:
    with pytest.raises(LauncherError, match=message):
        check_python(version, system, machine)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("pyproject.toml", 'requires-python = ">={0}.{1}"'),
        ("pyproject.toml", 'target-version = "py{0}{1}"'),
        ("README.md", "Python {0}.{1} or newer"),
        ("docs/development.md", "Python {0}.{1} or newer"),
        ("scripts/demo.py", "Needs Python {0}.{1} or newer"),
        ("scripts/test.py", "Needs Python {0}.{1} or newer"),
    ],
)
def test_everybody_says_the_same_oldest_python(file: str, said: str) -> None:
    assert said.format(*OLDEST_PYTHON) in (PACK_ROOT / file).read_text(encoding="utf-8")


def test_too_little_space_names_the_place_and_both_sizes(tmp_path: Path) -> None:
    check_disk(tmp_path, 1)
    with pytest.raises(LauncherError, match=r"1000000 GiB .* GiB are available") as caught:
        check_disk(tmp_path, 1_000_000 * GIB)
    assert str(tmp_path) in str(caught.value)


def test_digest_depends_on_the_lines_and_not_on_their_order() -> None:
    assert digest(["a", "b"]) == digest(["b", "a"])
    assert len({digest([]), digest(["a"]), digest(["a", "b"]), digest(["ab"])}) == 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("clone") / "env")
    environment.create()
    return environment


def test_a_complete_environment_is_kept(made: Environment) -> None:
    mark = made.folder / "mark"
    mark.touch()
    made.create()
    assert mark.exists()
    assert not made.is_current()


def test_a_moved_environment_is_not_used(made: Environment, tmp_path: Path) -> None:
    moved = Environment(tmp_path / "env")
    shutil.copytree(made.folder, moved.folder, symlinks=True)
    mark = moved.folder / "mark"
    mark.touch()
    moved.create()
    assert not mark.exists()


def test_after_a_failed_install_the_environment_is_made_anew(
    made: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = made.folder / "mark"
    mark.touch()
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(LauncherError, match="Could not install"):
        made.install({"host": ["surely-no-such-package-hrv==1"]})
    made.create()
    assert not mark.exists()
    assert made.python.exists()
