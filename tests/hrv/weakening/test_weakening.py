"""Plans and findings of ordered weakening, on scores made up so that the answer is known."""

from __future__ import annotations

import csv
import io
import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.hrv.relevance.orders import (
    LEAST_RELEVANT_FIRST,
    MOST_RELEVANT_FIRST,
    RANDOM,
    head_order,
    heads_of_percent,
)
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.hrv.scoring.experiments import Case
from hrv_pack.hrv.weakening.pictures import contact_sheet, curves_picture, factors_picture, summary_picture
from hrv_pack.hrv.weakening.plan import (
    UNIFORM,
    UNWEAKENED,
    Cell,
    Line,
    Plan,
    Weakening,
    cell_factors,
    concepts_to_analyse,
    parse_head_counts,
    sheet_lines,
    usual_head_counts,
)
from hrv_pack.hrv.weakening.state import WeakeningState
from hrv_pack.hrv.weakening.statistics import NO, WEAKLY, YES, Finding, curve, finding, mean_scores, overall
from hrv_pack.hrv.weakening.tables import findings_table, results_json, scores_csv

HEADS = 16
LAYOUT = HeadLayout((AttentionLayer("input", 1, 0, 8), AttentionLayer("output", 1, 0, 8)))
PLAN = Plan((0, 2, 4, 8, 12, 16), random_orders=3, uniform=True)
CASES = tuple(Case("Color", f"a {word} car", word) for word in ("red", "blue", "green", "white"))


def hrv(seed: int = 0) -> HRV:
    values = np.random.default_rng(seed).permutation(HEADS).astype(np.float32)[None]
    return HRV(np.concatenate([values, values[:, ::-1]]), ("Color", "Shape"), LAYOUT)


def simulated(
    plan: Plan = PLAN, ranked_by: HRV | None = None, seeds: tuple[int, ...] = (0, 1, 2), noise: float = 0.05
) -> Weakening:
    """Scores of a world in which the four heads that rank first for Color, and no others, carry it."""
    true, used = hrv(), ranked_by or hrv()
    needed = head_order(true, "Color", MOST_RELEVANT_FIRST)[:4]
    random = np.random.default_rng(0)
    scores = np.empty((len(plan.cells), len(CASES), len(seeds)))
    for row, cell in enumerate(plan.cells):
        factors = cell_factors(cell, used, "Color", plan.order_seed)
        scores[row] = (np.clip(factors[needed], 0, 1)).mean() + noise * random.standard_normal(scores[row].shape)
    return Weakening("Color", CASES, seeds, plan, scores, {"scorer": "made up"})


def test_the_published_numbers_of_heads() -> None:
    assert usual_head_counts(128) == (0, *range(1, 122, 10), 128)
    assert usual_head_counts(1300) == (0, *range(11, 1212, 100), 1300)


@pytest.mark.parametrize("heads", [1, 2, 3, 40, 64, 96, 128, 700, 1300])
def test_numbers_of_heads_of_any_layout_make_a_plan(heads: int) -> None:
    counts = usual_head_counts(heads)
    assert counts[0] == 0 and counts[-1] == heads and len(counts) <= 16
    Plan(counts)


@pytest.mark.parametrize(
    ("text", "counts"),
    [("", usual_head_counts(128)), ("11", (0, 11, 128)), ("50%, 1,1", (0, 1, 64, 128)), ("0, 11, 128", (0, 11, 128))],
)
def test_numbers_of_heads_as_text(text: str, counts: tuple[int, ...]) -> None:
    assert parse_head_counts(text, 128) == counts


@pytest.mark.parametrize("text", ["-1", "129", "101%", "x", "1.5", "nan%", "inf%", "1;2", ",", "%"])
def test_numbers_of_heads_that_there_are_not(text: str) -> None:
    with pytest.raises(HRVError, match=r"cannot be weakened|can be weakened|isn't a number of heads"):
        parse_head_counts(text, 128)


@pytest.mark.parametrize("text", ["0", "128", "0, 100%", "0.1%"])
def test_numbers_of_heads_between_none_and_all_are_needed(text: str) -> None:
    with pytest.raises(HRVError, match="no number between 0 and 128"):
        parse_head_counts(text, 128)


