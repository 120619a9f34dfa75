"""The matrix of what each concept's heads do to every concept, on scores made up so that the answer is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.scoring.experiments import Case
from hrv_pack.hrv.weakening.pictures import side_effects_picture
from hrv_pack.hrv.weakening.side_effects import SideEffects
from hrv_pack.hrv.weakening.tables import side_effects_json, side_effects_table


@pytest.fixture
def found() -> SideEffects:
    """Color is lost by its own heads in three of four images; Shape by its own wholly and by Color's in one."""
    cases = [Case("Shape", prompt, "star") for prompt in "ab"] + [Case("Color", prompt, "red") for prompt in "ab"]
    scores = np.ones((3, 4, 2))
    scores[1, 2:] = [[0, 0], [0, 1]]
    scores[1, 0, 0] = 0
    scores[2, :2] = 0
    return SideEffects(("Color", "Shape"), 12, 0.0, tuple(cases), scores, {"model": "m", "cfg": float("inf")})


def test_losses_of_known_scores(found: SideEffects) -> None:
    assert found.scored == ("Color", "Shape")
    assert np.array_equal(found.losses, [[0.75, 0.25], [0.0, 1.0]])
    assert found.loss("Shape", "Shape") == (1.0, 1.0, 1.0)
    own = found.loss("Color", "Color")
    assert 0.0 <= own.low < own.value < own.high <= 1.0
    assert [found.unweakened(concept) for concept in found.scored] == [1.0, 1.0]


def test_an_image_that_failed_leaves_its_prompt_and_seed_out_of_the_column(found: SideEffects) -> None:
    found.scores[2, 3, 1] = np.nan
    assert np.allclose(found.losses, [[1.0, 0.25], [0.0, 1.0]])
    assert [found.images(concept) for concept in found.scored] == [3, 4]
    found.scores[0, 2:] = np.nan
    with pytest.raises(HRVError, match="No prompt's images could all be scored for Color"):
        found.loss("Shape", "Color")


def test_table_json_and_picture_show_the_matrix(found: SideEffects) -> None:
    lines = side_effects_table(found).splitlines()
    assert lines[0] == "| heads of | Color | Shape |" and lines[2] == "| none: score | 1.000 | 1.000 |"
    assert lines[3].startswith("| Color | 0.750 (") and lines[-1] == "| images | 4 | 4 |"
    record = json.loads(side_effects_json(found))
    assert record["weakened"] == record["scored"] == ["Color", "Shape"]
    assert [[cell["value"] for cell in row] for row in record["losses"]] == found.losses.tolist()
    assert record["heads"] == 12 and record["factor"] == 0.0 and record["provenance"] == {"model": "m", "cfg": None}
    assert np.array_equal(record["scores"], found.scores)
    pixels = np.asarray(side_effects_picture(found, "Known").convert("L"))
    assert pixels.min() < 100 and pixels.shape[0] > 100


def test_a_matrix_of_which_nothing_is_lost_is_drawn() -> None:
    same = SideEffects(("A",), 1, 0.0, (Case("A", "p", "t"),), np.ones((2, 1, 1)))
    side_effects_picture(same, "Nothing")
