"""Errors of ours stand on their nodes, and stay errors."""

from __future__ import annotations

import numpy as np
import pytest
from comfy_execution.utils import CurrentNodeContext
from hrv_pack.host.page import texts
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.families import FAMILIES
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.nodes.arithmetic import PickConcepts

LAYOUT = FAMILIES[0].layout()
SMALL = HRV.from_counts(np.ones((1, LAYOUT.head_count), dtype=np.int64), ("Color",), LAYOUT)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is shown, and on which node."""
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(texts, "_send", lambda text, node_id: found.append((node_id, text)))
    return found


def test_an_error_is_shown_on_the_node_that_raises_it(sent: list[tuple[str, str]]) -> None:
    with CurrentNodeContext("prompt", "4:7", None), pytest.raises(HRVError) as caught:
        PickConcepts.execute(hrv=SMALL, concepts="Colour")
    assert sent == [("4:7", str(caught.value))]


def test_a_node_without_an_error_shows_nothing(sent: list[tuple[str, str]]) -> None:
    with CurrentNodeContext("prompt", "7", None):
        assert PickConcepts.execute(hrv=SMALL, concepts="color").args[0].concepts == ("Color",)
    assert sent == []


def test_without_the_executor_an_error_is_only_raised(sent: list[tuple[str, str]]) -> None:
    with pytest.raises(HRVError):
        PickConcepts.execute(SMALL, "Colour")
    assert sent == []