@pytest.mark.parametrize(("percent", "heads"), [(0, 0), (100, 128), (50, 64), (1, 1)])
def test_shares_of_heads(percent: float, heads: int) -> None:
    assert heads_of_percent(percent, 128) == heads


@pytest.mark.parametrize(
    ("counts", "orders", "factors"),
    [
        ((0,), 1, (-2.0,)),
        ((1, 16), 1, (-2.0,)),
        ((0, 4, 4, 16), 1, (-2.0,)),
        ((0, 16), -1, (-2.0,)),
        ((0, 16), 1, ()),
        ((0, 16), 1, (float("nan"),)),
        ((0, 16), 1, (1.0, 1.0)),
    ],
)
def test_plans_that_make_no_sense(counts: tuple[int, ...], orders: int, factors: tuple[float, ...]) -> None:
    with pytest.raises(HRVError):
        Plan(counts, orders, factors)


# As Ordered Weakening by Factor has it: many means of all heads alike are the same.
SWEEP = Plan((0, 2, 4, 8, 16), 0, (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0), uniform=True)


@pytest.mark.parametrize("plan", [PLAN, Plan((0, 16)), Plan((0, 8, 16), 2, (-2.0, 0.0, 1.0, 2.0), uniform=True), SWEEP])
def test_no_two_cells_are_the_same_image(plan: Plan) -> None:
    """Unless a random order happens to begin like another one."""
    made = {cell: cell_factors(cell, hrv(), "Color", 0).tobytes() for cell in plan.cells if cell.line.order != RANDOM}
    assert len(set(made.values())) == len(made)
    assert plan.cells[0] == UNWEAKENED and len(set(plan.cells)) == len(plan.cells)


def test_every_point_of_every_line_has_its_factors() -> None:
    most = head_order(hrv(), "Color", MOST_RELEVANT_FIRST)
    orders = {
        Line(MOST_RELEVANT_FIRST): most,
        Line(LEAST_RELEVANT_FIRST): most[::-1],
        Line(RANDOM, draw=1): head_order(hrv(), "Color", RANDOM, 8),
        Line(RANDOM, draw=1, backwards=True): head_order(hrv(), "Color", RANDOM, 8)[::-1],
    }
    plan = Plan(PLAN.head_counts, 3, order_seed=7)
    for (line, order), heads in product(orders.items(), plan.head_counts):
        expected = np.ones(HEADS, dtype=np.float32)
        expected[order[:heads]] = -2
        assert np.array_equal(cell_factors(plan.cell(line, heads), hrv(), "Color", plan.order_seed), expected)


@pytest.mark.parametrize("heads", PLAN.head_counts)
def test_the_baseline_weakens_as_much_as_the_others_as_a_mean(heads: int) -> None:
    uniform, ordered = (
        cell_factors(PLAN.cell(Line(order), heads), hrv(), "Color", 0) for order in (UNIFORM, MOST_RELEVANT_FIRST)
    )
    assert uniform.min() == uniform.max() and uniform.mean() == pytest.approx(ordered.mean())


def test_an_hrv_that_knows_separates() -> None:
    found = finding(simulated())
    assert found.verdict == YES and found.p is not None and found.p < 0.05
    assert found.area.low > 0 and found.agreement > 0.8 and found.images == 12 and found.left_out == 0
    assert found.share == pytest.approx(found.area.value / (found.unweakened - found.all_weakened))
    assert "Color: yes." in found.sentence() and "12 images a point" in found.sentence()


def test_most_shuffled_hrvs_do_not() -> None:
    """A shuffled HRV is a random order, so that one in twenty may seem to separate."""
    plans = {seed: Plan(PLAN.head_counts, order_seed=100 * seed) for seed in range(1, 81)}
    verdicts = [finding(simulated(plan, ranked_by=hrv(seed))).verdict for seed, plan in plans.items()]
    assert verdicts.count(YES) <= 8 and verdicts.count(NO) >= 56


def test_an_hrv_the_wrong_way_round_does_not() -> None:
    turned = HRV(hrv().values.max() - hrv().values, ("Color", "Shape"), LAYOUT)
    found = finding(simulated(ranked_by=turned))
    assert found.verdict == NO and found.area.value < 0 and found.p is not None and found.p > 0.9


