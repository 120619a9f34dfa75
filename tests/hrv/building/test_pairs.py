"""Pairs of prompts: which belong together, and that draws depend on nothing but what they are for."""

from __future__ import annotations

import pytest
from hrv_pack.hrv.building.pairs import Example, Pair, Placed, draw_pairs, examples_of, pair_seed, words_without_partner
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary

VOCABULARY = parse_vocabulary("Color: red, blue, dark green, light grey\nSize: tiny, huge")
FRAMES = ("a {word} car", "{word}")


def tokens(word: str) -> int:
    return len(word.split())


def places(example: Example, before: str) -> Placed:
    """Of a tokenizer that makes a token of everything between spaces, whatever stands beside it."""
    first, length = len(before.split()), len(example.prompt.split())
    return Placed((length,), tuple(range(length)), tuple(range(first, first + tokens(example.word))))


def drawn(concept: str = "Color", number: int = 8, seed: int = 0, frames: tuple[str, ...] = FRAMES) -> list[Pair]:
    return draw_pairs(concept, examples_of(VOCABULARY, frames)[concept], places, number, seed)


def test_pairs_differ_in_one_word_of_equally_many_tokens() -> None:
    for pair in drawn(number=50):
        a, b = pair.prompts
        assert pair.words[0] != pair.words[1] and tokens(pair.words[0]) == tokens(pair.words[1])
        assert a.replace(pair.words[0], "*") == b.replace(pair.words[1], "*") and pair.concept == "Color"


def test_all_different_pairs_come_before_any_comes_again() -> None:
    """Two pairs of words with one token and two with two, each way round in two sentences."""
    pairs = drawn(number=16)
    assert len(set(pairs[:8])) == 8 and pairs[8:] == pairs[:8]


def test_the_order_depends_on_seed_and_concept_alone() -> None:
    assert drawn() == drawn() != drawn(seed=1)
    assert drawn(number=3) == drawn(number=8)[:3]
    alone = draw_pairs("color", examples_of(VOCABULARY, FRAMES)["Color"], places, 8, 0)
    assert [pair.prompts for pair in alone] == [pair.prompts for pair in drawn()]


def test_seeds_are_told_apart_by_all_that_they_are_for() -> None:
    seeds = {
        pair_seed(concept, seed, number) for concept in ("Color", "Size") for seed in (0, 1) for number in (0, 1, 2, 3)
    }
    assert len(seeds) == 16 and all(0 <= seed < 2**63 for seed in seeds)
    assert pair_seed("Color", 0, 0) == pair_seed("color", 0, 0)


def test_sentences_of_an_experiment_pair_up_where_only_the_word_differs() -> None:
    examples = [Example("a red car", "red"), Example("a blue car", "blue"), Example("a blue bowl", "blue")]
    pairs = draw_pairs("Color", examples, places, 2, 0)
    assert {pair.prompts for pair in pairs} == {("a red car", "a blue car"), ("a blue car", "a red car")}


def test_words_inside_other_words_do_not_count() -> None:
    examples = [Example("a red credenza", "red"), Example("a blue credenza", "blue")]
    (pair,) = draw_pairs("Color", examples, places, 1, 0)
    assert set(pair.prompts) == {"a red credenza", "a blue credenza"}


def refusal(*examples: Example) -> str:
    with pytest.raises(HRVError) as refused:
        draw_pairs("Color", examples, places, 1, 0)
    return str(refused.value)


def test_a_concept_without_pairs_names_its_words_and_what_to_add() -> None:
    said = refusal(Example("red", "red"), Example("dark blue", "dark blue"))
    assert said.startswith("The concept Color has no pair of prompts: two words with equally many tokens in the same")
    assert said.endswith("red (1), dark blue (2). Add another word of 1 or 2 tokens.")


def test_words_in_different_sentences_are_told_to_stand_in_one() -> None:
    said = refusal(Example("a red car", "red"), Example("a blue bowl", "blue"))
    assert said.endswith(
        "Its words stand in different sentences: red, blue. Write them into one, such as 'a <red | blue> car'."
    )


def test_words_inside_other_words_are_told_to_stand_apart() -> None:
    said = refusal(Example("a reddish car", "red"), Example("a blueish car", "blue"))
    assert said.endswith("Its words stand inside other words: write red, blue with a space or a sign on both sides.")


def test_a_word_has_the_tokens_that_it_has_in_its_sentence() -> None:
    """Behind other words "whale" is one token, as "red" is; where a text begins it is two, as "zebra" is."""

    def by_sentence(example: Example, before: str) -> Placed:
        own = 2 if example.word == "zebra" or (example.word == "whale" and not before) else 1
        first = len(before.split())
        return Placed((first + own,), tuple(range(first + own)), tuple(range(first, first + own)))

    words = parse_vocabulary("Animals: whale, zebra, red")
    examples = examples_of(words, ("{word}", "a {word}"))["Animals"]
    pairs = {frozenset(pair.prompts) for pair in draw_pairs("Animals", examples, by_sentence, 20, 0)}
    assert pairs == {frozenset({"whale", "zebra"}), frozenset({"a whale", "a red"})}


def test_words_that_several_text_encoders_split_differently_are_no_pair() -> None:
    def by_word(example: Example, before: str) -> Placed:
        return Placed((3, len(example.word)), (0, 1, 2), (1,))

    examples = [Example(f"a {word} car", word) for word in ("red", "blue", "green", "tan")]
    assert {pair.words for pair in draw_pairs("Color", examples, by_word, 9, 0)} == {("red", "tan"), ("tan", "red")}
    with pytest.raises(HRVError, match=r"are: red \(1\), blue \(1\), but the text encoders split none of them alike"):
        draw_pairs("Color", examples[:2], by_word, 1, 0)


def test_words_without_a_partner_are_told() -> None:
    vocabulary = parse_vocabulary("Color: red, blue, dark green, dark and stormy grey")
    assert words_without_partner(examples_of(vocabulary, FRAMES)["Color"], places) == [
        "dark green",
        "dark and stormy grey",
    ]
    assert not words_without_partner(examples_of(VOCABULARY, FRAMES)["Size"], places)


def test_many_examples_take_no_time() -> None:
    """Ten thousand words make a hundred million pairs, none of which is listed."""
    examples = [Example(f"a w{number} car", f"w{number}") for number in range(10_000)]
    assert len(set(draw_pairs("Color", examples, places, 100, 0))) == 100
