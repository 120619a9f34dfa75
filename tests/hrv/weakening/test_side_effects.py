"""The matrix of what each concept's heads do to every concept, on scores made up so that the answer is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.scoring.experiments import Case, parse_experiment
from hrv_pack.hrv.weakening.pictures import side_effects_picture
from hrv_pack.hrv.weakening.side_effects import SideEffects, cases_by_prompt
from hrv_pack.hrv.weakening.tables import side_effects_json, side_effects_table

EXPERIMENT = parse_experiment(
    "[Color]\na large <red | dark blue> circle\na <blue> star, by night\n[Shape]\na <circle | star> in red\n"
    "[Size]\na <large | tiny> red, blue thing\n[Scene]\na star by <night>"
)


def said(concepts: list[str], most: int = 0) -> dict[str, dict[str, str]]:
    found = cases_by_prompt(EXPERIMENT, concepts, most)
    assert all(case.prompt == those[0].prompt for those in found for case in those)
    return {those[0].prompt: {case.concept: case.target for case in those} for those in found}


def test_a_prompt_is_scored_by_every_concept_that_it_names() -> None:
    assert said(["Color", "Shape", "Size", "Scene"]) == {
        "a large red circle": {"Color": "red", "Shape": "circle", "Size": "large"},
        "a large dark blue circle": {"Color": "dark blue", "Shape": "circle", "Size": "large"},
        "a blue star, by night": {"Color": "blue", "Shape": "star", "Scene": "night"},
        "a circle in red": {"Shape": "circle", "Color": "red"},
        "a star in red": {"Shape": "star", "Color": "red"},
        # Two colors: which one a picture is scored by would be a guess.
        "a large red, blue thing": {"Size": "large"},
        "a tiny red, blue thing": {"Size": "tiny"},
        "a star by night": {"Scene": "night", "Shape": "star"},
    }


def test_only_concepts_asked_for_are_scored_and_few_prompts_of_each() -> None:
    assert said(["color"], most=1) == {"a large red circle": {"Color": "red"}}
    assert said(["Scene", "Color"], most=1)["a star by night"] == {"Scene": "night"}
    with pytest.raises(HRVError, match="Weather"):
        cases_by_prompt(EXPERIMENT, ["Weather"])


def test_a_target_within_a_longer_one_is_not_named() -> None:
    experiment = parse_experiment("[A]\nan <ice | ice cream | cream tea> x\n[B]\nan ice cream <cone>\nice and <tea>")
    found = {those[0].prompt: {case.target for case in those} for those in cases_by_prompt(experiment, ["A", "B"])}
    assert found["an ice cream cone"] == {"ice cream", "cone"}
    assert found["ice and tea"] == {"ice", "tea"}


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
        replace(found).loss("Shape", "Color")


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
