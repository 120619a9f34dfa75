"""Builds and analyses that an earlier version left unfinished go on (tests/support/old_files/README.md).

A state is found by the name of its file, which is its key: whoever changes what a key is made of loses people's work.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hrv_pack.host.building.build import BuildSettings, build_hrv
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.weakening.grid import WeakeningSettings
from hrv_pack.host.weakening.making import Examined
from hrv_pack.host.weakening.run import Analysis, analyse_weakening
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
from hrv_pack.hrv.scoring.experiments import Case, parse_experiment
from hrv_pack.hrv.weakening.plan import Plan
from hrv_pack.tests.support.evidence import votes
from safetensors.numpy import load_file
from safetensors.torch import load_file as torch_file

OLD = Path(__file__).parents[2] / "support" / "old_files"

VOCABULARY = parse_vocabulary("Color: red, dark blue\nShape: circle, star")
PROMPTS = ("a red circle", "a blue star")
BUILD = BuildSettings(
    images=6,
    seed=3,
    steps=2,
    cfg=4.0,
    sampler_name="euler_ancestral",
    scheduler="normal",
    width=32,
    height=32,
    batch_size=2,
    negative="blurry",
)
EXPERIMENT = {"Color": parse_experiment("[Color]\na <red | blue> circle").of("Color")}
PLAN = Plan((0, 64, 128), random_orders=0)
ANALYSIS = WeakeningSettings((3, 4), 2, 4.0, "euler_ancestral", "normal", 32, 32, batch_size=2, negative="blurry")
# Of the old analysis: eight batches, of which three had been made.
IMAGES, SCORED = 16, 6


class Brightness:
    """The mean of an image, and how many it has seen."""

    name = "brightness"

    def __init__(self) -> None:
        self.provenance: Mapping[str, Any] = {"reads": "the mean"}
        self.seen = 0

    def check(self, cases: Sequence[Case], width: int, height: int) -> None: ...

    def score(self, images: torch.Tensor, cases: Sequence[Case]) -> list[float]:
        self.seen += len(images)
        return [float(image.mean()) for image in images]


@pytest.fixture(scope="module")
def mini() -> tuple[Any, Any, Any]:
    """HRV-mini with the elements that digests read as they were in the weights of back then: the old files' model."""
    model, clip, vae = load_mini()
    elements = torch_file(OLD / "hrv-mini-elements.safetensors")["elements"]
    named = {
        f"{part}.{name}": tensor
        for part, patcher in (("clip", clip.patcher), ("model", model))
        for name, tensor in chain(patcher.model.named_parameters(), patcher.model.named_buffers())
        if tensor.is_floating_point() and "model_sampling" not in name
    }
    with torch.no_grad():
        for _, tensor in sorted(named.items()):
            count = min(tensor.numel(), 16)
            places = torch.arange(count) * (tensor.numel() - 1) // max(count - 1, 1)
            tensor.view(-1)[places] = elements[:count].to(tensor)
            elements = elements[count:]
    assert not len(elements)
    return model, clip, vae


@pytest.fixture(autouse=True)
def _old_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys have the host's version in them; that of the old files, whatever the host is today."""
    for name, module in sys.modules.items():
        if name.startswith("hrv_pack.host.") and hasattr(module, "host_version"):
            monkeypatch.setattr(module, "host_version", "0.30.0")


def copied(kind: str, folder: Path) -> Path:
    """The only old state of a ``kind``, in a folder of its own; the file."""
    (file,) = (OLD / kind).glob("*.safetensors")
    folder.mkdir()
    return Path(shutil.copy(file, folder))


def build(mini: tuple[Any, Any, Any], states: Path, report: Callable[[Any], None], images: int = BUILD.images) -> HRV:
    settings = replace(BUILD, images=images)
    with torch.inference_mode():
        return build_hrv(mini[0], mini[1], VOCABULARY, PROMPTS, settings, states=states, report=report)


def analyse(mini: tuple[Any, Any, Any], states: Path, scorer: Brightness) -> Analysis:
    old = load_hrv(OLD / "hrv.safetensors")
    with torch.inference_mode():
        return analyse_weakening(Examined(*mini, old, scorer), EXPERIMENT, PLAN, ANALYSIS, states=states)


def test_an_old_build_goes_on(mini: tuple[Any, Any, Any], tmp_path: Path) -> None:
    """With what is there already, and the images that are missing from today's weights."""
    file = copied("builds", tmp_path / "old")
    before = load_file(file)["halves"].sum(axis=0)
    done: list[int] = []
    resumed = build(mini, file.parent, lambda progress: done.append(progress.done))
    assert done == [4, 6], "the two images that were done count"
    assert list(file.parent.glob("*.safetensors")) == [file]
    whole = build(mini, tmp_path / "new", nothing)
    assert [file.name] == [new.name for new in (tmp_path / "new").glob("*.safetensors")]
    first = build(mini, tmp_path / "first", nothing, images=2)
    assert np.array_equal(votes(resumed) - before, votes(whole) - votes(first)) and before.any()
    old = load_hrv(OLD / "hrv.safetensors")
    assert {**resumed.provenance, "convergence": ()} == {**old.provenance, "convergence": ()}


def test_an_old_analysis_goes_on(mini: tuple[Any, Any, Any], tmp_path: Path) -> None:
    """With what is there already, and what is missing from today's weights."""
    file = copied("analyses", tmp_path / "old")
    before = load_file(file)
    rest, all_of_it = Brightness(), Brightness()
    resumed = analyse(mini, file.parent, rest)
    assert list(file.parent.glob("*.safetensors")) == [file]
    whole = analyse(mini, tmp_path / "new", all_of_it)
    assert [file.name] == [new.name for new in (tmp_path / "new").glob("*.safetensors")]
    assert (rest.seen, all_of_it.seen) == (IMAGES - SCORED, IMAGES)

    after, new = load_file(file), load_file(tmp_path / "new" / file.name)
    assert np.array_equal(after["scores"][:SCORED], before["scores"][:SCORED])
    assert np.array_equal(after["scores"][SCORED:], new["scores"][SCORED:])
    assert np.isnan(before["scores"][SCORED:]).all()
    assert np.array_equal(np.unique(resumed.results[0].scores), np.unique(after["scores"]))
    assert resumed.results[0].provenance == whole.results[0].provenance
    assert resumed.sheet.keys() == whole.sheet.keys() and len(whole.sheet) == len(before["sheet"])
    for there, (cell, picture) in zip(before["sheet"], resumed.sheet.items(), strict=True):
        assert np.array_equal(picture, there if there.any() else whole.sheet[cell])


def nothing(progress: Any) -> None: ...
