"""What a causal build says of itself: agreement, token groups, top heads, and what a user must know."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hrv_pack.hrv.building.causal_report import (
    CausalReport,
    ConceptReport,
    agreements,
    group_shares,
    top_heads,
)
from hrv_pack.hrv.building.causal_state import GROUPS
from hrv_pack.hrv.relevance.evidence import Effects

ALL_OWN = dict(zip(GROUPS, (0.9, 0.1, 0.0, 0.0), strict=True))


def report(**changes: object) -> ConceptReport:
    fields: dict[str, object] = {
        "concept": "Color",
        "pairs": 4,
        "different": 4,
        "complete": 1.02,
        "groups": ALL_OWN,
        "top": 0.8,
        "top_true": 0.7,
        "checked": 2,
        "agreement": 0.9,
    }
    return ConceptReport(**{**fields, **changes})  # type: ignore[arg-type]


def evidence(noise: float, pairs: int = 8) -> Effects:
    random = np.random.default_rng(0)
    shares = random.uniform(0, 1, 32)
    effects = shares + noise * random.normal(0, 1, (pairs, 32))
    return Effects(
        effects.astype(np.float32), np.ones(pairs, np.float32), np.array([[0, number, 0] for number in range(pairs)])
    )


def test_agreement_is_sure_without_noise_and_falls_with_it() -> None:
    sure, unsure = agreements(evidence(0.0), 1)[0], agreements(evidence(3.0), 1)[0]
    assert sure == pytest.approx(1.0) and unsure is not None and 0.0 <= unsure < 0.9


def test_agreement_is_unknown_for_a_single_pair_or_none() -> None:
    assert agreements(evidence(0.0, pairs=1), 1) == [None]
    assert agreements(evidence(0.0), 2)[1] is None


def test_agreement_is_that_of_simulated_endless_builds() -> None:
    """The mean over many builds of the expected correlation, against the true one."""
    random = np.random.default_rng(1)
    shares = random.normal(0, 1, 200)
    expected, true = [], []
    for _ in range(40):
        effects = shares + 2.0 * random.normal(0, 1, (16, 200))
        found = Effects(
            effects.astype(np.float32), np.ones(16, np.float32), np.array([[0, number, 0] for number in range(16)])
        )
        expected.append(agreements(found, 1)[0])
        true.append(np.corrcoef(found.scores(1)[0], shares)[0, 1])
    assert np.mean(np.array(expected, dtype=float)) == pytest.approx(np.mean(true), abs=0.01)


def test_group_shares_leave_out_what_was_not_measured() -> None:
    groups = np.full((3, 4), np.nan, np.float32)
    groups[:2] = [[2, 1, 1, 0], [1, 1, 0, 0]]
    norms = np.array([4, 2, 9], np.float32)
    found = Effects(np.ones((3, 8), np.float32), norms, np.array([[1, 0, 0], [1, 1, 1], [1, 2, 0]]))
    expected = dict(zip(GROUPS, (0.5, 0.375, 0.125, 0.0), strict=True))
    assert group_shares(found, groups) == pytest.approx(expected)
    assert group_shares(found, groups * np.float32(np.nan)) == dict.fromkeys(GROUPS)


def test_top_heads_are_a_sixteenth_and_at_least_one() -> None:
    scores = np.arange(128, dtype=float)[None]
    assert top_heads(scores) == [frozenset(range(120, 128))]
    assert top_heads(scores[:, :3]) == [frozenset({2})]


def test_a_concept_that_does_not_go_through_its_own_word_is_said() -> None:
    lost = report(groups=dict(zip(GROUPS, (0.01, 0.0, 0.0, 0.99), strict=True)))
    (said,) = lost.sentences()
    assert said == (
        "Only 1% of what Color does goes through its own word (most of the rest: padding), so controls on that word "
        "can't reach it."
    )
    assert not report().sentences()


@pytest.mark.parametrize(
    ("share", "told", "reached"),
    [
        (-0.02, "Only 0% of", "can't reach it."),
        (0.09, "Only 9% of", "can't reach it."),
        (0.1, "Only 10% of", "reach no more of it than that."),
        (0.49, "Only 49% of", "reach no more of it than that."),
    ],
)
def test_how_much_a_control_on_the_word_can_reach_has_stated_bounds(share: float, told: str, reached: str) -> None:
    (said,) = report(groups=dict(zip(GROUPS, (share, 1 - share, 0.0, 0.0), strict=True))).sentences()
    assert said.startswith(told) and "(most of the rest: other words)" in said
    assert said.endswith(f"so controls on that word {reached}")


def test_incomplete_shares_and_repeated_pairs_are_said() -> None:
    assert "add up to 0.40" in report(complete=0.4).sentences()[0]
    (said,) = report(different=2).sentences()
    assert "2 different pairs" in said and said.endswith("make it surer.")
    (said,) = report(different=2, alone=("dark blue", "teal")).sentences()
    assert said.endswith("in the same sentence as: dark blue, teal.")
    assert not report(alone=("teal",)).sentences()


def test_incomplete_levels_and_pairs_without_effect_are_said() -> None:
    (said,) = report(by_level={"0.06": 1.9, "0.24": 1.1, "0.44": 0.7}).sentences()
    assert "Color: at some noise levels" in said and "1.90 at 0.06, 0.70 at 0.44." in said
    (said,) = report(silent=("a / b",) * 4, pairs=16, different=16).sentences()
    assert said == "Color: 4 of 16 pairs change nothing and are left out: a / b, a / b, a / b ..."


def test_the_report_as_text_json_and_picture() -> None:
    whole = CausalReport((report(), report(concept="Size", top_true=None, agreement=None, checked=0)), 8)
    assert whole.text().splitlines()[1] == "Size: 4 pairs, sum 1.02, own word 90%, agreement unknown"
    read = json.loads(whole.to_json())
    assert read["top_heads"] == 8 and read["concepts"][1]["top_true"] is None
    assert whole.picture().mode == "RGB" and whole.picture().height > 100
