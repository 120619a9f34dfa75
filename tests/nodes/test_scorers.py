"""The scorer nodes in the host's own process, and a scorer of another pack as the documents show it."""

from __future__ import annotations

import logging
import re
import runpy
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import folder_paths
import numpy as np
import pytest
import torch
from hrv_pack.host.scoring.clip import ClipScorer
from hrv_pack.host.scoring.transformers import TransformersScorer
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.scoring.experiments import Case
from hrv_pack.hrv.scoring.scorer import Scorer
from hrv_pack.mini.captions import draw_samples
from hrv_pack.mini.truth_scorer import MiniScorer
from hrv_pack.mini.world import draw
from hrv_pack.nodes.scorers import Score, ScorerCLIP, ScorerMini, ScorerTransformers
from hrv_pack.tests.host.scoring.test_clip import small_vision
from hrv_pack.tests.host.scoring.test_transformers import save_clip
from hrv_pack.tests.support.small_host import TEXT_WIDTHS, small_clip_sd15
from launcher.paths import PACK_ROOT


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the example in the documents defines."""
    (code,) = re.findall(r"```python\n(.*?)```", (PACK_ROOT / "docs" / "scorers.md").read_text(encoding="utf-8"), re.S)
    file = tmp_path_factory.mktemp("example") / "scorer.py"
    file.write_text(code, encoding="utf-8")
    return runpy.run_path(str(file))


def colored(*colors: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(colors)[:, None, None].repeat(1, 32, 32, 1)


def shown(images: torch.Tensor, scorer: Scorer, concept: str, target: str) -> tuple[float, list[str]]:
    """The mean and the lines that Score Images gives."""
    mean, text = Score.execute(images, scorer, concept, target).result
    return mean, text.splitlines()


def test_the_documented_scorer_works(documented: dict[str, Any]) -> None:
    (scorer,) = documented["LightScorerNode"].execute().result
    (output,) = documented["LightScorerNode"].GET_SCHEMA().outputs
    (expected,) = ScorerMini.GET_SCHEMA().outputs
    assert output.io_type == expected.io_type == "HRV_SCORER"
    mean, lines = shown(colored((0.5, 0.25, 0.25), (1.0, 0.0, 0.0)), scorer, "Color", " red ")
    assert mean == pytest.approx(0.75)
    assert lines == ["share of light, 'red': 0.7500", "image 1: 0.5000", "image 2: 1.0000"]
    with pytest.raises(ValueError, match="This scorer knows red, green, blue, not 'pink'"):
        shown(colored((1.0, 0.0, 0.0)), scorer, "Color", "pink")


def test_a_scorer_gets_images_as_it_may_expect_them() -> None:
    class Watching:
        name = "watching"
        provenance: Mapping[str, Any] = MappingProxyType({})
        missing = 0

        def check(self, cases: Sequence[Case], width: int, height: int) -> None:
            seen.append((len(cases), cases[0], width, height))

        def score(self, images: torch.Tensor, cases: Sequence[Case]) -> Sequence[float]:
            seen.append((images.shape, images.dtype, float(images.min()), float(images.max())))
            return [0.5] * (len(cases) - self.missing)

    seen: list[Any] = []
    scorer = Watching()
    images = torch.linspace(-0.1, 1.1, 2 * 5 * 7 * 4).view(2, 5, 7, 4).half()
    assert shown(images, scorer, " Some  mood ", "happy")[0] == 0.5
    assert seen == [(2, Case("Some mood", "happy", "happy"), 7, 5), ((2, 5, 7, 3), torch.float32, 0.0, 1.0)]
    scorer.missing = 1
    with pytest.raises(HRVError, match="The scorer 'watching' gave 1 numbers for 2 images"):
        shown(images, scorer, "", "happy")


def test_the_truth_of_mini_pictures_is_shown() -> None:
    (scorer,) = ScorerMini.execute().result
    assert isinstance(scorer, MiniScorer)
    samples, truth = draw_samples(3, np.random.default_rng(1), "colored")
    images = draw(truth).movedim(1, -1)
    expected = [float(sample.named["Color"] == "mint") for sample in samples]
    mean, lines = shown(images, scorer, "color", "Mint")
    assert mean == pytest.approx(sum(expected) / 3)
    assert [float(line.split()[-1]) for line in lines[1:]] == expected
    with pytest.raises(HRVError, match="There is no Color 'pink'"):
        shown(images, scorer, "Color", "pink")
    with pytest.raises(HRVError, match="square images"):
        shown(images[:, :20], scorer, "Color", "mint")


def test_clip_of_the_host_says_what_it_recognises(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        made = ScorerCLIP.execute(small_vision(TEXT_WIDTHS["l"]), small_clip_sd15())
    (scorer,) = made.result
    assert isinstance(scorer, ClipScorer)
    (text,) = made.ui["text"]
    found = len(scorer.recognised_colors())
    assert text.startswith(f"{found} of 6 plain colors recognised.")
    # Random weights know no color.
    assert found < 4 and "do both encoders belong together" in text and text in caplog.text
    mean, _ = shown(colored((1.0, 0.0, 0.0), (0.0, 0.0, 1.0)), scorer, "", "red")
    assert -1 <= mean <= 1


def test_a_pair_that_knows_its_colors_is_not_warned_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClipScorer, "recognised_colors", lambda scorer: ["red", "blue", "black", "white"])
    with caplog.at_level(logging.WARNING):
        made = ScorerCLIP.execute(small_vision(TEXT_WIDTHS["l"]), small_clip_sd15())
    assert made.ui["text"] == ["4 of 6 plain colors recognised."]
    assert "plain colors" not in caplog.text


def test_clip_from_a_folder_is_read_anew_when_it_was_exchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    save_clip(tmp_path / "mine")
    made = ScorerTransformers.execute("mine")
    assert isinstance(made.result[0], TransformersScorer)
    assert re.match(r"\d of 6 plain colors recognised\.", made.ui["text"][0])
    before = ScorerTransformers.fingerprint_inputs("mine")
    assert ScorerTransformers.fingerprint_inputs("mine") == before
    shutil.rmtree(tmp_path / "mine")
    save_clip(tmp_path / "mine", seed=2)
    assert ScorerTransformers.fingerprint_inputs("mine") != before
    with pytest.raises(HRVError, match="There is no folder 'yours'"):
        ScorerTransformers.execute("yours")
