"""Build Causal HRV in the host's own process, on HRV-mini."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.relevance.evidence import Effects
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
from hrv_pack.hrv.scoring.experiments import parse_experiment
from hrv_pack.nodes.causal import BuildCausalHRV

EXPERIMENT = parse_experiment("[Scene]\na red circle, <night | snow>\n[Position]\na red circle <left | right>")
INPUTS: dict[str, Any] = {
    "pairs": 1,
    "seed": 0,
    "steps": 2,
    "cfg": 4.0,
    "sampler_name": "euler",
    "scheduler": "normal",
    "width": 128,
    "height": 128,
    "batch_size": 1,
    "negative": "",
    "levels": "0.24",
}


@pytest.fixture
def mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """HRV-mini, with states of builds in a folder of this test."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_user_directory", lambda: str(tmp_path))
    return load_mini()[:2]


def test_an_experiment_gives_an_hrv_a_picture_and_a_report(mini: tuple[Any, Any]) -> None:
    model, clip = mini
    hrv, picture, report = BuildCausalHRV.execute(model=model, clip=clip, experiment=EXPERIMENT, **INPUTS).result
    assert isinstance(hrv, HRV) and isinstance(hrv.evidence, Effects) and hrv.concepts == ("Scene", "Position")
    assert hrv.provenance["estimator"] == "causal"
    assert picture.shape[0] == 1 and picture.shape[-1] == 3
    scene, position = json.loads(report)["concepts"]
    # HRV-mini reads every word where it stands (docs/hrv-mini.md).
    assert scene["groups"]["own word"] > 0.8 and abs(scene["groups"]["padding"]) < 0.05
    assert position["groups"]["own word"] > 0.5


def test_exactly_one_of_concepts_and_experiment_is_needed(mini: tuple[Any, Any]) -> None:
    model, clip = mini
    concepts = parse_vocabulary("Color: red, blue")
    for given in ({}, {"concepts": concepts, "experiment": EXPERIMENT}):
        with pytest.raises(HRVError, match="Connect either 'concepts' or 'experiment'"):
            BuildCausalHRV.execute(model=model, clip=clip, **given, **INPUTS)


def test_levels_that_are_not_numbers_are_refused(mini: tuple[Any, Any]) -> None:
    model, clip = mini
    with pytest.raises(HRVError, match="The noise levels 'half' aren't numbers"):
        BuildCausalHRV.execute(model=model, clip=clip, experiment=EXPERIMENT, **{**INPUTS, "levels": "half"})


def test_words_that_make_no_pair_are_told_what_to_write(mini: tuple[Any, Any]) -> None:
    model, clip = mini
    apart = parse_experiment("[Color]\na <red> circle\na <blue> star")
    with pytest.raises(HRVError, match=r"different sentences: red, blue\. .* such as 'a <red \| blue> circle'\."):
        BuildCausalHRV.execute(model=model, clip=clip, experiment=apart, **INPUTS)
    with pytest.raises(HRVError, match=r"The concept Color has no pair .* red \(1\)\. Add another word of 1 token\."):
        BuildCausalHRV.execute(model=model, clip=clip, concepts=parse_vocabulary("Color: red"), **INPUTS)
