"""How alike Head Relevance Vectors are: cosines, shared top heads, rank agreement, and a picture of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..drawing.matrix import matrix_picture
from ..errors import HRVError
from ..heads.layout import spell_difference
from .agreement import rank_agreement
from .ranking import top_count
from .vectors import HRV

Likeness = npt.NDArray[np.float64]
"""A number for each concept of one HRV and each of another: [N rows, N columns]."""

# More rows or columns than this cannot be read in one picture.
MOST_CONCEPTS = 128


def cosines(rows: HRV, columns: HRV) -> Likeness:
    """Cosines between the vectors of two HRVs: float64 [N rows, N columns], from 0 to 1 as no element is negative.

    A vector of zeros has the cosine 0 with all. Raises HRVError unless both have the same head layout.
    """
    _require_same_heads(rows, columns)
    units = []
    for hrv in (rows, columns):
        values = hrv.values.astype(np.float64)
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        units.append(np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0))
    return np.minimum(units[0] @ units[1].T, 1.0)


def shared_relevance(rows: HRV, columns: HRV) -> Likeness:
    """The share of each row's relevance that lies in the top heads of each column: float64 [N rows, N columns].

    Top heads are the :func:`~.ranking.top_count` first of a ranking. A row of zeros has the share 0. Raises HRVError
    unless both have the same head layout.
    """
    _require_same_heads(rows, columns)
    values = rows.values.astype(np.float64)
    sums = values.sum(axis=1, keepdims=True)
    shares = np.divide(values, sums, out=np.zeros_like(values), where=sums > 0)
    number = top_count(columns.layout.head_count)
    tops = np.stack([columns.ranking(concept)[:number] for concept in columns.concepts])
    return np.stack([shares[:, top].sum(axis=1) for top in tops], axis=1)


def rank_agreements(rows: HRV, columns: HRV) -> Likeness:
    """Spearman's rank correlation between the vectors of two HRVs: float64 [N rows, N columns], from -1 to 1.

    Raises HRVError unless both have the same head layout.
    """
    _require_same_heads(rows, columns)
    every = columns.values.astype(np.float64)
    repeated = (np.broadcast_to(row.astype(np.float64), every.shape) for row in rows.values)
    return np.stack([rank_agreement(row, every) for row in repeated])


COSINE, SHARED, RANKS = "cosine", "shared relevance", "rank agreement"
MEASURES: dict[str, tuple[Callable[[HRV, HRV], Likeness], tuple[float, float]]] = {
    COSINE: (cosines, (0.0, 1.0)),
    SHARED: (shared_relevance, (0.0, 1.0)),
    RANKS: (rank_agreements, (-1.0, 1.0)),
}
"""Ways to compare concepts by name: what computes them, and the lowest and highest value."""


def comparison_picture(
    matrix: Likeness,
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    measure: str = COSINE,
    *,
    title: str | None = None,
) -> Image.Image:
    """Draw one of :data:`MEASURES` [rows, columns] as a labelled matrix and return an RGB picture.

    Cells large enough for it carry their number. All pictures of a measure share one color scale, so that they can be
    compared. Raises HRVError for more than 128 rows or columns, and for labels that do not match.
    """
    if matrix.shape != (len(row_labels), len(column_labels)) or 0 in matrix.shape:
        raise HRVError(
            f"{len(row_labels)} row and {len(column_labels)} column labels do not fit {list(matrix.shape)} numbers."
        )
    require_room(*matrix.shape)
    return matrix_picture(matrix, row_labels, column_labels, measure, title=title, scale=MEASURES[measure][1])


def require_room(*numbers: int) -> None:
    """Raise HRVError for more rows or columns than a picture has room for."""
    most = max(numbers)
    if most > MOST_CONCEPTS:
        raise HRVError(
            f"{most} concepts don't fit into one picture; at most {MOST_CONCEPTS} do. Choose which to compare."
        )


def _require_same_heads(rows: HRV, columns: HRV) -> None:
    if rows.layout != columns.layout:
        difference = spell_difference(rows.layout, columns.layout, "first", "second")
        raise HRVError(f"Only HRVs of the same kind of model can be compared. {difference}")
