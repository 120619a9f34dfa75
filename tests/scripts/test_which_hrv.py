"""Which kind of HRV holds on a checkpoint, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.tests.support.commands import SCRIPTS, Commands, run_alone

SHIPPED = SCRIPTS.parent / "hrv_presets" / "hrvs" / "hrv-mini.safetensors"
QUICK = {"pairs": 2, "prompts": 2, "seeds": 1, "random-orders": 1, "head-counts": "20%", "steps": 2}
SMALL = {"width": 64, "height": 64, "batch-size": 4}


def which_command(folder: Path, *options: str) -> list[str]:
    return ["which_hrv.py", "--out", str(folder / "out"), "--states", str(folder / "states"), *options]


def test_hrvs_of_every_kind_are_made_and_checked(tmp_path: Path) -> None:
    quick = [f"--{name}={value}" for name, value in (QUICK | SMALL).items()]
    options = (*quick, "--checkpoint", "hrv-mini", "--check", "shape", "--hrv", f"mine={SHIPPED}")
    done = run_alone(*which_command(tmp_path, *options))
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    kinds = ["causal", "instant", "published", "mine"]
    assert list(report["findings"]) == kinds
    found = {kind: report["findings"][kind]["Shape"] for kind in kinds}
    assert all(one["factor"] == 0 and one["images"] == 2 for one in found.values())
    # The shipped HRV, under two names, and chance, which is measured once.
    assert found["published"] == found["mine"] and len({str(one["random_areas"]) for one in found.values()}) == 1
    assert {load_hrv(out / f"{kind}.safetensors").digest for kind in kinds[:2]} == {
        report["hrvs"][kind] for kind in kinds[:2]
    }
    page = (out / "report.md").read_text(encoding="utf-8")
    assert page in done.stdout and "| Shape | 0" in page.replace("-0", "0") and str(SCRIPTS.parent) not in page


@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        (("--checkpoint", "sd15.safetensors"), 2, "--scorer is needed"),
        (
            ("--checkpoint", "nowhere.safetensors", "--scorer", "clip"),
            1,
            "There is no checkpoint 'nowhere.safetensors'",
        ),
        (("--checkpoint", "hrv-mini", "--hrv", "causal=x.safetensors"), 1, "--hrv takes NAME=FILE with a name of its"),
        (("--checkpoint", "hrv-mini", "--check", "Mood"), 1, "no concept 'Mood'"),
    ],
)
def test_refusals_are_sentences(
    tmp_path: Path, commands: Commands, options: tuple[str, ...], status: int, sentence: str
) -> None:
    done = commands.run(*which_command(tmp_path, *options))
    assert done.returncode == status
    assert sentence in done.stderr and "Traceback" not in done.stderr
