"""From relevance to factor: causal HRVs are clamped, all others as they were, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hrv_pack.hrv.controls.control import adjust, strengthen
from hrv_pack.hrv.editing.edit import with_concept
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.hrv.progress import WHOLE
from hrv_pack.hrv.relevance.arithmetic import clamp as clamped_hrv
from hrv_pack.hrv.relevance.arithmetic import mean, pick
from hrv_pack.hrv.relevance.factors import CAUSAL_CLAMP, FORMS, holds_causal_relevances, relevance_factors
from hrv_pack.hrv.relevance.vectors import HRV

LAYOUT = HeadLayout((AttentionLayer("input", 1, 0, 2), AttentionLayer("middle", 0, 0, 3)))
VALUES = np.array([[0.0, 0.5, 1.5, 3.0, 28.0], [3.0, 0.25, 0.0, 9.0, 4.0]], dtype=np.float32)
CLAMPED = np.minimum(VALUES, np.float32(CAUSAL_CLAMP))


def hrv(estimator: str | None = "causal") -> HRV:
    return HRV(VALUES, ("Color", "Plants"), LAYOUT, provenance={} if estimator is None else {"estimator": estimator})


@pytest.mark.parametrize("estimator", [None, "paper", "all words", "values"])
def test_factors_of_all_other_hrvs_are_their_elements_to_the_bit(estimator: str | None) -> None:
    made = hrv(estimator)
    assert relevance_factors(made, "color").tobytes() == VALUES[0].tobytes()
    assert strengthen(made, "Color", [1], 1.0, WHOLE, None).factors.tobytes() == VALUES[0].tobytes()
    difference = (2.0 * VALUES[0] - 1.0 * VALUES[1]).astype(np.float32)
    assert adjust(made, "Color", "Plants", [1], 1.0, WHOLE, None).factors.tobytes() == difference.tobytes()
    edited = with_concept(made, "Color", [1]).factors
    assert edited is not None and edited.tobytes() == VALUES[0].tobytes()


def test_factors_of_causal_hrvs_are_clamped() -> None:
    made = hrv()
    assert relevance_factors(made, "Color").tolist() == CLAMPED[0].tolist()
    assert strengthen(made, "Color", [1], 1.0, WHOLE, None).factors.tolist() == CLAMPED[0].tolist()
    found = adjust(made, "Color", "Plants", [1], 1.0, WHOLE, None).factors
    assert found.tolist() == (2 * CLAMPED[0] - CLAMPED[1]).tolist()
    edited = with_concept(made, "Color", [1]).factors
    assert edited is not None and edited.tolist() == CLAMPED[0].tolist()


def test_who_asks_for_a_form_or_a_clamp_gets_it() -> None:
    for made in (hrv(), hrv("paper")):
        assert relevance_factors(made, "Color", form="as published").tolist() == VALUES[0].tolist()
        assert relevance_factors(made, "Color", form="clamped").tolist() == CLAMPED[0].tolist()
        assert relevance_factors(made, "Color", 9.0).max() == 9.0
        assert relevance_factors(made, "Color", 1.0, "clamped").max() == 1.0
        assert relevance_factors(made, "Color", 9.0, "clamped").max() == CAUSAL_CLAMP


def test_causal_hrvs_stay_causal_when_picked_and_averaged_but_not_when_clamped() -> None:
    causal = hrv().provenance
    assert holds_causal_relevances(causal)
    assert holds_causal_relevances(pick(hrv(), ["Plants"]).provenance)
    assert holds_causal_relevances(mean([hrv(), hrv()]).provenance)
    assert not holds_causal_relevances(mean([hrv(), hrv("paper")]).provenance)
    assert not holds_causal_relevances(clamped_hrv(hrv(), 9.0).provenance)


@pytest.mark.parametrize("strange", ["causal", ("causal",), ({"operation": 1},), 3])
def test_strange_provenances_are_no_error(strange: Any) -> None:
    assert holds_causal_relevances({"estimator": "causal", "processing": strange})
    assert not holds_causal_relevances({"estimator": "paper", "sources": strange})


def test_there_are_no_other_forms() -> None:
    with pytest.raises(HRVError, match=f"can't be made 'soft': choose one of {', '.join(FORMS)}"):
        relevance_factors(hrv(), "Color", form="soft")
