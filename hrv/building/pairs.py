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
from ..errors import HRVError
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


@dataclass(frozen=True)
class Pair:
    """Two prompts A and B with equally many tokens that differ in one word, each prompt's own."""

    concept: str
    prompts: tuple[str, str]
    words: tuple[str, str]


def examples_of(vocabulary: Vocabulary, frames: Sequence[str]) -> dict[str, list[Example]]:
    """Every word of every concept in every sentence frame (:mod:`..prompts.frames`), by concept."""
    return {
        concept: [Example(fill(frame, word), word) for frame in frames for word in words]
        for concept, words in vocabulary
    }


def draw_pairs(
    concept: str, examples: Sequence[Example], tokens: Callable[[str], int], number: int, seed: int
) -> list[Pair]:
    """``number`` pairs of a concept's examples, in an order that depends on the seed and the concept's name alone.

    Two examples make a pair if their prompts are equal but for the words, and these have equally many tokens;
    ``tokens`` counts those of a word. All different pairs come before any comes again. Raises HRVError, which names
    the words, if there is no pair.
    """
    groups = _groups(examples, tokens)
    sizes = [len(group) * (len(group) - 1) for group in groups]
    total = sum(sizes)
    if not total:
        raise HRVError(_no_pairs(concept, examples, tokens))
    ends = list(accumulate(sizes))
    return [_pair(concept, groups, ends, index) for index in _order(concept, total, number, seed)]


def _groups(examples: Sequence[Example], tokens: Callable[[str], int]) -> list[list[Example]]:
    """Examples with the same sentence and equally many tokens in their words, each word once."""
    groups: dict[tuple[str, str, int], dict[str, Example]] = {}
    for example in examples:
        for before, after in _frames(example):
            groups.setdefault((before, after, tokens(example.word)), {}).setdefault(fold(example.word), example)
    return [list(group.values()) for group in groups.values() if len(group) > 1]


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


def _no_pairs(concept: str, examples: Sequence[Example], tokens: Callable[[str], int]) -> str:
    """What to say of a concept without pairs."""
    numbers = {example.word: tokens(example.word) for example in examples}
    listed = ", ".join(f"{word[:30]} ({count})" for word, count in list(numbers.items())[:_LISTED_WORDS])
    more = ", ..." if len(numbers) > _LISTED_WORDS else ""
    wanted = " or ".join(str(count) for count in sorted(set(numbers.values()))[:3])
    return (
        f"The concept {concept} has no pair of prompts: two words with equally many tokens in the same sentence. Its "
        f"words and their tokens are: {listed}{more}. Add another word of {wanted} token{'' if wanted == '1' else 's'}."
    )
