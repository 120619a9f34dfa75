"""Evidence of HRVs: what every kind promises, and what votes and effects mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.hrv.relevance.arithmetic import merge, pick
from hrv_pack.hrv.relevance.evidence import Effects, Evidence, Votes, evidence_of
from hrv_pack.hrv.relevance.files import load_hrv, save_hrv
from hrv_pack.hrv.relevance.vectors import HRV
from safetensors import safe_open

LAYOUT = HeadLayout((AttentionLayer("input", 1, 0, 2), AttentionLayer("middle", 0, 0, 3)))
CONCEPTS = ("Color", "Shape", "Size")
PAIRS = np.array([[0, 0, 0], [0, 1, 1], [0, 2, 0], [1, 0, 0], [1, 5, 1], [2, 7, 1]])


def effects(seed: int = 0, pairs: Any = PAIRS) -> Effects:
    random = np.random.default_rng(seed)
    return Effects(
        random.normal(0.3, 1.0, (len(pairs), 5)).astype(np.float32),
        random.uniform(1.0, 9.0, len(pairs)).astype(np.float32),
        np.array(pairs),
    )


def votes(seed: int = 0) -> Votes:
    return Votes(np.random.default_rng(seed).integers(1, 50, (3, 5)))


def same(one: Evidence, other: Evidence) -> bool:
    mine, theirs = one.arrays(), other.arrays()
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("evidence", [votes(), effects()], ids=["votes", "effects"])
class TestEveryKind:
    def test_scores_rank_the_heads_and_give_the_values(self, evidence: Evidence) -> None:
        built = HRV.from_evidence(evidence, CONCEPTS, LAYOUT)
        scores = evidence.scores(3)
        assert scores.shape == (3, 5) and scores.dtype == np.float64
        for row, concept in enumerate(CONCEPTS):
            assert np.array_equal(built.ranking(concept), np.argsort(-scores[row], kind="stable"))
        kept = np.maximum(scores, 0)
        np.testing.assert_allclose(built.values, kept / kept.sum(1, keepdims=True) * 5, rtol=1e-6)

    def test_arrays_hold_all_of_it(self, evidence: Evidence) -> None:
        again = evidence_of(evidence.arrays())
        assert again is not None and type(again) is type(evidence) and same(again, evidence)

    def test_files_keep_it_bit_for_bit(self, evidence: Evidence, tmp_path: Path) -> None:
        built = HRV.from_evidence(evidence, CONCEPTS, LAYOUT, {"seed": 3})
        loaded = load_hrv(save_hrv(built, tmp_path / "a.safetensors"))
        assert loaded.same_as(built) and loaded.evidence is not None and same(loaded.evidence, evidence)

    def test_nothing_can_be_changed(self, evidence: Evidence) -> None:
        for array in evidence.arrays().values():
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0

    def test_other_heads_are_refused(self, evidence: Evidence) -> None:
        with pytest.raises(HRVError, match="of this HRV should be"):
            HRV.from_evidence(evidence, CONCEPTS, HeadLayout(LAYOUT.layers[:1]))

    def test_the_other_kind_cannot_be_added(self, evidence: Evidence) -> None:
        other: Evidence = effects(1) if isinstance(evidence, Votes) else votes(1)
        with pytest.raises(HRVError, match="merge HRVs of one estimator"):
            evidence.added(other)

    def test_picking_all_concepts_in_another_order_moves_the_rows(self, evidence: Evidence) -> None:
        picked = evidence.picked([2, 0, 1], 3)
        assert picked is not None and np.array_equal(picked.scores(3), evidence.scores(3)[[2, 0, 1]])


def test_files_of_votes_stay_version_1_and_those_of_effects_are_version_2(tmp_path: Path) -> None:
    found = []
    for name, evidence in (("votes", votes()), ("effects", effects())):
        built = HRV.from_evidence(evidence, CONCEPTS, LAYOUT)
        with safe_open(save_hrv(built, tmp_path / name), "numpy") as file:
            found.append((file.metadata() or {})["hrv.format_version"])
    assert found == ["1", "2"]


def test_scores_of_effects_are_shares_of_the_whole_averaged_over_levels() -> None:
    found = effects()
    whole = np.zeros((3, 5))
    for concept in range(3):
        shares = []
        for level in range(2):
            own = (PAIRS[:, 0] == concept) & (PAIRS[:, 2] == level)
            if own.any():
                shares.append(found.effects[own].astype(float).sum(0) / found.norms[own].astype(float).sum())
        whole[concept] = np.mean(shares, axis=0)
    np.testing.assert_allclose(found.scores(3), whole, rtol=1e-12)


def test_a_concept_without_pairs_or_without_any_effect_has_zeros() -> None:
    made = effects(pairs=[[0, 0, 0], [2, 0, 0]])
    silent = Effects(made.effects * 0, made.norms * 0, made.pairs)
    assert not made.scores(3)[1].any() and made.scores(3)[0].any()
    assert not silent.scores(3).any() and not HRV.from_evidence(silent, CONCEPTS, LAYOUT).values.any()


def test_any_split_of_pairs_gives_the_same_bits() -> None:
    whole = effects()
    for seed in range(5):
        which = np.random.default_rng(seed).permutation(6)
        one, other = (
            Effects(whole.effects[some], whole.norms[some], whole.pairs[some]) for some in (which[:2], which[2:])
        )
        assert same(one.added(other), whole) and same(other.added(one), whole)


def test_shards_of_effects_merge_to_the_whole_build() -> None:
    whole = effects()
    settings = {"estimator": "causal", "seed": 1, "prompts": ["a"], "images": 6, "batch_size": 1}
    shards = []
    for number, which in ((1, slice(0, 4)), (2, slice(4, 6))):
        part = Effects(whole.effects[which], whole.norms[which], whole.pairs[which])
        shards.append(HRV.from_evidence(part, CONCEPTS, LAYOUT, {**settings, "shard": f"{number}/2"}))
    merged = merge(shards)
    built = HRV.from_evidence(whole, CONCEPTS, LAYOUT, settings)
    assert np.array_equal(merged.values, built.values) and merged.evidence is not None and same(merged.evidence, whole)


def test_effects_say_something_about_some_concepts_alone_and_votes_do_not() -> None:
    causal = HRV.from_evidence(effects(), CONCEPTS, LAYOUT)
    picked = pick(causal, ["Size", "Color"])
    assert isinstance(picked.evidence, Effects)
    np.testing.assert_array_equal(picked.evidence.scores(2), effects().scores(3)[[2, 0]])
    assert pick(HRV.from_evidence(votes(), CONCEPTS, LAYOUT), ["Size"]).evidence is None
    assert effects(pairs=[[0, 0, 0]]).picked([1], 3) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norms": np.ones((6, 2))}, "don't belong together"),
        ({"pairs": PAIRS[:5]}, "don't belong together"),
        ({"pairs": PAIRS * 1.5}, "whole numbers"),
        ({"pairs": -PAIRS}, "whole numbers from 0"),
        ({"pairs": PAIRS * 0}, "the same pair|The same pair"),
        ({"effects": np.full((6, 5), np.nan)}, "NaN"),
        ({"norms": -np.ones(6)}, "negative norms"),
        ({"effects": np.ones((0, 5)), "norms": np.ones(0), "pairs": PAIRS[:0]}, "at least one pair"),
    ],
)
def test_effects_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    made = effects()
    with pytest.raises(HRVError, match=message):
        Effects(**{"effects": made.effects, "norms": made.norms, "pairs": made.pairs, **change})


def test_effects_of_a_concept_that_is_not_there_are_refused() -> None:
    with pytest.raises(HRVError, match="are for a concept that it doesn't have"):
        HRV.from_evidence(effects(), CONCEPTS[:2], LAYOUT)


def test_parts_of_evidence_are_refused() -> None:
    arrays = dict(effects().arrays())
    with pytest.raises(HRVError, match="either 'counts', or all of"):
        evidence_of({**arrays, "counts": votes().counts})
    arrays.pop("effect_norms")
    with pytest.raises(HRVError, match="either 'counts', or all of"):
        evidence_of(arrays)
