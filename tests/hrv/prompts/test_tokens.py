"""Token maps: validation, finding words and phrases, and the errors that name what is there."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.prompts.tokens import PromptWord, TokenMap, find_phrases
from hypothesis import given
from hypothesis import strategies as st


def map_of(*words: str, length: int = 77) -> TokenMap:
    """A map of words with one token each, from position 1 on."""
    placed = tuple(PromptWord(word, (position,)) for position, word in enumerate(words, start=1))
    return TokenMap(text=" ".join(words), words=placed, length=length)


VASE = map_of("a", "rose", "-", "colored", "vase", ",", "a", "red", ",", "blue", "rose")


@pytest.mark.parametrize(
    ("phrase", "positions"),
    [
        ("vase", (5,)),
        ("VASE", (5,)),
        (" vase\n", (5,)),
        ("rose", (2, 11)),
        ("rose-colored", (2, 3, 4)),
        ("Rose - Colored", (2, 3, 4)),
        ("rose- colored", (2, 3, 4)),
        ("rose-colored vase", (2, 3, 4, 5)),
        ("red, blue", (8, 9, 10)),
        ("red,blue", (8, 9, 10)),
        ("vase,", (5, 6)),
        (",", (6, 9)),
    ],
)
def test_a_phrase_is_found_at_word_boundaries_whatever_its_case_and_spacing(
    phrase: str, positions: tuple[int, ...]
) -> None:
    assert VASE.find(phrase) == positions


@pytest.mark.parametrize("phrase", ["ros", "ose", "rose colored", "red blue", "v ase", "vase a", "rose rose"])
def test_a_phrase_that_is_not_there_word_for_word_is_refused_with_the_words_that_are(phrase: str) -> None:
    with pytest.raises(HRVError) as error:
        VASE.find(phrase)
    assert f'"{phrase}"' in str(error.value)
    assert '"a", "rose", "-", "colored", "vase", ",", "red", "blue".' in str(error.value)


def test_a_boundary_in_the_prompt_does_not_matter_where_the_phrase_has_none() -> None:
    assert map_of("a", "blue", "bird").find("bluebird") == (2, 3)
    with pytest.raises(HRVError):
        map_of("a", "bluebird").find("blue bird")


@pytest.mark.parametrize(
    ("words", "phrase", "positions"),
    [
        (("the", "car", "'s", "door"), "Car's", (2, 3)),
        (("1", "9", "8", "4"), "1984", (1, 2, 3, 4)),
        (("café",), "CAFE\u0301", (1,)),
        (("οδοσ",), "ΟΔΟΣ", (1,)),
        (("straße",), "STRASSE", (1,)),
        (("i", "\u0307", "stanbul"), "İstanbul", (1, 2, 3)),
        (("红色的花", "红"), "红", (2,)),
        (("ल", "ा", "ल"), "लाल", (1, 2, 3)),
        (("a", "👩‍🚀", "❤️"), "👩‍🚀 ❤️", (2, 3)),
        (("embedding:Red_Style", "car"), "embedding:red_style", (1,)),
    ],
)
def test_words_of_every_script_are_found(words: tuple[str, ...], phrase: str, positions: tuple[int, ...]) -> None:
    assert map_of(*words).find(phrase) == positions


def test_occurrences_are_counted_from_one_and_never_overlap() -> None:
    twice = map_of("a", "a", "a", "a", "b", "a")
    assert twice.find("a a") == twice.find("a a", "all") == (1, 2, 3, 4)
    assert twice.find("a a", "first") == twice.find("a a", 1) == twice.find("a a", "1") == (1, 2)
    assert twice.find("a a", 2) == (3, 4)
    with pytest.raises(HRVError, match='"a a" only 2 times, so there is no occurrence 3'):
        twice.find("a a", 3)
    with pytest.raises(HRVError, match='"b" only once, so there is no occurrence 2'):
        twice.find("b", 2)


@pytest.mark.parametrize("occurrence", [0, -1, "0", "last", "", "1.5"])
def test_an_unknown_occurrence_is_refused(occurrence: str | int) -> None:
    with pytest.raises(HRVError, match='"all", "first" or a number from 1'):
        VASE.find("rose", occurrence)


@pytest.mark.parametrize(
    ("phrases", "occurrence", "positions"),
    [
        ([], "all", ()),
        (["vase", "rose"], "all", (2, 5, 11)),
        (["rose", "rose-colored", "ROSE"], "all", (2, 3, 4, 11)),
        (["rose", "a"], "first", (1, 2)),
        (["rose", "a"], 2, (7, 11)),
        (["*"], "all", tuple(range(1, 12))),
        ([" * ", "vase"], "first", tuple(range(1, 12))),
    ],
)
def test_phrases_give_each_position_once(phrases: list[str], occurrence: str | int, positions: tuple[int, ...]) -> None:
    assert find_phrases(VASE, phrases, occurrence) == positions


def test_all_words_of_an_empty_prompt_are_none() -> None:
    assert find_phrases(map_of(), ["*"]) == ()


def test_phrases_are_refused_as_one_phrase_is() -> None:
    with pytest.raises(HRVError, match='does not contain "tulip"'):
        find_phrases(VASE, ["rose", "tulip"])
    with pytest.raises(HRVError, match='"vase" only once, so there is no occurrence 2'):
        find_phrases(VASE, ["rose", "vase"], "2")
    with pytest.raises(HRVError, match='"all", "first" or a number from 1'):
        find_phrases(VASE, ["*"], "last")


def test_joined_maps_find_the_words_of_both() -> None:
    first = map_of("a", "red", "car")
    second = TokenMap(
        "red skyscraper", (PromptWord("red", (1,)), PromptWord("skyscraper", (2, 3), ("sky", "scraper"))), 77
    )
    both = first.joined(second, 154)
    assert (both.text, both.length) == ("a red car | red skyscraper", 231)
    assert both.words[:3] == first.words
    assert both.words[4] == PromptWord("skyscraper", (156, 157), ("sky", "scraper"))
    assert both.find("red") == (2, 155)
    assert both.find("red", 2) == (155,)
    assert first.joined(map_of(), 77).words == first.words
    with pytest.raises(HRVError, match="ascend"):
        first.joined(second, 2)


@pytest.mark.parametrize("phrase", ["", "  \n"])
def test_an_empty_phrase_is_refused(phrase: str) -> None:
    with pytest.raises(HRVError, match="There is no word"):
        VASE.find(phrase)


def test_a_prompt_without_words_says_so() -> None:
    empty = map_of()
    assert empty.content_positions == ()
    assert empty.describe() == ""
    with pytest.raises(HRVError, match="The prompt has no words"):
        empty.find("red")


def test_a_long_prompt_lists_the_closest_words_first_and_stays_short() -> None:
    crowd = map_of(*(f"word{number}" for number in range(300)), "skyscraper", "x" * 5000, length=385)
    with pytest.raises(HRVError) as error:
        crowd.find("skyscrapers" + "y" * 5000)
    message = str(error.value)
    assert "and 277 more." in message
    assert len(message) < 400
    with pytest.raises(HRVError, match='closest words are: "skyscraper", '):
        crowd.find("skyscrapers")


def test_describe_shows_every_word_with_its_places_and_its_pieces() -> None:
    prompt = TokenMap(
        text="a skyscraper embedding:dots",
        words=(
            PromptWord("a", (1,), ("a",)),
            PromptWord("skyscraper", (75, 78), ("sky", "scraper")),
            PromptWord("embedding:dots", (79, 80)),
        ),
        length=154,
    )
    assert prompt.describe() == "a: 1\nskyscraper: 75 sky, 78 scraper\nembedding:dots: 79, 80"
    assert prompt.content_positions == (1, 75, 78, 79, 80)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([PromptWord("red", ())], "no position"),
        ([PromptWord("red", (1, 1))], "ascend"),
        ([PromptWord("red", (2, 1))], "ascend"),
        ([PromptWord("red", (1,)), PromptWord("car", (1,))], "ascend"),
        ([PromptWord("red", (2,)), PromptWord("car", (1,))], "ascend"),
        ([PromptWord("red", (-1,))], "positions 0 to 76"),
        ([PromptWord("red", (77,))], "positions 0 to 76"),
        ([PromptWord("red", (1, 2), ("red",))], "1 pieces for 2 positions"),
    ],
)
def test_an_impossible_map_is_refused(words: list[PromptWord], reason: str) -> None:
    with pytest.raises(HRVError, match=reason):
        TokenMap(text="red car", words=tuple(words), length=77)


@given(
    words=st.lists(st.sampled_from(["red", "car", "a", "-", "'s", "红色", "❤️", "2"]), min_size=1, max_size=8),
    data=st.data(),
)
def test_every_run_of_words_is_found_where_it_lies(words: list[str], data: st.DataObject) -> None:
    prompt = map_of(*words)
    first = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(first + 1, len(words)))
    run = words[first:end]
    found = prompt.find(" ".join(run).upper())
    assert all(after > before for before, after in pairwise(found))
    assert set(found) <= set(prompt.content_positions)
    assert len(found) % len(run) == 0
    matches = [found[start : start + len(run)] for start in range(0, len(found), len(run))]
    assert all([words[position - 1] for position in match] == run for match in matches)
    assert prompt.find(" ".join(run), "first") == matches[0]
    assert matches[0][0] <= first + 1
