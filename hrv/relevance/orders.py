"""Orders of head positions for ordered weakening (arXiv 2412.02237, section 4)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..draws import hashed
from ..errors import HRVError, quoted
from .vectors import HRV

MOST_RELEVANT_FIRST = "most relevant first"
LEAST_RELEVANT_FIRST = "least relevant first"
RANDOM = "random"

ORDERS = (MOST_RELEVANT_FIRST, LEAST_RELEVANT_FIRST, RANDOM)
"""MoRHF and LeRHF of the paper, and the baseline that knows nothing of the concept."""


def head_order(hrv: HRV, concept: str, order: str, seed: int = 0) -> npt.NDArray[np.int64]:
    """All H head positions in one of :data:`ORDERS`: int64 [H].

    The least relevant first is the reverse of the most relevant first. The random order depends on the seed (from 0,
    below 2**64) and on H only. Raises HRVError for an unknown order or concept.
    """
    ranking = hrv.ranking(concept)
    if order == MOST_RELEVANT_FIRST:
        return ranking
    if order == LEAST_RELEVANT_FIRST:
        return ranking[::-1].copy()
    if order == RANDOM:
        drawn = hashed(seed, np.arange(len(ranking), dtype=np.uint64), 0x6865616473)
        return np.argsort(drawn, kind="stable").astype(np.int64)
    raise HRVError(f"There is no order of heads {quoted(order)}: choose one of {', '.join(ORDERS)}.")


def heads_of_percent(percent: float, head_count: int) -> int:
    """So many percent of H heads, rounded. Raises HRVError below 0 and above 100 percent."""
    if not 0 <= percent <= 100:
        raise HRVError(f"0 to 100 percent of the heads can be weakened, not {percent:g}.")
    return round(percent * head_count / 100)


WEAKEN_FACTOR = -2.0
"""The published factor of ordered weakening."""
