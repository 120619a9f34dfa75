"""What claims make of their pieces, on results made up so that the numbers are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hrv_pack.benchmarks.evidence.editing import WAYS, Editing
from hrv_pack.benchmarks.evidence.hrvs import Build, HRVs, captions
from hrv_pack.benchmarks.evidence.misinterpretation import SCENE, STRENGTHS, Misinterpretation, draw_prompts
from hrv_pack.benchmarks.evidence.ordered_weakening import OrderedWeakening, Way, factors_of
from hrv_pack.benchmarks.evidence.ordered_weakening import draw_prompts as draw_captions
from hrv_pack.benchmarks.evidence.pieces import Piece, Store, missing
from hrv_pack.benchmarks.evidence.read_by_concept import ReadByConcept, reported_pairs
from hrv_pack.benchmarks.evidence.robustness import numbered
from hrv_pack.benchmarks.evidence.sizes import FULL, QUICK, REPORTING, Sizes
from hrv_pack.benchmarks.evidence.two_subjects import TwoSubjects
from hrv_pack.benchmarks.two_subjects import KINDS, PLAIN
from hrv_pack.benchmarks.two_subjects import draw_prompts as draw_subjects
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.hrv.relevance.evidence import Effects
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.mini.world import CONCEPTS, TWO_MEANINGS


class Given(HRVs):
    """HRVs that are there already: of random numbers, by kind."""

    def __init__(self) -> None:
        super().__init__()
        layout = head_layout(load_mini()[0])
        rng = np.random.default_rng(0)
        self.given = {
            kind: HRV(rng.random((len(CONCEPTS), layout.head_count), np.float32), tuple(CONCEPTS), layout)
            for kind in ("paper", "all words", "causal", "values")
        }

    def missing(self, builds: Sequence[Build], store: Store, sizes: Sizes) -> list[Piece]:
        return []

    def hrv(self, kind: str, store: Store, sizes: Sizes, build: Build | None = None) -> HRV:
        return self.given[kind] if kind in self.given else super().hrv(kind, store, sizes)


@pytest.fixture(scope="module")
def hrvs() -> Given:
    return Given()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_areas_and_losses_are_those_of_the_shares_that_are_left(hrvs: Given, store: Store) -> None:
    sizes = replace(
        QUICK, weakened_prompts=4, weakened_heads=((0.0, (8, 24)),), weakened_concepts=("Color", "Plants"),
        weakened_kinds=("causal", "random"), matrix_kinds=("causal",),
    )  # fmt: skip
    part = OrderedWeakening(hrvs)
    # How many of four pictures still show their concept.
    left = {(8, "most"): 1, (24, "most"): 0, (8, "least"): 4, (24, "least"): 2, (12, "most"): 3, (0, ""): 4}
    for piece in missing([part], store, sizes):
        shown = left[piece.what["heads"], piece.what["order"]]
        names = ("Plants", "Position", "Scene") if piece.what["prompts"] == "plant" else ("Color", "Shape", "Scene")
        store.keep(piece, [dict.fromkeys(names, number < shown) for number in range(4)], 1.0)
    assert missing([part], store, sizes) == []
    numbers = part.section(store, sizes).numbers
    # (4/4 - 1/4 + 2/4 - 0) / 2
    for kind in ("causal", "random"):
        for concept in ("Color", "Plants", "mean"):
            assert numbers[f"ordered_weakening.{concept}.{kind}.0.area"].value == 0.625
    assert numbers["ordered_weakening.Color.causal.0.most.8"][::3] == (0.25, 4)
    assert numbers["ordered_weakening.Color.unweakened"].value == 1.0
    assert numbers["ordered_weakening.loss.causal.Plants.Color"].value == 0.25


def test_first_pairs_are_of_all_noise_levels() -> None:
    # Of two concepts, by level: 0 0 1 1 and 1 0, in the order of their numbers.
    pairs = np.array([[0, 3, 0], [0, 5, 1], [0, 7, 0], [0, 9, 1], [1, 2, 1], [1, 4, 0]])
    evidence = Effects(np.zeros((6, 2), np.float32), np.ones(6, np.float32), pairs)
    assert numbered(evidence).tolist() == [0, 1, 2, 3, 1, 0]


def test_weakened_heads_are_those_of_the_order(hrvs: Given, store: Store) -> None:
    hrv = hrvs.hrv("causal", store, QUICK)
    for order, chosen in (("most", hrv.ranking("Shape")[:5]), ("least", hrv.ranking("Shape")[-5:])):
        factors = factors_of(Way("single", "causal", "Shape", order, 5, -2.0), hrv)
        assert set(np.flatnonzero(factors != 1.0)) == set(chosen) and (factors[chosen] == -2.0).all()
    most, least = (factors_of(Way("single", "random", "", order, 64, 0.0), hrv) for order in ("most", "least"))
    assert ((most == 0.0) ^ (least == 0.0)).all()


def test_prompts_of_weakening_are_new_to_every_hrv() -> None:
    found = draw_captions("single", 64, 192)
    assert len(found) == 64 and not {sample.caption for sample in found} & set(captions(0, 192))


def test_the_rarer_reading_is_intended_and_strengths_are_chosen_on_other_seeds(hrvs: Given, store: Store) -> None:
    sizes = replace(QUICK, two_meaning_ways=("adjusted_causally",), two_meaning_prompts=4)
    part = Misinterpretation(hrvs)
    for piece in missing([part], store, sizes):
        assert piece.what["way"] == "unsteered" and piece.what["first"] == 1_000
        store.keep(piece, [["color", True]] * 3 + [["scene", True]], 1.0)
    # All right at strength 1.5, which loses the shape; half right at 1, which keeps it.
    found = {0.25: ["color", True], 0.5: ["color", True], 1.0: ["scene", True], 1.5: ["scene", False]}
    for piece in missing([part], store, sizes):
        if piece.what["way"] == "unsteered":
            assert piece.what["first"] == 50_000
            store.keep(piece, [["color", True]] * 4 + [["neither", True]] * 4, 1.0)
        else:
            assert piece.what["first"] == 1_000 and piece.what["intended"] == SCENE
            store.keep(piece, [found[piece.what["strength"]]] * 2 + [["both", piece.what["strength"] < 1.5]] * 2, 1.0)
    reported = missing([part], store, sizes)
    assert {piece.what["strength"] for piece in reported} == {1.0} and set(STRENGTHS) == set(found)
    for piece in reported:
        store.keep(piece, [["scene", True]] * 6 + [["color", False]] * 2, 1.0)
    numbers = part.section(store, sizes).numbers
    assert numbers["misinterpretation.unsteered.wrong"][::3] == (1.0, 32)
    assert numbers["misinterpretation.adjusted_causally.wrong"][::3] == (0.25, 32)
    assert numbers["misinterpretation.adjusted_causally.kept"].value == 0.75


def test_each_word_gets_the_way_that_is_best_for_it_on_the_tuning_seeds(hrvs: Given, store: Store) -> None:
    ways = ("adjusted_causally", "strengthened", "weakened", "intended_heads_alone")
    sizes = replace(QUICK, two_meaning_ways=ways, two_meaning_prompts=6)
    part = Misinterpretation(hrvs)
    best = {"forest": ("strengthened", 0.5), "ocean": ("weakened", 16.0), "desert": ("adjusted_causally", 1.0)}
    asked: list[dict[str, Any]] = []
    while pieces := missing([part], store, sizes):
        for piece in pieces:
            what, asked = piece.what, [*asked, piece.what]
            right = best[what["word"]] == (what["way"], what["strength"])
            store.keep(piece, [["scene" if right else "color", True]] * what["seeds"], 1.0)
    reported = {(what["way"], what["strength"], what["word"]) for what in asked if what["first"] == 50_000}
    assert {(*way, word) for word, way in best.items()} <= reported
    section = part.section(store, sizes)
    assert section.numbers["misinterpretation.causally_by_word.wrong"][::3] == (0.0, 48)
    # One setting is best for a third of the words, and of each way that one is taken.
    assert section.numbers["misinterpretation.weakened.wrong"].value == pytest.approx(2 / 3)
    assert "forest strengthened (0.5), ocean weakened (16 heads), desert adjusted causally (1)" in section.text


def test_what_shows_the_meaning_that_is_not_intended_is_counted_word_by_word(hrvs: Given, store: Store) -> None:
    sizes = replace(QUICK, two_meaning_ways=("intended_heads_alone",), two_meaning_prompts=6, two_meaning_seeds=4)
    part = Misinterpretation(hrvs)
    found = {"unsteered": "both", "intended_heads_alone": "color", "read_nowhere": "neither"}
    while pieces := missing([part], store, sizes):
        for piece in pieces:
            read = "scene" if (piece.what["way"], piece.what["word"]) == ("read_nowhere", "desert") else None
            store.keep(piece, [[read or found[piece.what["way"]], True]] * piece.what["seeds"], 1.0)
    section = part.section(store, sizes)
    # Both readings are as rare, so the color is intended.
    for way, word, share in (
        ("unsteered", "desert", 1.0), ("intended_heads_alone", "desert", 0.0), ("read_nowhere", "desert", 1.0),
        ("read_nowhere", "ocean", 0.0),
    ):  # fmt: skip
        assert section.numbers[f"misinterpretation.{way}.{word}.unintended"][::3] == (share, 8)
    assert "misinterpretation.read_nowhere.wrong" not in section.numbers


@pytest.mark.parametrize("count", [3, 4, 12])
def test_prompts_with_two_meanings_are_spread_over_words(count: int) -> None:
    prompts = draw_prompts(count)
    assert len(set(prompts)) == count
    words = {prompt.word for prompt in prompts}
    assert words == set(TWO_MEANINGS) & set(CONCEPTS[SCENE])


def test_edits_are_counted_by_source(hrvs: Given, store: Store) -> None:
    sizes = replace(QUICK, sources=1, edit_ways=tuple(WAYS))
    part = Editing(hrvs)
    (drawn,) = missing([part], store, sizes)
    case = {"named": {"Shape": "star"}, "targets": {"Shape": "circle"}, "seed": 1, "shown": {"Shape": "star"}}
    store.keep(drawn, [case, {**case, "seed": 2}, {**case, "seed": 3}], 1.0)
    edits = missing([part], store, sizes)
    assert len(edits) == len(WAYS) * 2
    for piece in edits:
        hit = piece.what["way"] != "asking_anew" or piece.what["case"]["seed"] == 1
        store.keep(piece, {"Shape": {"changed": True, "kept": hit, "distance": 0.1}}, 1.0)
    numbers = part.section(store, sizes).numbers
    assert numbers["editing.half.p2p.both"][::3] == (1.0, 2)
    assert numbers["editing.half.asking_anew.kept"].value == 0.5
    assert numbers["editing.half.asking_anew.over_p2p"].value == -0.5


def test_hard_prompts_and_others_of_kinds_that_are_not_hopeless_get_other_noise(hrvs: Given, store: Store) -> None:
    sizes = replace(QUICK, subject_tried=3, subject_tried_seeds=2, subject_prompts=2, subject_ways=("excited",))
    part = TwoSubjects(hrvs)
    right = {KINDS[1]: (0, 2, 1), KINDS[2]: (0, 0, 0), KINDS[4]: (2, 2, 2), KINDS[7]: (2, 1, 2)}
    for piece in missing([part], store, sizes):
        assert piece.what["seed"] == 1_000 and piece.what["way"] == PLAIN and piece.what["seeds"] == 2
        count = right.get(piece.what["kind"], (2, 2, 2))[piece.what["number"]]
        store.keep(piece, [[True, number < count] for number in range(2)], 1.0)
    # By turns, and not more than two: a third of each is left out.
    hard, others = [(KINDS[1], 0), (KINDS[7], 1)], [(KINDS[7], 0), (KINDS[1], 1)]
    assert part.prompts(store, sizes) == {"hard": hard, "others": others}
    for piece in missing([part], store, sizes):
        asked = piece.what["kind"], piece.what["number"]
        assert piece.what["seed"] == 50_000 and asked in hard + others
        plain = piece.what["way"] == PLAIN
        store.keep(piece, [[True, plain == (asked in others)], [False, False]], 1.0)
    section = part.section(store, sizes)
    for name, plain, excited in (("hard", 0.0, 0.5), ("others", 0.5, 0.0)):
        assert section.numbers[f"two_subjects.{name}.plain.right"][::3] == (plain, 4)
        assert section.numbers[f"two_subjects.{name}.excited.right"].value == excited
        assert section.numbers[f"two_subjects.{name}.excited.over_plain"].value == excited - plain
    assert "`two_subjects.hard.plain.right` <= 0.7: 0.00 (0.00 to" in section.text


def test_the_hardest_kind_is_reported_where_none_is_in_the_range(hrvs: Given, store: Store) -> None:
    part, sizes = TwoSubjects(hrvs), replace(QUICK, subject_tried=12)
    for piece in missing([part], store, sizes):
        wrong = piece.what["kind"] == KINDS[3] or (piece.what["kind"], piece.what["number"]) == (KINDS[6], 1)
        store.keep(piece, [[True, not wrong]], 1.0)
    assert part.prompts(store, sizes) == {"hard": [(KINDS[6], 1)], "others": [(KINDS[6], 0)]}


@pytest.mark.parametrize("kind", KINDS)
def test_more_prompts_of_two_subjects_begin_with_the_same(kind: str) -> None:
    assert draw_subjects(kind, FULL.subject_tried, REPORTING)[:20] == draw_subjects(kind, 20, REPORTING)


def test_looks_are_counted_against_both_prompts(hrvs: Given, store: Store) -> None:
    part = ReadByConcept(hrvs)
    pairs = reported_pairs("Shape", QUICK.read_pairs)
    for piece in missing([part], store, QUICK):
        taken = piece.what["kind"] == "causal"
        store.keep(piece, [{**pair.own, **({"Shape": pair.other["Shape"]} if taken else {})} for pair in pairs], 1.0)
    numbers = part.section(store, QUICK).numbers
    for kind, taken in (("causal", 1.0), ("random", 0.0)):
        found = {
            measure: numbers[f"read_by_concept.Shape.{kind}.8.{measure}"].value for measure in ("taken", "kept", "both")
        }
        assert found == {"taken": taken, "kept": 1.0, "both": taken}
