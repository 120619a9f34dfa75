"""The build from the command line: the same as the graph's, sharded, stopped and continued."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hrv_pack.hrv.relevance.evidence import Votes
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.tests.support.commands import SCRIPTS, Commands, alone, run_alone

HRV_FILE = SCRIPTS.parent / "hrv_presets" / "hrvs" / "hrv-mini.safetensors"
SETTINGS = ("--images", "6", "--steps", "2", "--width", "64", "--height", "64", "--batch-size", "2", "--cfg", "4")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompts.txt").write_text("a red circle\n\n a blue square, night \n", encoding="utf-8")
    (tmp_path / "concepts.txt").write_text("Color: red, blue\nShape: circle, square\n", encoding="utf-8")
    return tmp_path


def build_command(folder: Path, out: str, *options: str) -> list[str]:
    files = ("--concepts", "concepts.txt", "--prompts", "prompts.txt", "--states", "states", "--out", out)
    located = [name if name.startswith("--") else str(folder / name) for name in files]
    return ["build_hrv.py", "--checkpoint", "hrv-mini", *located, *SETTINGS, *options]


def test_shards_built_by_command_merge_into_the_whole(folder: Path, commands: Commands) -> None:
    outs = [f"{index}.safetensors" for index in (1, 2)]
    shards = [build_command(folder, out, "--shard", f"{index}/2") for index, out in enumerate(outs, start=1)]
    for out, done in zip(outs, (run_alone(*shards[0]), commands.run(*shards[1])), strict=True):
        assert done.returncode == 0, done.stderr
        assert f"Wrote {folder / out}: 6 images." in done.stdout and "images" in done.stderr
    merge = ["merge_hrvs.py", *(str(folder / out) for out in outs)]
    done = run_alone(*merge, "--out", str(folder / "merged.safetensors"))
    assert done.returncode == 0, done.stderr
    done = commands.run(*build_command(folder, "whole.safetensors"))
    assert done.returncode == 0, done.stderr
    merged, whole = (load_hrv(folder / f"{name}.safetensors") for name in ("merged", "whole"))
    assert isinstance(merged.evidence, Votes) and isinstance(whole.evidence, Votes)
    assert np.array_equal(merged.evidence.counts, whole.evidence.counts)
    again = commands.run(*merge[:2], str(folder / "whole.safetensors"), "--out", str(folder / "twice.safetensors"))
    assert again.returncode == 1 and "count the same images" in again.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal that asks a process to end")
def test_a_terminated_build_goes_on(folder: Path) -> None:
    command = alone(*build_command(folder, "out.safetensors", "--images", "400"))
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, bufsize=1) as process:
        assert process.stderr is not None
        told = ""
        while " of 400 images" not in told and (character := process.stderr.read(1)):
            told += character
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 130
    assert not (folder / "out.safetensors").exists()
    (state,) = (folder / "states").glob("*.safetensors")
    assert state.stat().st_size > 0
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, bufsize=1) as process:
        assert process.stderr is not None
        told = ""
        while " of 400 images" not in told and (character := process.stderr.read(1)):
            told += character
        os.kill(process.pid, signal.SIGTERM)
        process.wait(timeout=120)
    # The first report comes after one batch more than were done.
    assert int(told.rpartition(" of 400 images")[0].split()[-1]) > 2


@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        (("--shard", "3/2"), 2, "'3/2' isn't a shard: write the second of eight as 2/8"),
        (("--sampler", "magic"), 1, "ComfyUI has no sampler 'magic'. It has: euler"),
        (("--checkpoint", "nowhere.safetensors"), 1, "There is no checkpoint 'nowhere.safetensors', neither"),
        (("--checkpoint", str(HRV_FILE)), 1, "hrv-mini.safetensors cannot be loaded as a checkpoint: "),
        (("--prompts", "nowhere.txt"), 1, "Cannot read nowhere.txt"),
        (("--batch-size", "0"), 2, "argument --batch-size: '0' isn't a whole number of 1 or more"),
        (("--width", "4"), 2, "argument --width: '4' isn't a whole number of 16 or more"),
        (("--out", "nowhere/out.safetensors"), 1, "There is no folder nowhere for the HRV file"),
        (("--estimator", "guess"), 1, "There is no estimator 'guess'; there are"),
    ],
)
def test_refusals_are_sentences(
    folder: Path, commands: Commands, options: tuple[str, ...], status: int, sentence: str
) -> None:
    done = commands.run(*build_command(folder, "out.safetensors", *options))
    assert done.returncode == status
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert not (folder / "out.safetensors").exists()


def test_an_existing_file_is_not_replaced_unasked(folder: Path, commands: Commands) -> None:
    (folder / "out.safetensors").write_text("mine")
    done = commands.run(*build_command(folder, "out.safetensors"))
    assert done.returncode == 1 and "already exists" in done.stderr
    assert (folder / "out.safetensors").read_text() == "mine"
