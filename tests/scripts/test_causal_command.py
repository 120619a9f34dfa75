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
    ],
)
def test_refusals_are_sentences(
    folder: Path, commands: Commands, options: tuple[str, ...], status: int, sentence: str
) -> None:
    done = commands.run(*causal_command(folder, "out.safetensors", *options))
    assert done.returncode == status
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert not (folder / "out.safetensors").exists()
