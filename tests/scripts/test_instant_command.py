"""Instant HRVs from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.tests.support.commands import Commands, run_alone


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "concepts.txt").write_text("Color: red, blue\nShape: circle, square\n", encoding="utf-8")
    (tmp_path / "frames.txt").write_text("{word}\na {word}\n", encoding="utf-8")
    return tmp_path


def instant_command(folder: Path, *options: str) -> list[str]:
    files = ["--concepts", "concepts.txt", "--frames", "frames.txt", "--out", "out.safetensors"]
    located = [name if name.startswith("--") else str(folder / name) for name in files]
    return ["instant_hrv.py", "--checkpoint", "hrv-mini", *located, *options]


def test_an_hrv_is_made_once(folder: Path, commands: Commands) -> None:
    command = instant_command(folder, "--background", "never")
    done = run_alone(*command)
    assert done.returncode == 0, done.stderr
    assert f"Wrote {folder / 'out.safetensors'}: 2 concepts." in done.stdout and "part" in done.stderr
    hrv = load_hrv(folder / "out.safetensors")
    assert hrv.concepts == ("Color", "Shape") and hrv.provenance["estimator"] == "values"
    assert hrv.provenance["frames"] == ("{word}", "a {word}")
    again = commands.run(*command)
    assert again.returncode == 1 and "already exists" in again.stderr


@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        (("--background", "now"), 1, "There is no background 'now'; there are when needed, always, never"),
        (("--frames", "nowhere.txt"), 1, "Cannot read nowhere.txt"),
        (("--checkpoint", "nowhere.safetensors"), 1, "There is no checkpoint 'nowhere.safetensors', neither"),
        (("--out", "nowhere/out.safetensors"), 1, "There is no folder nowhere for the HRV file"),
    ],
)
def test_refusals_are_sentences(
    folder: Path, commands: Commands, options: tuple[str, ...], status: int, sentence: str
) -> None:
    done = commands.run(*instant_command(folder, *options))
    assert done.returncode == status
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert not (folder / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("concepts", "sentence"),
    [
        ("Color: red\nShape: circle, square\n", "The concept Color has only the word 'red'"),
        ("Color: red, blue\n", "Color is the only concept"),
    ],
)
def test_concepts_with_nothing_to_compare_are_sentences(
    folder: Path, commands: Commands, concepts: str, sentence: str
) -> None:
    (folder / "concepts.txt").write_text(concepts, encoding="utf-8")
    done = commands.run(*instant_command(folder, "--background", "never"))
    assert done.returncode == 1 and sentence in done.stderr and "Traceback" not in done.stderr
    assert not (folder / "out.safetensors").exists()