def test_a_scorer_that_sees_nothing_gives_no_and_says_why() -> None:
    result = simulated()
    blind = Weakening("Color", CASES, result.seeds, PLAN, np.full_like(result.scores, 0.5))
    assert finding(blind).verdict == NO and finding(blind).share is None
    assert "the scorer doesn't see the concept" in finding(blind).sentence()


def test_few_images_and_no_random_orders_are_never_sure() -> None:
    few = simulated(seeds=(0,), noise=0.0)
    one = Weakening("Color", CASES[:1], (0,), PLAN, few.scores[:, :1])
    assert finding(one).verdict == WEAKLY and "So few images prove nothing" in finding(one).sentence()
    alone = finding(simulated(Plan(PLAN.head_counts, 0)))
    assert alone.verdict == WEAKLY and alone.p is None and "no random order" in alone.sentence()


def test_random_orders_that_differ_by_nothing_prove_little() -> None:
    """Of scores so coarse it takes many random orders to be sure."""
    result = simulated(Plan(PLAN.head_counts, 1), noise=0.0)
    flat = result.scores.copy()
    for row, cell in enumerate(result.plan.cells):
        if cell.line.order == RANDOM:
            flat[row] = 0.5
    found = finding(Weakening("Color", CASES, result.seeds, result.plan, flat))
    assert found.area.low > 0 and found.random_areas == (0.0,)
    assert found.p == 0.5 and found.verdict == NO


def test_images_that_could_not_be_scored_are_left_out_with_their_prompt_and_seed() -> None:
    whole, result = simulated(), simulated()
    result.scores[3, 1, 2] = np.nan
    found = finding(result)
    assert (found.images, found.left_out, result.failed) == (11, 1, 1)
    assert "1 left out" in found.sentence()
    assert found.area.value == pytest.approx(finding(whole).area.value, abs=0.05)
    nothing = Weakening("Color", CASES, result.seeds, PLAN, np.full_like(result.scores, np.nan))
    with pytest.raises(HRVError, match="No image of Color could be scored"):
        finding(nothing)


def test_areas_are_those_between_the_curves() -> None:
    result, shares = simulated(), np.array(PLAN.head_counts) / HEADS
    most, least = (curve(result, [Line(order)]).mean for order in (MOST_RELEVANT_FIRST, LEAST_RELEVANT_FIRST))
    gap = least - most
    expected = float(((gap[1:] + gap[:-1]) / 2 * np.diff(shares)).sum())
    assert finding(result).area.value == pytest.approx(expected, rel=1e-9)


def test_intervals_narrow_with_more_prompts_and_hold_the_mean() -> None:
    def width(repeats: int) -> float:
        result = simulated(noise=0.3)
        scores = np.random.default_rng(1).normal(
            result.scores.mean((1, 2))[:, None, None], 0.3, (len(PLAN.cells), 4 * repeats, 3)
        )
        area = finding(Weakening("Color", CASES * repeats, (0, 1, 2), PLAN, scores)).area
        assert area.low <= area.value <= area.high
        return area.high - area.low

    assert width(16) < width(1) / 2


def test_factors_have_findings_of_their_own() -> None:
    plan = Plan((0, 4, 16), 0, (-2.0, 0.0, 1.0), uniform=True)
    result = simulated(plan, noise=0.0)
    areas = [finding(result, factor).area.value for factor in plan.factors]
    assert areas[0] == areas[1] > 0.3 and areas[2] == 0.0
    assert mean_scores(result, MOST_RELEVANT_FIRST).shape == (3, 3)
    assert np.array_equal(mean_scores(result, UNIFORM)[2], np.ones(3))


@pytest.mark.parametrize(
    ("verdicts", "together"), [("yyn", YES), ("ynn", NO), ("yn", WEAKLY), ("ywn", WEAKLY), ("w", WEAKLY), ("y", YES)]
)
def test_the_verdict_on_all_is_that_of_most(verdicts: str, together: str) -> None:
    names = {"y": YES, "w": WEAKLY, "n": NO}
    found = finding(simulated())
    assert overall([Finding(**{**vars(found), "verdict": names[letter]}) for letter in verdicts]) == together


