"""The demo counts what its images show: by drawn images, whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from demo_run import ROWS, Asked, Counts, count, labels, what_is_asked
from hrv_pack.mini.captions import draw_samples
from hrv_pack.mini.scorer import describe
from hrv_pack.mini.world import draw

ASKED = Asked("the forest circle", "forest", "Scene", "Color", "a star")


@pytest.mark.parametrize("row", ROWS)
def test_counts_are_those_of_the_truth(row: str) -> None:
    _, pictures = draw_samples(96, np.random.default_rng(7), "color or scene")
    images = (draw(pictures).permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    truth = describe(pictures)
    shape = "star" if row == "shape" else "circle"
    read = [one.scene == "forest" and all(thing.color != "forest" for thing in one.shapes) for one in truth]
    clean = [[thing.shape for thing in one.shapes] == [shape] for one in truth]
    assert 0 < sum(read) < len(truth) and 0 < sum(clean) < len(truth)
    enlarged = [np.repeat(np.repeat(image, 4, 0), 4, 1) for image in images]
    assert count(enlarged, ASKED, row) == Counts(sum(read), sum(clean), len(truth))


def test_every_row_says_what_was_done() -> None:
    assert list(labels(ASKED)) == list(ROWS)


def test_what_is_asked_is_read_off_the_graph() -> None:
    prompt: dict[str, Any] = {
        "1": {"class_type": "HRV_TextEncode", "inputs": {"text": "the ocean cross"}},
        "2": {"class_type": "HRV_TextEncode", "inputs": {"text": "a square"}},
        "3": {
            "class_type": "HRV_ConceptAdjust",
            "inputs": {"words": "ocean", "desired": "Color", "undesired": "Scene", "conditioning": ["1", 0]},
        },
        "4": {"class_type": "HRV_ReadByConcept", "inputs": {"conditioning": ["3", 1], "other": ["2", 0]}},
    }
    asked = what_is_asked(prompt)
    assert asked == Asked("the ocean cross", "ocean", "Color", "Scene", "a square")
    assert [asked.shape_of(row) for row in ("adjusted", "shape")] == ["cross", "square"]
