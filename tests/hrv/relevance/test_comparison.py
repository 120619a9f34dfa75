"""How alike HRVs are, and the picture of it, read off the pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hrv_pack.hrv.drawing.paper import RAMP
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.hrv.relevance.comparison import (
    MEASURES,
    comparison_picture,
    cosines,
    rank_agreements,
    shared_relevance,
)
from hrv_pack.hrv.relevance.vectors import HRV

LAYOUT = HeadLayout((AttentionLayer("input", 1, 0, 2), AttentionLayer("middle", 0, 0, 2)))
NEUTRAL, DARKEST = RAMP[len(RAMP) // 2], RAMP[-1]


def hrv(*rows: list[float]) -> HRV:
    names = tuple(f"Concept {number}" for number in range(len(rows)))
    return HRV(np.array(rows, dtype=np.float32), names, LAYOUT)


def count(image: np.ndarray, color: np.ndarray) -> int:
    return int((image == color).all(axis=-1).sum())


def test_cosines_do_not_depend_on_lengths() -> None:
    one = hrv([1, 0, 0, 0], [0, 3, 4, 0], [0, 0, 0, 0])
    two = hrv([7, 0, 0, 0], [1, 1, 1, 1])
    expected = np.array([[1, 0.5], [0, 7 / 10], [0, 0]])
    np.testing.assert_allclose(cosines(one, two), expected, atol=1e-15)
    np.testing.assert_array_equal(cosines(one, two), cosines(two, one).T)


def test_shared_relevance_is_what_lies_in_the_top_heads_of_the_other() -> None:
    """Of four heads one is a top head."""
    one = hrv([1, 0, 0, 3], [0, 0, 0, 0])
    other = hrv([0, 0, 0, 5], [9, 1, 1, 1])
    np.testing.assert_allclose(shared_relevance(one, other), np.array([[0.75, 0.25], [0, 0]]))


def test_rank_agreement_is_that_of_each_pair_alone() -> None:
    one, other = hrv([1, 2, 3, 4], [4, 3, 2, 1]), hrv([1, 4, 9, 16], [1, 1, 1, 1])
    np.testing.assert_allclose(rank_agreements(one, other), np.array([[1, 0], [-1, 0]]))


def test_every_measure_stays_in_its_range_and_has_a_picture() -> None:
    values = np.random.default_rng(0).exponential(size=(5, 4)).astype(np.float32)
    made = hrv(*values.tolist())
    for name, (compute, (least, most)) in MEASURES.items():
        matrix = compute(made, made)
        assert matrix.shape == (5, 5) and least <= matrix.min() <= matrix.max() <= most + 1e-12
        assert comparison_picture(matrix, made.concepts, made.concepts, name).mode == "RGB"


def test_nothing_is_more_alike_than_itself() -> None:
    values = np.random.default_rng(0).exponential(size=(50, 4)).astype(np.float32)
    matrix = cosines(hrv(*values.tolist()), hrv(*values.tolist()))
    assert matrix.max() <= 1 and matrix.min() >= 0
    np.testing.assert_allclose(np.diag(matrix), 1, atol=1e-15)


def test_other_layouts_cannot_be_compared() -> None:
    other = HRV(np.ones((1, 3), dtype=np.float32), ("A",), HeadLayout((AttentionLayer("input", 1, 0, 3),)))
    for compute, _ in MEASURES.values():
        with pytest.raises(HRVError, match=r"4 heads in 2 .* 3 heads in 1"):
            compute(hrv([1, 1, 1, 1]), other)


def test_cells_have_the_colors_of_their_cosines_where_they_belong() -> None:
    matrix = np.zeros((40, 30))
    matrix[39, 0] = matrix[0, 29] = 1
    image = np.asarray(comparison_picture(matrix, ["row"] * 40, ["column"] * 30))
    cells = count(image, NEUTRAL)
    side = round((cells / (40 * 30 - 2)) ** 0.5)
    assert 25 <= side <= 40
    dark = np.argwhere((image == DARKEST).all(axis=-1))
    lit = np.argwhere((image == NEUTRAL).all(axis=-1))
    first, last = lit.min(axis=0), lit.max(axis=0)
    top_right = dark[dark[:, 0] < first[0] + side]
    assert len(top_right) == side * side and top_right[:, 1].min() > last[1] - side
    bottom_left = dark[(dark[:, 1] < first[1] + side) & (dark[:, 0] > first[0] + side)]
    assert len(bottom_left) == side * side


def test_large_cells_carry_their_number() -> None:
    def neutral_in_a_cell(side: int) -> int:
        image = np.asarray(comparison_picture(np.zeros((side, side)), ["row"] * side, ["column"] * side))
        return count(image, NEUTRAL) // side**2

    plain = neutral_in_a_cell(60)
    assert plain == round(plain**0.5) ** 2
    assert 55**2 // 2 < neutral_in_a_cell(20) < 55**2 - 100


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 40), (34, 34), (128, 128)])
def test_pictures_are_neither_tiny_nor_gigantic(rows: int, columns: int) -> None:
    labels = ["A concept with a name that is far longer than any that fits beside the cells of a matrix"] * 128
    image = comparison_picture(np.full((rows, columns), 0.5), labels[:rows], labels[:columns], title="Cosines")
    assert image.mode == "RGB"
    assert 300 <= image.width <= 2200 and 300 <= image.height <= 2300


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(HRVError, match="129 concepts don't fit"):
        comparison_picture(np.zeros((2, 129)), ["row"] * 2, ["column"] * 129)
    with pytest.raises(HRVError, match="2 row and 3 column labels"):
        comparison_picture(np.zeros((3, 2)), ["row"] * 2, ["column"] * 3)
