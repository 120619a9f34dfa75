"""What tests ask of the evidence of an HRV."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...hrv.relevance.evidence import Votes
from ...hrv.relevance.vectors import HRV


def votes(hrv: HRV) -> npt.NDArray[np.int64]:
    """The counts [N, H] of an HRV that rests on votes."""
    assert isinstance(hrv.evidence, Votes)
    return hrv.evidence.counts
