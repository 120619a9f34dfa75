"""Little of everything, through the host as in full: no direction flips, and what is there isn't made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import evidence_process
import pytest
from comfy.cli_args import args
from evidence import PARTS
from evidence_run import Asked, measure
from hrv_pack.benchmarks.evidence.parts import all_parts


def test_the_command_knows_all_parts() -> None:
    assert tuple(all_parts()[1]) == PARTS


@pytest.mark.slow
def test_no_direction_flips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = dict(vars(args))
    asked = Asked("quick", PARTS, 1, None, tmp_path / "state", tmp_path / "out")
    measure(asked)
    record = json.loads((asked.out / "evidence.json").read_text("utf-8"))
    numbers = {key: found for key, found in record.items() if key != "made"}
    assert {key.split(".")[0] for key in numbers} == set(PARTS)
    assert all(set(found) == {"value", "low", "high", "n"} for found in numbers.values())

    def never(*_: Any) -> None:
        raise AssertionError("it is there already")

    monkeypatch.setattr(evidence_process.Worker, "make", never)
    measure(asked)
    assert json.loads((asked.out / "evidence.json").read_text("utf-8")) == record
    assert vars(args) == options, "the host was in use, by other tests too"