def test_concepts_are_those_in_common_or_those_asked_for() -> None:
    assert concepts_to_analyse(hrv(), ["Animals", "shape", "COLOR"], []) == ["Shape", "Color"]
    assert concepts_to_analyse(hrv(), ["Color"], ["color"]) == ["Color"]
    with pytest.raises(HRVError, match="no concept in common"):
        concepts_to_analyse(hrv(), ["Animals"], [])
    with pytest.raises(HRVError, match="Animals"):
        concepts_to_analyse(hrv(), ["Animals"], ["Animals"])


def test_tables_hold_every_score_and_where_it_comes_from() -> None:
    result = simulated()
    result.scores[0, 0, 0] = np.nan
    rows = list(csv.DictReader(io.StringIO(scores_csv([result]))))
    assert len(rows) == result.scores.size and rows[0]["score"] == ""
    assert [float(row["score"]) for row in rows[1:]] == result.scores.ravel()[1:].tolist()
    assert {row["order"] for row in rows} >= {MOST_RELEVANT_FIRST, LEAST_RELEVANT_FIRST, RANDOM, UNIFORM}
    told = json.loads(results_json([result], [finding(result)]))
    assert told["provenance"] == [{"scorer": "made up"}] and told["findings"][0]["verdict"] == YES
    assert told["curves"][0]["heads"] == list(PLAN.head_counts) and len(told["curves"][0]["lines"]) == len(PLAN.lines)
    assert findings_table([finding(result)]).count("\n") == 3


def test_pictures_show_all_there_is() -> None:
    result = simulated()
    found = finding(result)
    curves = np.asarray(curves_picture(result, found))
    assert all((curves == color).all(axis=-1).any() for color in [(150, 45, 18), (50, 98, 169), (98, 102, 108)])
    cells = {PLAN.cell(line, heads) for line in sheet_lines(PLAN.lines) for heads in PLAN.head_counts}
    colors = {cell: np.full((8, 8, 3), number + 40, dtype=np.uint8) for number, cell in enumerate(sorted(cells))}
    sheet = np.asarray(contact_sheet(result, colors))
    assert all((sheet == pixels[0, 0]).all(axis=-1).any() for pixels in colors.values())
    assert summary_picture([found] * 9, "Nine").height > summary_picture([found], "One").height
    assert factors_picture(simulated(Plan((0, 4, 16), 0, (-2.0, 1.0), uniform=True))).width > 200


def test_a_sheet_shows_one_random_order_and_the_baseline_if_there_is_one() -> None:
    assert [line.order for line in sheet_lines(PLAN.lines)] == [
        MOST_RELEVANT_FIRST,
        LEAST_RELEVANT_FIRST,
        RANDOM,
        UNIFORM,
    ]
    assert len(sheet_lines(Plan((0, 16), 0).lines)) == 2


def test_a_state_comes_back_and_another_analysis_does_not_get_it(tmp_path: Path) -> None:
    state = WeakeningState.beginning("a" * 64, 5, 2, (2, 4, 3))
    assert np.isnan(state.scores).all()
    state.scores[:2], state.sheet[1], state.done = (0.25, np.nan), 7, 1
    state.save(tmp_path / "state")
    back = WeakeningState.beginning("a" * 64, 5, 2, (2, 4, 3)).resumed(tmp_path / "state")
    assert np.array_equal(back.scores, state.scores, equal_nan=True) and np.array_equal(back.sheet, state.sheet)
    assert back.done == 1
    for other in (
        WeakeningState.beginning("b" * 64, 5, 2, (2, 4, 3)),
        WeakeningState.beginning("a" * 64, 6, 2, (2, 4, 3)),
    ):
        with pytest.raises(HRVError, match=r"of another analysis"):
            other.resumed(tmp_path / "state")


def test_cells_of_one_plan_are_told_apart() -> None:
    assert PLAN.cell(Line(RANDOM, draw=0), 4) != PLAN.cell(Line(RANDOM, draw=0, backwards=True), 4)
    assert PLAN.cell(Line(RANDOM), 16) == PLAN.cell(Line(UNIFORM), 16) != UNWEAKENED
    assert PLAN.cell(Line(UNIFORM, 1.0), 16) == UNWEAKENED == Cell(Line("none", 1.0), 0)
