"""Texts of 100,000 characters and HRVs of 10,000 concepts take time in proportion: under two seconds each."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hrv_pack.hrv.attend_and_excite.settings import parse_thresholds
from hrv_pack.hrv.attend_and_excite.subjects import parse_subjects
from hrv_pack.hrv.editing.alignment import align, read_pairs
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.families import FAMILIES
from hrv_pack.hrv.heads.sets import parse_heads
from hrv_pack.hrv.prompts.frames import parse_frames
from hrv_pack.hrv.prompts.tokens import PromptWord, TokenMap, find_phrases
from hrv_pack.hrv.relevance.arithmetic import clamp, mean, merge, pick
from hrv_pack.hrv.relevance.evidence import Votes
from hrv_pack.hrv.relevance.heat_map import heat_map
from hrv_pack.hrv.relevance.ranking import top_heads
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.hrv.relevance.vocabulary import parse_paper_csv, parse_vocabulary
from hrv_pack.hrv.scoring.experiments import parse_experiment
from hrv_pack.hrv.weakening.plan import parse_head_counts
from hrv_pack.tests.support.fuzzing import assert_for_people

LETTERS = 100_000
SD1, _, SDXL = (family.layout() for family in FAMILIES)


def quick(work: Callable[[], Any]) -> None:
    """It ends soon, whether it gives something or refuses."""
    started = time.process_time()
    try:
        work()
    except HRVError as error:
        assert_for_people(error)
    assert time.process_time() - started < 2.0


PARSERS: dict[str, Callable[[str], Any]] = {
    "experiment": parse_experiment,
    "prompts of an experiment": lambda text: parse_experiment(f"[C]\n<x> {text}"),
    "vocabulary": parse_vocabulary,
    "words": lambda text: parse_vocabulary(f"Color: {text}"),
    "word list": parse_paper_csv,
    "heads": partial(parse_heads, SDXL),
    "frames": parse_frames,
    "subjects": parse_subjects,
    "thresholds": parse_thresholds,
    "pairs": read_pairs,
    "head counts": lambda text: parse_head_counts(text, 128),
}
REPEATED = [
    "a", " ", "\n", "\t", ",", ":", "#", "<", "{", "[", "{a|", "{a|a} ", "{a|b} ", "<a|b>", "[C]\n", "<a>\n", "a: b\n",
    "1. a\n", "mid ", "mid:0,", "all !all ", "down1-", "-", "!", "0.5:0.5,", "a->b,", "->", "25%,", "9", "a {word}\n",
    "a\\,", "\ud800", "\0",
]  # fmt: skip


@pytest.mark.parametrize("parse", PARSERS.values(), ids=PARSERS.keys())
@pytest.mark.parametrize("piece", REPEATED)
def test_a_text_that_repeats_is_read_or_refused_soon(parse: Callable[[str], Any], piece: str) -> None:
    quick(lambda: parse((piece * (LETTERS // len(piece) + 1))[:LETTERS]))


def test_thirty_groups_of_the_same_choice_are_one_prompt() -> None:
    experiment = parse_experiment("[C]\n<x> " + "{a|a} " * 30)
    assert [case.prompt for case in experiment.cases] == ["x " + " ".join("a" * 30)]


def test_white_space_between_the_signs_of_heads_takes_no_time() -> None:
    quick(lambda: parse_heads(SD1, "mid" + " " * 40_000 + "up"))


@pytest.mark.parametrize(
    "lines",
    [
        "".join(f"[C{number}]\na <r{number}> b\n" for number in range(5000)),
        "[C]\n" + "".join(f"<{n}>\n" for n in range(9999)),
    ],
    ids=["concepts", "prompts"],
)
def test_many_concepts_and_prompts_of_an_experiment_are_found_and_joined(lines: str) -> None:
    def work() -> None:
        experiment = parse_experiment(lines)
        assert (experiment + experiment).cases == experiment.cases
        for concept in experiment.concepts[:100]:
            assert experiment.of(concept)

    quick(work)


def prompt(words: list[str]) -> TokenMap:
    return TokenMap(
        " ".join(words), tuple(PromptWord(word, (at + 1,)) for at, word in enumerate(words)), len(words) + 2
    )


PROMPTS = {
    "one word": ["a"] * 25_000,
    "words of their own": [f"w{number}" for number in range(16_000)],
    "words in words": ["aa", "a"] * 12_000,
}


@pytest.mark.parametrize("words", PROMPTS.values(), ids=PROMPTS.keys())
def test_phrases_of_a_long_prompt_are_found_soon(words: list[str]) -> None:
    tokens = prompt(words)
    for phrase in ("a", "aa a", "a " * 50_000, "a" * LETTERS, "aa a " * 90, "missing", " ".join(words)):
        quick(partial(tokens.find, phrase))
    quick(lambda: find_phrases(tokens, words))
    quick(lambda: find_phrases(tokens, ["a"] * 50_000))


def test_a_phrase_is_found_where_whole_words_spell_it() -> None:
    tokens = prompt(["aa", "a", "aa", "aaa", "b", "aa", "a", "b"])
    assert tokens.find("aa a") == (1, 2, 6, 7)
    assert tokens.find("aaa") == (1, 2, 4, 6, 7)
    assert tokens.find("aaab") == (4, 5, 6, 7, 8)
    assert tokens.find("aa aaa b") == (3, 4, 5)
    assert not tokens.occurrences("a aa a")
    with pytest.raises(HRVError, match=r'A phrase can have at most 200 words; "a a .*" has 201'):
        tokens.find("a " * 201)


def test_prompts_of_an_edit_have_a_limit_that_is_said() -> None:
    long = prompt(["a"] * 501)
    with pytest.raises(HRVError, match="The target prompt has 501 words and signs; an edit can compare at most 500"):
        align(prompt(["a"]), long)
    quick(lambda: align(prompt(["a", "b"] * 250), prompt(["b", "a", "a"] * 166)))


def crowd(kind: str, seed: int = 0) -> HRV:
    values = np.random.default_rng(seed).integers(0, 9, (10_000, SD1.head_count))
    names = tuple(f"{kind} {number}" for number in range(10_000))
    return HRV.from_evidence(Votes(values), names, SD1, {"seed": seed, "prompts": ["a"]})


def test_ten_thousand_concepts_are_merged_averaged_picked_clamped_and_ranked_soon() -> None:
    one, other, again = crowd("Concept"), crowd("Other"), crowd("Concept", seed=1)
    turned = pick(again, again.concepts[::-1])
    works: list[Callable[[], Any]] = [
        lambda: merge([one, other]),
        lambda: merge([one, again]),
        lambda: mean([one, turned]),
        lambda: pick(one, one.concepts[::-1]),
        lambda: clamp(one, 2.0),
        lambda: top_heads(one, count=10),
        lambda: one.index("Concept"),
        lambda: one.index("x" * LETTERS),
        lambda: heat_map(one),
    ]
    for work in works:
        quick(work)


def test_a_mean_is_that_of_all_rows_at_once_bit_for_bit() -> None:
    hrvs = [
        HRV(np.random.default_rng(seed).random((3, 128), dtype=np.float32), ("A", "B", "C"), SD1) for seed in range(5)
    ]
    expected = np.stack([each.values for each in hrvs]).astype(np.float64).mean(axis=0).astype(np.float32)
    assert mean(hrvs).values.tobytes() == expected.tobytes()
