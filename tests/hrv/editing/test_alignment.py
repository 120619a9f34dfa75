"""Which words became which, and which share of a source's column a target's column gets."""

from __future__ import annotations

import numpy as np
import pytest
from hrv_pack.hrv.editing.alignment import align, read_pairs
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.prompts.tokens import PromptWord, TokenMap
from hypothesis import given
from hypothesis import strategies as st


def prompt(text: str, length: int = 12, pieces: dict[str, int] | None = None, chunk: int | None = None) -> TokenMap:
    """Words behind a start token, some of several tokens; ``chunk`` positions begin and end with special tokens."""
    words, position = [], 1
    for word in text.split():
        places = []
        for _ in range((pieces or {}).get(word, 1)):
            if chunk and position % chunk == chunk - 1:
                position += 2
            places.append(position)
            position += 1
        words.append(PromptWord(word, tuple(places)))
    return TokenMap(text, tuple(words), length)


def lines(source: str, target: str, pairs: str = "") -> list[str]:
    return align(prompt(source), prompt(target), read_pairs(pairs)).describe().splitlines()


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("a red car", "a blue car", ["a = a", "red -> blue", "car = car"]),
        ("a red car", "A Red Car", ["a = A", "red = Red", "car = Car"]),
        ("a car", "a shiny new car", ["a = a", "+ shiny new", "car = car"]),
        ("a shiny car", "a car", ["a = a", "car = car", "- shiny"]),
        ("a red car", "a dark blue car", ["a = a", "red -> dark blue (1 to 2 tokens)", "car = car"]),
        ("a red old car", "a blue new car", ["a = a", "red -> blue", "old -> new", "car = car"]),
        ("a cat and a dog", "a dog", ["a = a", "dog = dog", "- a cat and"]),
    ],
)
def test_words_are_compared_in_order(source: str, target: str, expected: list[str]) -> None:
    assert lines(source, target) == expected


def test_pairs_of_ones_own_come_first() -> None:
    source, target = "a red cube and a ball", "a ball and a blue cube"
    assert lines(source, target, "red cube -> blue cube, ball -> ball") == [
        "a = a",
        "ball = ball",
        "and = and",
        "a = a",
        "red cube -> blue cube",
    ]
    assert lines("a red car", "a blue car", "red ->\n-> blue") == ["a = a", "+ blue", "car = car", "- red"]
    assert lines("red car", "blue boat", "red -> blue") == ["red -> blue", "car -> boat"]


def test_changed_words_are_swapped_or_new_ones() -> None:
    found = align(prompt("a red car"), prompt("a blue shiny boat here car"), [("car", "boat")])
    assert found.describe().splitlines() == ["a = a", "red -> blue shiny (1 to 2 tokens)", "car -> boat", "+ here car"]


@pytest.mark.parametrize(
    ("source", "target", "pairs", "message"),
    [
        ("", "a car", "", "The source prompt has no words"),
        ("a car", "", "", "The target prompt has no words"),
        ("red car", "blue boat", "", r"'red car'.*'blue boat'.*no word in common.*'old -> new'"),
        ("red car, fast", "two boats, slow", "", "no word in common"),
        ("a car", "a boat", "cat -> boat", 'does not contain "cat". Its words are: "a", "car"'),
        ("a car", "a boat", "cat -> boat", "The pair 'cat -> boat' does not fit the source: The prompt"),
        ("a car", "a boat", "car -> ship", 'does not fit the target: The prompt does not contain "ship"'),
        ("a car a", "a boat", "a -> a", "source prompt contains 'a' 2 times, the target prompt 'a' 1 times"),
        ("a red car", "a red boat", "red car -> red boat, car -> boat", "'car' of the source prompt is in two"),
        ("a car", "a boat", "car", "'car' does not say which words belong together"),
        ("a car", "a boat", "->", "'->' does not say"),
    ],
)
def test_what_does_not_belong_together_is_refused(source: str, target: str, pairs: str, message: str) -> None:
    with pytest.raises(HRVError, match=message):
        lines(source, target, pairs)


def test_every_word_of_the_edit_has_its_column() -> None:
    mapper = align(prompt("a red car"), prompt("a blue car")).mapper(12, 12)
    np.testing.assert_array_equal(mapper, np.eye(12))


def test_a_word_of_more_tokens_shares_its_weight() -> None:
    mapper = align(prompt("a red car"), prompt("a turquoise car", pieces={"turquoise": 3})).mapper(12, 12)
    np.testing.assert_allclose(mapper[2, 2:5], 1 / 3)
    assert mapper[3, 5] == 1 and mapper[4:10, 6:12].trace() == 6
    # The last paddings of the source have no counterpart of their own.
    np.testing.assert_array_equal(mapper[9:, 11], 1)


def test_new_words_have_no_column_and_words_that_are_gone_none_to_go_to() -> None:
    mapper = align(prompt("a red old car"), prompt("a car here"), [("old", "")]).mapper(12, 12)
    assert not mapper[[2, 3]].any() and not mapper[:, 3].any()
    assert mapper[1, 1] == mapper[4, 2] == 1


def test_chunks_go_to_chunks() -> None:
    many = "a b c d e f"
    longer = align(prompt("a b c", 6, chunk=6), prompt(many, 12, chunk=6)).mapper(6, 12)
    # Starts at 0 and 6, ends at 5 and 9: positions 1 to 4 and 7 to 8 are words.
    np.testing.assert_array_equal(longer[0, [0, 6]], 0.5)
    assert longer[4, 5] == 1
    np.testing.assert_allclose(longer[5, 9:], 1 / 3)
    same = align(prompt(many, 12, chunk=6), prompt(many, 12, chunk=6)).mapper(12, 12)
    np.testing.assert_array_equal(same, np.eye(12))


WORDS = st.lists(st.sampled_from(["a", "red", "blue", "old", "car", "boat", "skyscraper"]), min_size=1, max_size=12)


@given(WORDS, WORDS)
def test_no_attention_appears_from_nowhere(source: list[str], target: list[str]) -> None:
    """A source column's shares sum to one, or to none if its words are gone; words are each in one pair."""
    pieces = {"skyscraper": 3, "boat": 2}
    one, other = (prompt(" ".join(words), 40, pieces) for words in (["a", *source], ["a", *target]))
    found = align(one, other)
    assert sorted(word.positions for pair in found.pairs for word in pair.target) == [w.positions for w in other.words]
    assert sorted(word.positions for pair in found.pairs for word in pair.source) == [w.positions for w in one.words]
    mapper = found.mapper(44, 40)
    gone = {place for pair in found.pairs if not pair.target for word in pair.source for place in word.positions}
    expected = [0.0 if place in gone else 1.0 for place in range(44)]
    np.testing.assert_allclose(mapper.sum(1), expected, rtol=1e-6)
    new = {place for pair in found.pairs if not pair.source for word in pair.target for place in word.positions}
    assert set(np.flatnonzero(mapper.sum(0) == 0)) == new
