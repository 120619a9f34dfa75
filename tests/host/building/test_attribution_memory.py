"""What integrated attribution takes of memory."""

from __future__ import annotations

import math

import pytest
import torch
from hrv_pack.benchmarks.counting import count_effects
from hrv_pack.host.building.attribution import Pairs
from hrv_pack.tests.support.small_host import encoded, small_clip_sd15, small_sd15


def test_checkpointing_keeps_a_fraction_and_shapes_count_as_numbers_do() -> None:
    model, clip = small_sd15(), small_clip_sd15()
    a, b = encoded(clip, "a red cat"), encoded(clip, "a blue cat")
    noise = torch.randn(2, 4, 16, 24, generator=torch.Generator().manual_seed(0))
    pairs = Pairs(["one", "two"], a, b, torch.zeros_like(noise), noise)
    whole, checkpointed = (count_effects(model, pairs, room) for room in (math.inf, 0.0))
    assert checkpointed.kept < 0.4 * whole.kept and checkpointed.peak < whole.peak
    for counted, room in ((whole, math.inf), (checkpointed, 0.0)):
        numbers = count_effects(model, pairs, room, numbers=True)
        assert counted.kept == pytest.approx(numbers.kept, rel=0.02)
        assert counted.peak == pytest.approx(numbers.peak, rel=0.02)
        # Of the graph nothing is left.
        assert numbers.left < 0.1 * numbers.kept
