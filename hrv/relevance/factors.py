"""From relevance to factor: what a control multiplies the attention of a head by, given the head's relevance.

As published, a factor is the HRV element itself (arXiv 2412.02237, section 5). Causal relevances are not made for that:
a few heads hold most of a concept, so their elements reach 35 and all others are near 0, and factors like these break
images. Which map serves them better was measured (docs/controls.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import HRVError
from .vectors import HRV, Factors, clamped_row

CAUSAL = "causal"
"""The estimator, as a provenance names it, whose HRVs hold causal relevances."""

AUTOMATIC, AS_PUBLISHED, CLAMPED = FORMS = ("automatic", "as published", "clamped")
"""How factors follow from relevances; automatic is clamped for causal HRVs and as published for all others."""

CAUSAL_CLAMP = 4.0
"""The highest factor where they are clamped."""


def relevance_factors(hrv: HRV, concept: str, clamp: float | None = None, form: str = AUTOMATIC) -> Factors:
    """The factors [H] of a concept's heads at full strength, float32.

    ``clamp`` limits the elements before anything else (published: 9 for SDXL, none for SD 1.x); whoever asks for one
    gets it, so automatic is then as published. Raises HRVError for an unknown concept or form and a clamp that is not
    positive.
    """
    if form not in FORMS:
        raise HRVError(f"Factors can't be made {form!r}: choose one of {', '.join(FORMS)}.")
    row = clamped_row(hrv, concept, clamp)
    automatic = form == AUTOMATIC and clamp is None and holds_causal_relevances(hrv.provenance)
    return np.minimum(row, np.float32(CAUSAL_CLAMP)) if automatic or form == CLAMPED else row


def holds_causal_relevances(provenance: Mapping[str, Any]) -> bool:
    """Whether an HRV is a causal one, or the mean or merger of causal ones, and was not clamped since."""
    processing, sources = provenance.get("processing"), provenance.get("sources")
    if any(step.get("operation") == "clamp" for step in _objects(processing)):
        return False
    if parts := _objects(sources):
        return all(map(holds_causal_relevances, parts))
    return bool(provenance.get("estimator") == CAUSAL)


def _objects(value: Any) -> Sequence[Mapping[str, Any]]:
    """The objects of a list in a provenance; files of others may hold anything there."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, tuple) else []
