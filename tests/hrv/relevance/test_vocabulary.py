"""Vocabularies: both text forms, what they refuse and with which line, and the shipped one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.relevance.vocabulary import (
    Vocabulary,
    find_concept,
    parse_paper_csv,
    parse_vocabulary,
    require_contrast,
)
from hypothesis import given
from hypothesis import strategies as st
from pack_import import PACK_ROOT

PUBLISHED_WORDS = PACK_ROOT.parent / "shared" / "data" / "published" / "concept_words.csv"
SHIPPED = PACK_ROOT / "hrv_presets" / "vocabularies" / "paper-34-concepts.txt"

COLORS = ("Color", ("red", "dark green"))
FRUITS = ("Fruits and Vegetables", ("orange", "lime"))


def test_one_concept_a_line() -> None:
    vocabulary = parse_vocabulary("Color: red, dark green\nFruits and Vegetables: orange, lime\n")
    assert vocabulary == Vocabulary((COLORS, FRUITS))
    assert list(vocabulary) == [COLORS, FRUITS]
    assert len(vocabulary) == 2
    assert vocabulary.names == ("Color", "Fruits and Vegetables")
    assert find_concept("  fruits  AND vegetables ", vocabulary.names, "vocabulary") == 1


def test_comments_space_tabs_and_windows_line_ends_are_tolerated() -> None:
    text = (
        "\ufeff# colors\r\n\r\n\tColor :\tred ,  dark   green, # more later\r\n  \r\nFruits and  Vegetables:orange,lime"
    )
    assert parse_vocabulary(text) == Vocabulary((COLORS, FRUITS))


def test_a_word_may_stand_for_two_concepts() -> None:
    vocabulary = parse_vocabulary("Color: orange, rose\nPlants: rose\nFruit: orange")
    assert vocabulary.concepts[1] == ("Plants", ("rose",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "vocabulary is empty"),
        ("# only\n\n", "vocabulary is empty"),
        ("Color: red\nShape circle", "Line 2: there is no colon in 'Shape circle'"),
        ("Color: red\n\nShape:", "Line 3: the concept Shape has no words"),
        ("Shape: ,, ,", "Line 1: the concept Shape has no words"),
        ("Color: red\n: round", "Line 2: a concept has no name"),
        ("Color: red\nShape: round\n color : blue", "Line 3: the concept color is there twice"),
        ("Color: red, blue, Red", "Line 1: the word Red is there twice in Color"),
        ("Color: red, Shape: round", "Line 1: the word 'Shape: round' is empty or has a character"),
        ("Co\x00lor: red", "Line 1: the concept"),
        ("Color: r\ud800d", "Line 1: the word"),
    ],
)
def test_mistakes_are_told_with_their_line(text: str, message: str) -> None:
    with pytest.raises(HRVError, match=message):
        parse_vocabulary(text)


@pytest.mark.parametrize(
    "concepts",
    [
        (),
        (("", ("red",)),),
        (("Color", ()),),
        (("Color", ("",)),),
        (("Color", ("red", "RED ")),),
        (("Color", ("red, blue",)),),
        (("Color: bright", ("red",)),),
        (("Color", ("red",)), ("COLOR", ("blue",))),
        (("# Color", ("red",)),),
    ],
)
def test_a_vocabulary_built_by_hand_obeys_the_same_rules(
    concepts: tuple[tuple[str, tuple[str, ...]], ...],
) -> None:
    with pytest.raises(HRVError):
        Vocabulary(concepts)


LABELS = st.text(st.characters(exclude_characters=":#,", exclude_categories=["C", "Z"]), min_size=1, max_size=8)
CONCEPTS = st.dictionaries(
    LABELS.map(str.casefold),
    st.lists(LABELS, min_size=1, max_size=4, unique_by=str.casefold).map(tuple),
    min_size=1,
    max_size=4,
)


@given(CONCEPTS)
def test_text_form_gives_the_vocabulary_back(concepts: dict[str, tuple[str, ...]]) -> None:
    # Folding can still merge names that casefold() kept apart only by its own repetition.
    names = {name.casefold(): name for name in concepts}.values()
    vocabulary = Vocabulary(tuple((name, concepts[name]) for name in names))
    assert parse_vocabulary(vocabulary.to_text()) == vocabulary


@pytest.mark.parametrize("parse", [parse_vocabulary, parse_paper_csv])
@given(text=st.text(st.sampled_from("aB:#,1. \n\r\t\x00\ufeff\ud800é")) | st.text())
def test_any_text_is_a_vocabulary_or_an_error_for_people(parse: Callable[[str], Vocabulary], text: str) -> None:
    try:
        vocabulary = parse(text)
    except HRVError:
        return
    assert parse_vocabulary(vocabulary.to_text()) == vocabulary


def test_unknown_concept_names_the_closest() -> None:
    with pytest.raises(HRVError, match=r"'colour' in this vocabulary\. Did you mean Color\? It has: Color, Fruits"):
        find_concept("colour", Vocabulary((FRUITS, COLORS)).names, "vocabulary")


def test_contrast_needs_two_concepts() -> None:
    require_contrast(Vocabulary((COLORS, FRUITS)))
    with pytest.raises(HRVError, match="at least two concepts, but there is only Color"):
        require_contrast(Vocabulary((COLORS,)))


def test_paper_layout() -> None:
    text = "\ufeffColor\r\n\r\n1. Red\r\n2. Dark green\r\n\r\nSize\r\n\r\n10. Huge\r\n"
    assert parse_paper_csv(text) == Vocabulary((("Color", ("Red", "Dark green")), ("Size", ("Huge",))))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("\n1. Red\nColor", r"Line 2: '1\. Red' comes before"),
        ("Color\nSize\n1. Huge", "Line 1: the concept Color has no words"),
        ("Color\n1. Red\n2. red", "Line 1: the word red is there twice"),
        ("Color\n1. ", "Line 1: the word '' is empty"),
    ],
)
def test_mistakes_in_the_paper_layout(text: str, message: str) -> None:
    with pytest.raises(HRVError, match=message):
        parse_paper_csv(text)


def test_shipped_vocabulary_has_the_papers_concepts() -> None:
    shipped = parse_vocabulary(SHIPPED.read_text(encoding="utf-8"))
    assert [len(words) for _, words in shipped] == [10] * 34
    require_contrast(shipped)
    if PUBLISHED_WORDS.exists():
        published = parse_paper_csv(PUBLISHED_WORDS.read_text(encoding="utf-8"))
        assert [len(words) for _, words in published] == [10] * 34
        assert shipped.names == published.names
        # The words are this pack's own choice.
        assert all(own != other for (_, own), (_, other) in zip(shipped, published, strict=True))
