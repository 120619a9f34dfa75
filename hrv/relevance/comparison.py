"""How alike Head Relevance Vectors are: cosines, and a picture of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..drawing.matrix import matrix_picture
from ..errors import HRVError
from ..heads.layout import spell_difference
from .vectors import HRV

Cosines = npt.NDArray[np.float64]

# More rows or columns than this cannot be read in one picture.
MOST_CONCEPTS = 128


def cosines(rows: HRV, columns: HRV) -> Cosines:
    """Cosines between the vectors of two HRVs: float64 [N rows, N columns], from 0 to 1 as no element is negative.

    A vector of zeros has the cosine 0 with all. Raises HRVError unless both have the same head layout.
    """
    if rows.layout != columns.layout:
        difference = spell_difference(rows.layout, columns.layout, "first", "second")
        raise HRVError(f"Only HRVs of the same kind of model can be compared. {difference}")
    units = []
    for hrv in (rows, columns):
        values = hrv.values.astype(np.float64)
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        units.append(np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0))
    return np.minimum(units[0] @ units[1].T, 1.0)


def cosine_picture(
    matrix: Cosines, row_labels: Sequence[str], column_labels: Sequence[str], *, title: str | None = None
) -> Image.Image:
    """Draw cosines [rows, columns] from 0 to 1 as a labelled matrix and return an RGB picture.

    Cells large enough for it carry their number. All pictures share one color scale, so that they can be compared.
    Raises HRVError for more than 128 rows or columns, and for labels that do not match.
    """
    if matrix.shape != (len(row_labels), len(column_labels)) or 0 in matrix.shape:
        raise HRVError(
            f"{len(row_labels)} row and {len(column_labels)} column labels do not fit {list(matrix.shape)} cosines."
        )
    most = max(matrix.shape)
    if most > MOST_CONCEPTS:
        raise HRVError(
            f"{most} concepts don't fit into one picture; at most {MOST_CONCEPTS} do. Choose which to compare."
        )
    return matrix_picture(matrix, row_labels, column_labels, "cosine", title=title)
