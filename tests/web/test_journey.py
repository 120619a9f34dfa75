"""From an empty canvas to a steered image with mouse and keyboard, in both renderers."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("renderer", ["classic", "nodes2"])
def test_a_graph_is_built_by_search_and_wires_and_steers_the_image(report: dict[str, Any], renderer: str) -> None:
    seen = report["journey"][renderer]
    assert (seen.get("end"), seen.get("message")) == (None, None)
    assert (seen["concept"], seen["words"], seen["wires"]) == ("Color", "red, square", 12)
    assert seen["pixels"] == 128 * 128 * 4
    # Of 255, over all channels: with strength the image is another one, without words nothing changes.
    assert seen["changed"] > 1
    assert seen["withoutWords"] == 0
