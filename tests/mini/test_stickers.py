"""The stickers' style: a rim around every thing and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hrv_pack.mini.captions import draw_samples
from hrv_pack.mini.stickers import RIM, SHADOW, draw_stickers
from hrv_pack.mini.world import NOTHING, Pictures, draw, thing_distance


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return draw_samples(96, np.random.default_rng(0))[1]


def test_things_and_far_scenes_stay_as_they_are(pictures: Pictures) -> None:
    plain, stickers, distance = draw(pictures), draw_stickers(pictures), thing_distance(pictures)
    for untouched in (distance <= -0.5, distance >= RIM + SHADOW + 0.5):
        assert untouched.any()
        assert torch.equal(stickers.movedim(1, -1)[untouched], plain.movedim(1, -1)[untouched])


def test_the_rim_is_white_and_the_scene_darker_around_it(pictures: Pictures) -> None:
    plain, stickers, distance = draw(pictures), draw_stickers(pictures), thing_distance(pictures)
    rim = (distance >= 0.5) & (distance <= RIM - 0.5)
    shadow = (distance >= RIM + 0.5) & (distance < RIM + SHADOW)
    assert rim.any(dim=(1, 2)).all() and shadow.any()
    torch.testing.assert_close(stickers.movedim(1, -1)[rim], torch.ones(int(rim.sum()), 3))
    assert (stickers.movedim(1, -1)[shadow] < plain.movedim(1, -1)[shadow]).all()


def test_without_things_there_is_no_rim(pictures: Pictures) -> None:
    empty = Pictures(**{**vars(pictures), "kind": torch.full_like(pictures.kind, NOTHING)})
    assert torch.isinf(thing_distance(empty)).all()
    assert torch.equal(draw_stickers(empty), draw(empty))


def test_drawing_in_parts_draws_the_same(pictures: Pictures) -> None:
    parts = [draw_stickers(pictures[slice(start, start + 7)]) for start in range(0, len(pictures), 7)]
    assert torch.equal(torch.cat(parts), draw_stickers(pictures))
