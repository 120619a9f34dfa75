"""Causal HRVs from the command line: the same as the graph's, in shards too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.tests.support.commands import Commands, run_alone

SETTINGS = ("--pairs", "2", "--steps", "2", "--width", "64", "--height", "64", "--cfg", "1", "--levels", "0.2", "0.5")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompts.txt").write_text(
        "[Color]\na large <red | blue> {circle | star}\n[Shape]\na red <circle | star>, {day | night}\n", "utf-8"
    )
    return tmp_path


def causal_command(folder: Path, out: str, *options: str, checkpoint: str = "hrv-mini") -> list[str]:
    files = (
        "--experiment",
        str(folder / "prompts.txt"),
        "--states",
        str(folder / "states"),
        "--out",
        str(folder / out),
    )
    return ["build_causal_hrv.py", "--checkpoint", checkpoint, *files, *SETTINGS, *options]


def test_shards_measured_by_command_merge_into_the_whole(folder: Path, commands: Commands) -> None:
    outs = [f"{index}.safetensors" for index in (1, 2)]
    first, second = (causal_command(folder, out, "--shard", f"{out[0]}/2") for out in outs)
    for out, done in zip(outs, (run_alone(*first), commands.run(*second)), strict=True):
        assert done.returncode == 0, done.stderr
        assert f"Wrote {folder / out}: " in done.stdout
    merged = folder / "merged.safetensors"
    done = commands.run("merge_hrvs.py", *(str(folder / out) for out in outs), "--out", str(merged))
    assert done.returncode == 0, done.stderr
    assert "It has no report: those of the shards are about the pairs of each." in done.stdout
    done = commands.run(*causal_command(folder, "whole.safetensors"))
    assert done.returncode == 0, done.stderr
    whole = load_hrv(folder / "whole.safetensors")
    assert np.array_equal(load_hrv(merged).values, whole.values)
    assert whole.provenance["estimator"] == "causal" and whole.provenance["levels"] == (0.2, 0.5)
    report = json.loads((folder / "whole.json").read_text("utf-8"))
    assert report and (folder / "whole.png").is_file()


def test_the_small_transformer_has_a_name(folder: Path, commands: Commands) -> None:
    done = commands.run(*causal_command(folder, "t.safetensors", checkpoint="hrv-mini-t"))
    assert done.returncode == 0, done.stderr
    assert load_hrv(folder / "t.safetensors").layout.family == "lumina2"


@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        (("--shard", "3/2"), 2, "'3/2' isn't a shard: write the second of eight as 2/8"),
        (("--levels", "2"), 1, "Noise levels are 1 to "),
        (("--experiment", "nowhere.txt"), 1, "Cannot read nowhere.txt"),
        (("--pairs", "0"), 2, "argument --pairs: '0' isn't a whole number of 1 or more"),
        (("--concepts", "c.txt"), 1, "leave out --experiment or --concepts."),
        (("--concepts", "c.txt", "--frames", "f.txt"), 1, "leave out --experiment or --concepts and --frames."),
    ],
)
def test_refusals_are_sentences(
    folder: Path, commands: Commands, options: tuple[str, ...], status: int, sentence: str
) -> None:
    done = commands.run(*causal_command(folder, "out.safetensors", *options))
    assert done.returncode == status
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert not (folder / "out.safetensors").exists()


def test_an_experiment_without_pairs_is_told_what_to_write(folder: Path, commands: Commands) -> None:
    (folder / "prompts.txt").write_text("[Color]\na <red> circle\na <blue> star\n", "utf-8")
    done = commands.run(*causal_command(folder, "out.safetensors"))
    assert done.returncode == 1 and "such as 'a <red | blue> circle'." in done.stderr
    assert "Traceback" not in done.stderr and not (folder / "out.safetensors").exists()


def test_concepts_are_put_into_frames(folder: Path, commands: Commands) -> None:
    """One of one word makes no pair; words of the others are named in the file."""
    (folder / "concepts.txt").write_text("Color: red\nShape: circle, star\n", "utf-8")
    (folder / "frames.txt").write_text("a red {word}\n", "utf-8")
    files = ("--concepts", "concepts.txt", "--frames", "frames.txt", "--states", "states", "--out", "out.safetensors")
    command = ["build_causal_hrv.py", "--checkpoint", "hrv-mini"]
    command += [name if name.startswith("--") else str(folder / name) for name in files]
    done = commands.run(*command, *SETTINGS)
    assert done.returncode == 1 and "The concept Color has no pair of prompts" in done.stderr
    assert "red (1). Add another word of 1 token." in done.stderr and "Traceback" not in done.stderr
    (folder / "concepts.txt").write_text("Shape: circle, star\n", "utf-8")
    done = commands.run(*command, *SETTINGS)
    assert done.returncode == 0, done.stderr
    made = load_hrv(folder / "out.safetensors").provenance
    assert {tuple(one[1:]) for one in made["prompts"]} == {
        ("a red circle", "a red star"),
        ("a red star", "a red circle"),
    }
