"""Layouts of model families: found by their head names, and told apart."""

from __future__ import annotations

import pytest
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.families import FAMILIES, UNetFamily, layout_of_names


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_head_names_lead_back_to_their_layout(family: UNetFamily) -> None:
    layout = family.layout()
    assert layout_of_names(layout.head_names()) == layout


def test_no_two_families_share_their_names() -> None:
    assert len({tuple(family.layout().head_names()) for family in FAMILIES}) == len(FAMILIES)


def test_sizes_are_the_known_ones() -> None:
    assert {family.name: (len(family.layout().layers), family.layout().head_count) for family in FAMILIES} == {
        "SD 1.x": (16, 128),
        "SD 2.x": (16, 5 * 5 + 5 * 10 + 6 * 20),
        "SDXL": (70, 1300),
    }


def test_unknown_names_are_told_with_what_is_known() -> None:
    names = FAMILIES[0].layout().head_names()
    with pytest.raises(HRVError, match=r"127 head names \(48 'down', 8 'mid', 71 'up'\).*SDXL with 1300 heads"):
        layout_of_names(names[:-1])
    with pytest.raises(HRVError, match="128 head names"):
        layout_of_names([names[1], names[0], *names[2:]])
    with pytest.raises(HRVError, match="0 head names"):
        layout_of_names([])
    with pytest.raises(HRVError, match="in many runs"):
        layout_of_names([f"{'x' * 50}{number}" for number in range(500)])
