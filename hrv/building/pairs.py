"""Pairs of prompts that differ in one word of a concept: what causal relevance is measured with."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from ..draws import hashed
from ..errors import HRVError, quoted
from ..prompts.frames import fill
from ..relevance.vocabulary import Vocabulary, fold

MOST_PAIRS = 10_000
"""Pairs of one concept at most."""

# So many candidates are shuffled; of more, which take longer to list, some are drawn.
_SHUFFLED = 100_000
_LISTED_WORDS = 6


class Example(NamedTuple):
    """A prompt that shows a concept by one of its words."""

    prompt: str
    word: str


class Placed(NamedTuple):
    """Where the tokens of a prompt stand, and which of them are those of one word.

    ``lengths`` are the numbers of tokens that each text encoder makes of the prompt, ``content`` the positions of all
    its words and ``own`` those of the word, empty where it shares its tokens with others.
    """

    lengths: tuple[int, ...]
    content: tuple[int, ...]
    own: tuple[int, ...]


Places = Callable[[Example, str], Placed]
"""Tells where the word of an example stands that has this text in front of it."""


@dataclass(frozen=True)
class Pair:
    """Two prompts A and B that differ in one word, each prompt's own, and whose tokens stand in the same places."""

    concept: str
    prompts: tuple[str, str]
    words: tuple[str, str]


def examples_of(vocabulary: Vocabulary, frames: Sequence[str]) -> dict[str, list[Example]]:
    """Every word of every concept in every sentence frame (:mod:`..prompts.frames`), by concept."""
    return {
        concept: [Example(fill(frame, word), word) for frame in frames for word in words]
        for concept, words in vocabulary
    }


def draw_pairs(concept: str, examples: Sequence[Example], places: Places, number: int, seed: int) -> list[Pair]:
    """``number`` pairs of a concept's examples, in an order that depends on the seed and the concept's name alone.

    Two examples make a pair if their prompts are equal but for the words, and ``places`` are the same in both: how
    many tokens a word has depends on what stands in front of it. All different pairs come before any comes again.
    Raises HRVError, which names the words, if there is no pair.
    """
    groups = _groups(examples, places)
    sizes = [len(group) * (len(group) - 1) for group in groups]
    total = sum(sizes)
    if not total:
        raise HRVError(_no_pairs(concept, examples, places))
    ends = list(accumulate(sizes))
    return [_pair(concept, groups, ends, index) for index in _order(concept, total, number, seed)]


def words_without_partner(examples: Sequence[Example], places: Places) -> list[str]:
    """The words of a concept, in order, that no other word makes a pair with (:func:`draw_pairs`)."""
    paired = {fold(example.word) for group in _groups(examples, places) for example in group}
    return list({fold(one.word): one.word for one in examples if fold(one.word) not in paired}.values())


def _groups(examples: Sequence[Example], places: Places) -> list[list[Example]]:
    """Examples with the same sentence and the same places of tokens, each word once."""
    sentences = _sentences(examples)
    groups: dict[tuple[str, str, Placed], dict[str, Example]] = {}
    # In the order of the examples, which says what the number of a pair means.
    for example in examples:
        for before, after in _frames(example):
            if len(sentences[before, after]) > 1:
                group = groups.setdefault((before, after, places(example, before)), {})
                group.setdefault(fold(example.word), example)
    return [list(group.values()) for group in groups.values() if len(group) > 1]


def _sentences(examples: Sequence[Example]) -> dict[tuple[str, str], dict[str, Example]]:
    """By what stands before and after the word, one example for each word."""
    found: dict[tuple[str, str], dict[str, Example]] = {}
    for example in examples:
        for frame in _frames(example):
            found.setdefault(frame, {}).setdefault(fold(example.word), example)
    return found


def _frames(example: Example) -> Iterator[tuple[str, str]]:
    """What stands before and after the word of an example, at each of its places in the prompt."""
    for match in re.finditer(rf"(?<!\w){re.escape(example.word)}(?!\w)", example.prompt):
        yield example.prompt[: match.start()], example.prompt[match.end() :]


def pair_seed(concept: str, seed: int, number: int) -> int:
    """The seed of what is drawn for a concept's pair, below 2**63 as torch takes it."""
    return int(hashed(seed, _name_number(concept), number, 0) >> np.uint64(1))


def _name_number(concept: str) -> int:
    """A number for a concept's name, whatever its case: concepts draw alike whichever others there are."""
    return int.from_bytes(hashlib.sha256(fold(concept).encode()).digest()[:8], "little")


def _order(concept: str, total: int, number: int, seed: int) -> list[int]:
    """Which of ``total`` candidates are drawn."""
    name = _name_number(concept)
    if total > _SHUFFLED:
        drawn = hashed(seed, name, np.arange(number, dtype=np.uint64)) % np.uint64(total)
        return [int(index) for index in drawn]
    shuffled = np.argsort(hashed(seed, name, np.arange(total, dtype=np.uint64)), kind="stable")
    return [int(shuffled[index % total]) for index in range(number)]


def _pair(concept: str, groups: Sequence[Sequence[Example]], ends: Sequence[int], index: int) -> Pair:
    """The candidate of a number: a group, its first example, and another one."""
    place = bisect_right(ends, index)
    group = groups[place]
    within = index - (ends[place - 1] if place else 0)
    first, second = divmod(within, len(group) - 1)
    a, b = group[first], group[second + (second >= first)]
    return Pair(concept, (a.prompt, b.prompt), (a.word, b.word))


def _no_pairs(concept: str, examples: Sequence[Example], places: Places) -> str:
    """What to say of a concept without pairs."""
    return (
        f"The concept {concept} has no pair of prompts: two words with equally many tokens in the same sentence. "
        f"{_what_to_write(examples, places)}"
    )


def _what_to_write(examples: Sequence[Example], places: Places) -> str:
    sentences = _sentences(examples)
    words = list({fold(example.word): example.word for example in examples}.values())
    if not sentences:
        return f"Its words stand inside other words: write {_named(words)} with a space or a sign on both sides."
    (before, after), alike = max(sentences.items(), key=lambda item: len(item[1]))
    if len(alike) == 1 < len(words):
        (own,) = alike.values()
        another = next(word for word in words if fold(word) != fold(own.word))
        return (
            f"Its words stand in different sentences: {_named(words)}. Write them into one, such as "
            f"{quoted(f'{before}<{own.word} | {another}>{after}')}."
        )
    numbers = {example.word: len(places(example, before).own) for example in alike.values()}
    listed = _named([f"{word[:30]} ({count})" for word, count in numbers.items()])
    counts = sorted(set(numbers.values()))
    if len(counts) < len(numbers):
        return f"Its words and their tokens are: {listed}, but the text encoders split none of them alike. Add words."
    wanted = " or ".join(map(str, counts[:3]))
    return (
        f"Its words and their tokens are: {listed}. Add another word of {wanted} token{'' if wanted == '1' else 's'}."
    )


def _named(words: Sequence[str]) -> str:
    return ", ".join([*(word[:40] for word in words[:_LISTED_WORDS]), *(["..."] if len(words) > _LISTED_WORDS else [])])
