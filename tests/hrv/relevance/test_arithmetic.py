"""Arithmetic of HRVs: exact results, what becomes of counts and provenance, and what is refused."""

from __future__ import annotations

import json
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.hrv.relevance.arithmetic import clamp, mean, merge, pick
from hrv_pack.hrv.relevance.evidence import Votes
from hrv_pack.hrv.relevance.ranking import top_heads
from hrv_pack.hrv.relevance.vectors import HRV

LAYOUT = HeadLayout((AttentionLayer("input", 1, 0, 2), AttentionLayer("middle", 0, 0, 3)))
OTHER_LAYOUT = HeadLayout((AttentionLayer("input", 2, 0, 2), AttentionLayer("middle", 0, 0, 3)))
CONCEPTS = ("Color", "Image Style", "Size")
SETTINGS = {"model": "SD15", "vocabulary": "Color: red\nImage Style: cubism\nSize: big", "steps": 20, "cfg": 7.5}


def hrv(concepts: tuple[str, ...] = CONCEPTS, seed: int = 0, layout: HeadLayout = LAYOUT, **provenance: Any) -> HRV:
    values = np.random.default_rng(seed).exponential(size=(len(concepts), layout.head_count)).astype(np.float32)
    return HRV(values, concepts, layout, provenance=provenance)


def build(seed: int, images: int = 64, **changes: Any) -> HRV:
    """A build with counts of its own and the provenance that builds have."""
    counts = np.random.default_rng(seed).integers(1, 1000, (3, 5))
    settings = {**SETTINGS, "seed": seed, "images": images, "prompts": ["a cat", "a dog"], "host": f"1.{seed}"}
    return HRV.from_counts(counts, CONCEPTS, LAYOUT, {**settings, **changes})


def counts(made: HRV) -> np.ndarray:
    assert isinstance(made.evidence, Votes)
    return made.evidence.counts


