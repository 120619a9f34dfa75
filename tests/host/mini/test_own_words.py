"""The report on words and heads: of effects that are known, and of HRV-mini what a causal build finds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hrv_pack.host.building.causal import CausalSettings, build_causal_hrv
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.hrv.building.pairs import Example
from hrv_pack.hrv.relevance.evidence import Effects
from hrv_pack.mini.own_words import MEASURES, WordReport, measure_words

HEADS = 6


def report_of(shares: list[list[float]], pairs: int = 8, noise: float = 0.0) -> WordReport:
    """A concept for each row of shares [4 + H], each with pairs at two noise levels."""
    random = np.random.default_rng(0)
    places = [(row, number, number % 2) for row in range(len(shares)) for number in range(pairs)]
    norms = random.uniform(1, 3, len(places))
    parts = np.array([shares[row] for row, _, _ in places])
    parts = parts + noise * random.normal(size=parts.shape)
    effects = Effects((parts * norms[:, None]).astype(np.float32), norms.astype(np.float32), np.array(places))
    return WordReport(tuple("ABCDE"[: len(shares)]), effects)


def test_measures_are_the_shares_that_went_in() -> None:
    heads = [0.5, 0.25, 0.25, 0, 0, 0]
    found = report_of([[0.9, 0.2, 0.05, 0.97, *heads]]).measures()["A"]
    assert [one.value for one in found.values()] == pytest.approx([0.9, 0.8, 0.05, 0.03, 1.0], abs=1e-5)
    assert all(one.low == pytest.approx(one.value) == one.high for one in found.values())
    assert tuple(found) == MEASURES


def test_cosines_are_those_of_the_heads() -> None:
    groups = [1.0, 0.0, 0.0, 1.0]
    found = report_of(
        [[*groups, 1, 0, 0, 0, 0, 0], [*groups, 0, 1, 0, 0, 0, 0], [*groups, 0.5, 0.5, -0.3, 0, 0, 0]]
    ).cosines()
    assert found["A"]["A"].value == pytest.approx(1)
    assert found["A"]["B"].value == pytest.approx(0)
    assert found["C"]["A"].value == pytest.approx(math.sqrt(0.5)) == pytest.approx(found["A"]["C"].value)


def test_intervals_hold_the_value_and_narrow_with_more_pairs() -> None:
    shares = [[0.9, 0.1, 0.0, 1.0, *[1 / HEADS] * HEADS]]
    few, many = (report_of(shares, pairs, noise=0.2).measures()["A"]["own word alone"] for pairs in (8, 200))
    for one in (few, many):
        assert one.low < one.value < one.high
    assert many.high - many.low < 0.5 * (few.high - few.low)
    assert many.low < 0.9 < many.high


def test_the_report_is_json_and_tables() -> None:
    report = report_of([[0.9, 0.2, 0.05, 0.97, *[0.1] * HEADS]] * 2)
    back = json.loads(json.dumps(report.to_json()))
    assert set(back) == {"own words", "cosines"}
    assert set(back["cosines"]["A"]["B"]) == {"value", "low", "high"}
    text = report.to_markdown()
    assert all(name in text for name in (*MEASURES, *report.concepts, "0.90 (0.90 to 0.90)"))


@pytest.mark.slow
def test_it_finds_what_a_causal_build_reports(tmp_path: Path) -> None:
    examples = {
        "Color": [Example(f"a {color} circle", color) for color in ("red", "blue", "white")],
        "Scene": [Example(f"a circle, {scene}", scene) for scene in ("night", "snow")],
    }
    settings = CausalSettings(2, 5, 2, 4.0, "euler", "normal", 128, 128, batch_size=2)
    model, clip, _ = load_mini()
    told: list[str] = []
    with torch.inference_mode():
        found = measure_words(model, clip, examples, settings, told.append)
        built = build_causal_hrv(model, clip, examples, settings, states=tmp_path)
    assert told == ["Color", "Scene"]
    evidence = built.hrv.evidence
    assert isinstance(evidence, Effects)
    np.testing.assert_allclose(found.effects.scores(2)[:, 4:], evidence.scores(2), atol=1e-4)
    for concept, measures in zip(built.report.concepts, found.measures().values(), strict=True):
        assert measures["own word alone"].value == pytest.approx(concept.own_word, abs=1e-3)
        assert measures["sum over heads"].value == pytest.approx(concept.complete, abs=1e-3)
