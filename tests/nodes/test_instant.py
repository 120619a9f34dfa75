"""Instant HRV as the host runs it, from the text of a vocabulary to heads in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hrv_pack.host.building.value_contrast import background_of, instant_hrv
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.prompts.frames import DEFAULT_FRAMES, parse_frames
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
from hrv_pack.nodes.concepts import Concepts
from hrv_pack.nodes.instant import InstantHRV

ONE = "Mood: cheerful, gloomy, dreamy"
FIVE = "A: a, b\nB: c, d\nC: e, f\nD: g, h\nE: i, j"


def instant(model: Any, clip: Any, concepts: str, **inputs: Any) -> HRV:
    (vocabulary,) = Concepts.execute(concepts).result
    (hrv,) = InstantHRV.execute(model, clip, vocabulary, **inputs).result
    return hrv


def test_its_inputs_have_the_defaults_of_the_way_it_works() -> None:
    inputs = {given.id: given for given in InstantHRV.GET_SCHEMA().inputs}
    assert parse_frames(inputs["frames"].default) == DEFAULT_FRAMES
    assert inputs["background"].options == ["when needed", "always", "never"]


def test_a_single_concept_is_read_against_the_paper(model: Any, clip: Any) -> None:
    found = instant(model, clip, ONE, frames="\n {word} \n\n")
    vocabulary = parse_vocabulary(ONE)
    expected = instant_hrv(model, clip, vocabulary, ("{word}",), background_of(vocabulary))
    assert found.same_as(expected) and found.concepts == ("Mood",)
    assert len(parse_vocabulary(found.provenance["background"])) == 34
    np.testing.assert_allclose(found.values.sum(), found.layout.head_count, rtol=1e-5)


def test_many_concepts_are_compared_among_themselves_by_default(model: Any, clip: Any) -> None:
    plain = instant(model, clip, FIVE)
    assert plain.provenance["background"] == "" and plain.provenance["frames"] == DEFAULT_FRAMES
    assert plain.same_as(instant(model, clip, FIVE, background="never"))
    assert not plain.same_as(instant(model, clip, FIVE, background="always", frames="{word}"))


@pytest.mark.parametrize(
    ("concepts", "inputs", "sentence"),
    [
        (ONE, {"background": "never"}, "Mood is the only concept"),
        ("Mood: cheerful", {"frames": "{word}"}, "The concept Mood has only the word 'cheerful'"),
        (FIVE, {"frames": "a photo"}, "Line 1 of the sentence frames, 'a photo', has no {word}"),
    ],
)
def test_bad_inputs_are_sentences(model: Any, clip: Any, concepts: str, inputs: dict[str, str], sentence: str) -> None:
    with pytest.raises(HRVError) as caught:
        instant(model, clip, concepts, **inputs)
    assert sentence in str(caught.value)