class TestMerge:
    def test_different_concepts_stand_side_by_side_bit_for_bit(self) -> None:
        one, two, three = hrv(("Color", "Size")), hrv(("Shape",), 1), hrv(("Weather", "Mood"), 2)
        merged = merge([one, two, three])
        assert merged.concepts == ("Color", "Size", "Shape", "Weather", "Mood")
        np.testing.assert_array_equal(merged.values, np.concatenate([one.values, two.values, three.values]))
        assert merged.evidence is None

    def test_rankings_survive_the_loss_of_counts(self) -> None:
        built = build(1)
        merged = merge([built, hrv(("Shape",))])
        assert merged.evidence is None
        for concept in CONCEPTS:
            np.testing.assert_array_equal(merged.ranking(concept), built.ranking(concept))

    def test_builds_add_up_to_the_build_over_all_images(self) -> None:
        builds = [build(1), build(2), build(3)]
        total = np.sum([counts(each) for each in builds], axis=0)
        merged = merge(builds)
        np.testing.assert_array_equal(counts(merged), total)
        np.testing.assert_array_equal(merged.values, HRV.from_counts(total, CONCEPTS, LAYOUT).values)
        assert merged.provenance["steps"] == 20
        assert [part["seed"] for part in merged.provenance["parts"]] == [1, 2, 3]
        assert "seed" not in merged.provenance and "host" not in merged.provenance

    def test_neither_order_nor_grouping_of_builds_matters(self) -> None:
        builds = [build(1), build(2), build(3, images=7)]
        expected = merge(builds)
        assert all(merge(order).same_as(expected) for order in permutations(builds))
        assert merge([merge(builds[:2]), builds[2]]).same_as(expected)
        assert merge([builds[1], merge([builds[2], builds[0]])]).same_as(expected)

    def test_builds_are_added_before_others_are_put_beside_them(self) -> None:
        first, second, other = build(1), build(2), hrv(("Shape",))
        merged = merge([first, other, second])
        added = merge([first, second])
        assert merged.concepts == (*CONCEPTS, "Shape")
        np.testing.assert_array_equal(merged.values, np.concatenate([added.values, other.values]))

    @pytest.mark.parametrize("order", list(permutations(range(3))))
    def test_all_shards_of_a_build_are_the_build(self, order: tuple[int, ...]) -> None:
        shards = [build(1, shard=f"{number}/3", batch_size=4, convergence=[]) for number in (1, 2, 3)]
        whole = build(1, batch_size=4)
        in_order = [shards[number] for number in order]
        for merged in (merge(in_order), merge([merge(in_order[:2]), in_order[2]])):
            assert merged.provenance == whole.provenance
            np.testing.assert_array_equal(counts(merged), 3 * counts(whole))

    def test_some_shards_say_which(self) -> None:
        merged = merge([build(1, shard="3/3", batch_size=4), build(1, shard="1/3", batch_size=4)])
        assert [part["shard"] for part in merged.provenance["parts"]] == ["1/3", "3/3"]
        again = merge([merged, build(2)])
        assert [part.get("shard") for part in again.provenance["parts"]] == ["1/3", "3/3", None]

    @pytest.mark.parametrize(
        "other",
        [
            build(1, shard="1/3", batch_size=4),
            build(1, shard="2/4", batch_size=4),
            build(1, shard="2/3", batch_size=5),
            build(1, shard="2/3", batch_size=4, images=65),
            build(1, shard="two of three", batch_size=4),
            build(1, batch_size=4),
        ],
    )
    def test_shards_of_other_cuts_may_share_images(self, other: HRV) -> None:
        with pytest.raises(HRVError, match="count the same images"):
            merge([build(1, shard="1/3", batch_size=4), other])

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            (build(2, steps=21), "setting 'steps' differs: 20 in one, 21 in another"),
            (build(2, model="SDXL"), "setting 'model' differs: 'SD15' in one, 'SDXL' in another"),
            (build(2, estimator="paper"), "setting 'estimator' differs: 'not recorded' in one, 'paper' in another"),
            (
                build(2, vocabulary="Color: red\nImage Style: cubism\nSize: bigger"),
                r"setting 'vocabulary' differs: ….*Size: big' in one, ….*Size: bigger' in another",
            ),
            (build(1), r"count the same images \(seed 1\)"),
            (build(1, images=128), "count the same images"),
            (merge([build(1), build(2)]), "count the same images"),
            (hrv(), "has none.*use HRV Mean"),
            (hrv(("Size", "Shape")), "share Size: leave"),
            (pick(build(2), CONCEPTS[::-1]), "share Color, Image Style, Size: leave"),
            (
                hrv(("A",), layout=OTHER_LAYOUT),
                "first differ where the first has down1.0 with 2 heads and the other down2",
            ),
        ],
    )
    def test_what_does_not_belong_together_is_refused(self, other: HRV, message: str) -> None:
        with pytest.raises(HRVError, match=message):
            merge([build(1), other])

    def test_one_is_too_few(self) -> None:
        for operation in (merge, mean):
            for hrvs in ([], [hrv()]):
                with pytest.raises(HRVError, match="at least two HRVs"):
                    operation(hrvs)

    def test_a_strange_provenance_is_no_obstacle(self) -> None:
        strange = build(1, parts=3, processing="none")
        assert counts(merge([strange, build(2, processing="none")])).sum() == (counts(strange) + counts(build(2))).sum()
        assert clamp(strange, 2).provenance["processing"] == ({"operation": "clamp", "limit": 2},)


class TestPick:
    def test_rows_in_the_order_asked_for_bit_for_bit(self) -> None:
        source = build(1)
        picked = pick(source, ["size", " Color"])
        assert picked.concepts == ("Size", "Color")
        np.testing.assert_array_equal(picked.values, source.values[[2, 0]])
        assert picked.evidence is None
        np.testing.assert_array_equal(picked.ranking("Color"), source.ranking("Color"))
        assert picked.provenance["seed"] == 1
        assert picked.provenance["processing"] == ({"operation": "pick", "concepts": ("Size", "Color")},)

    def test_counts_stay_when_all_concepts_do(self) -> None:
        source = build(1)
        np.testing.assert_array_equal(counts(pick(source, CONCEPTS[::-1])), counts(source)[::-1])

    @pytest.mark.parametrize(
        ("concepts", "message"),
        [([], "No concept was picked"), (["Colour"], "Did you mean Color"), (["Size", "size"], "Size is there twice")],
    )
    def test_bad_names_are_refused(self, concepts: list[str], message: str) -> None:
        with pytest.raises(HRVError, match=message):
            pick(hrv(), concepts)


class TestMean:
    def test_every_hrv_weighs_the_same_and_concepts_are_found_by_name(self) -> None:
        one, two = hrv(), pick(hrv(seed=1), CONCEPTS[::-1])
        averaged = mean([one, two])
        exact = (one.values.astype(np.float64) + two.values[::-1].astype(np.float64)) / 2
        np.testing.assert_array_equal(averaged.values, exact.astype(np.float32))
        assert (averaged.concepts, averaged.evidence) == (CONCEPTS, None)
        assert averaged.provenance["operation"] == "mean" and len(averaged.provenance["sources"]) == 2

    def test_the_mean_of_equals_is_that_equal(self) -> None:
        np.testing.assert_array_equal(mean([hrv()] * 7).values, hrv().values)

    def test_rows_keep_the_norm_that_all_have(self) -> None:
        np.testing.assert_allclose(mean([build(1), build(2)]).values.sum(axis=1), 5, rtol=1e-6)

    def test_other_concepts_and_layouts_are_refused(self) -> None:
        with pytest.raises(HRVError, match="not all of these have Color, Shape"):
            mean([hrv(), hrv(("Shape", "Size", "Image Style"))])
        with pytest.raises(HRVError, match="not all of these have A, B, C, D, E, F, G, H, I, J"):
            mean([hrv(tuple("ABCDEFG")), hrv(tuple("HIJ"))])
        with pytest.raises(HRVError, match="different kinds of models"):
            mean([hrv(), hrv(layout=OTHER_LAYOUT)])


class TestClamp:
    def test_only_elements_above_the_limit_change(self) -> None:
        source = build(1)
        clamped = clamp(source, 1.25)
        np.testing.assert_array_equal(clamped.values, np.minimum(source.values, np.float32(1.25)))
        assert (clamped.values < source.values).any()
        assert clamped.evidence is None
        again = clamp(clamped, 1)
        assert [step["limit"] for step in again.provenance["processing"]] == [1.25, 1]

    @pytest.mark.parametrize("limit", [0, -1.0, float("nan"), float("inf")])
    def test_a_limit_is_a_positive_number(self, limit: float) -> None:
        with pytest.raises(HRVError, match="positive number"):
            clamp(hrv(), limit)


def test_every_result_can_be_written_down() -> None:
    """Provenance stays JSON through a long chain of operations."""
    made = build(1)
    for _ in range(100):
        made = clamp(pick(made, CONCEPTS), 9)
    assert len(json.loads(made.provenance_json())["processing"]) == 200
    assert json.loads(mean([made, build(2)]).provenance_json())["sources"][1]["seed"] == 2


def test_ten_thousand_concepts_are_merged_averaged_picked_and_ranked() -> None:
    names = tuple(f"Concept {number}" for number in range(10_000))
    one, other = hrv(names), hrv(tuple(f"Other {number}" for number in range(10_000)), seed=1)
    assert merge([one, other]).concepts == (*names, *other.concepts)
    assert mean([one, hrv(names[::-1])]).concepts == names
    assert pick(one, names[::-1]).concepts == names[::-1]
    assert len(top_heads(one, count=1)) == 10_000


def test_an_unknown_concept_of_many_gets_a_short_message() -> None:
    with pytest.raises(HRVError, match=r"It has: .* and \d+ more\.") as caught:
        hrv(tuple(f"Concept {number}" for number in range(10_000))).index("Colour")
    assert len(str(caught.value)) < 500
