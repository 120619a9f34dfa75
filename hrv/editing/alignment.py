"""Which words of one prompt become which words of another, and what that means for attention maps.

In prompt-to-prompt a target prompt gets the source prompt's cross-attention maps, column by column (arXiv 2412.02237,
appendix on image editing; arXiv 2208.01626). The mapper says which source column becomes which target column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt

from ..errors import HRVError, quoted
from ..prompts.tokens import PromptWord, TokenMap, caseless

Mapper = npt.NDArray[np.float32]

_ARROW = "->"

MOST_WORDS = 500
"""Words of a prompt at most that is compared with another: every one of them may be compared with every other."""


@dataclass(frozen=True)
class WordPair:
    """Words of the source that become words of the target; either side may have none."""

    source: tuple[PromptWord, ...]
    target: tuple[PromptWord, ...]

    @property
    def is_same(self) -> bool:
        return [caseless(word.text) for word in self.source] == [caseless(word.text) for word in self.target]

    def describe(self) -> str:
        """ "red -> dark blue", "car = car", "+ shiny" for a new word, "- old" for one that is gone."""
        old, new = (" ".join(word.text for word in words) for words in (self.source, self.target))
        if not new:
            return f"- {old}"
        if not old:
            return f"+ {new}"
        return f"{old} {'=' if self.is_same else _ARROW} {new}"


@dataclass(frozen=True)
class Alignment:
    """Two prompts and the pairs of their words, in the target's order, then what is gone; every word is in one pair."""

    source: TokenMap
    target: TokenMap
    pairs: tuple[WordPair, ...]

    @property
    def changed(self) -> tuple[int, ...]:
        """Positions of the target's words that are swapped or new, ascending."""
        return tuple(
            sorted(place for pair in self.pairs if pair.target and not pair.is_same for place in _places(pair.target))
        )

    @property
    def left(self) -> tuple[int, ...]:
        """Positions of the source's words that are swapped or gone, ascending."""
        return tuple(
            sorted(place for pair in self.pairs if pair.source and not pair.is_same for place in _places(pair.source))
        )

    def mapper(self, source_length: int, target_length: int) -> Mapper:
        """float32 [source_length, target_length]: the share of a source column's attention that a target column gets.

        The lengths are those of the two conditionings along the token axis, start, end and padding included; they may
        be longer than what the words need. The tokens of a pair go one to one if they are equally many; else all
        columns of the source's words together are shared evenly by the target's. Start tokens go to start tokens and
        the end and padding of a chunk to those of a chunk, one to one as far as there are counterparts; the last one
        of the fewer goes with all that are left. A target column of zeros has no counterpart in the source.
        """
        mapper = np.zeros((source_length, target_length), dtype=np.float32)
        for pair in self.pairs:
            _share(mapper, _places(pair.source), _places(pair.target))
        one, other = _special_tokens(self.source, source_length), _special_tokens(self.target, target_length)
        in_step(mapper, one.starts, other.starts)
        whole = max(0, min(len(one.tails), len(other.tails)) - 1)
        for tail, its in zip(one.tails[:whole], other.tails[:whole], strict=True):
            in_step(mapper, tail, its)
        in_step(mapper, [*chain(*one.tails[whole:])], [*chain(*other.tails[whole:])])
        return mapper

    def describe(self) -> str:
        """One line for every pair; unequal numbers of tokens are said."""
        return "\n".join(_line(pair) for pair in self.pairs)


def align(source: TokenMap, target: TokenMap, pairs: Sequence[tuple[str, str]] = ()) -> Alignment:
    """Find which words of ``source`` became which words of ``target``.

    ``pairs`` are phrases of the source and of the target that belong together, whatever the rest looks like; an empty
    phrase says that the other one has no counterpart. All other words are compared in order, upper and lower case being
    the same: words between two common ones are a swap, word by word if they are equally many, else as a whole.

    Raises HRVError for a prompt without words or with too many (:data:`MOST_WORDS`), prompts without a common word
    (unless ``pairs`` says what belongs together), phrases that are not in their prompt or not equally often, and a
    word in two pairs.
    """
    for tokens, what in ((source, "source"), (target, "target")):
        if not tokens.words:
            raise HRVError(f"The {what} prompt has no words: write what the image shows.")
        if len(tokens.words) > MOST_WORDS:
            raise HRVError(
                f"The {what} prompt has {len(tokens.words)} words and signs; an edit can compare at most {MOST_WORDS}. "
                "Shorten it."
            )
    given = [pair for old, new in pairs for pair in _given_pairs(source, target, old, new)]
    olds = _numbered([pair.source for pair in given], "source")
    news = _numbered([pair.target for pair in given], "target")
    found = list(_compared(source.words, target.words, olds, news))
    if not given and not any(pair.is_same and _is_word(pair) for pair in found):
        raise HRVError(
            f"The source prompt ({quoted(source.text)}) and the target prompt ({quoted(target.text)}) have no word in "
            "common, so it is not clear what should stay. Write the target as the source with some words changed, "
            f"or say which words belong together as 'old {_ARROW} new'."
        )
    where = {word: number for number, word in enumerate(target.words)}
    ordered = sorted([*given, *found], key=lambda pair: where[pair.target[0]] if pair.target else len(where))
    return Alignment(source, target, tuple(ordered))


def read_pairs(text: str) -> list[tuple[str, str]]:
    """The pairs of phrases that a user wrote: "old -> new", separated by commas or lines, either side empty or not.

    Raises HRVError for a part without an arrow or with nothing on both sides.
    """
    found = []
    for part in text.replace("\n", ",").split(","):
        if not part.strip():
            continue
        old, arrow, new = (side.strip() for side in part.partition(_ARROW))
        if not arrow or not (old or new):
            raise HRVError(
                f"{quoted(part.strip())} does not say which words belong together: write 'old {_ARROW} new', "
                f"'old {_ARROW}' for removed words, or '{_ARROW} new' for new ones."
            )
        found.append((old, new))
    return found


@dataclass(frozen=True)
class _Special:
    """Start tokens, and the end and padding of every chunk, as positions."""

    starts: list[int]
    tails: list[list[int]]


def _special_tokens(tokens: TokenMap, length: int) -> _Special:
    """What is no word: in front of words stands a start token, behind them an end with its padding."""
    content = [-1, *tokens.content_positions, length]
    starts: list[int] = []
    tails: list[list[int]] = []
    for before, after in pairwise(content):
        gap = list(range(before + 1, after))
        if gap and after != length:
            starts.append(gap.pop())
        if gap:
            tails.append(gap)
    return _Special(starts, tails)


def in_step(mapper: Mapper, source: list[int], target: list[int]) -> None:
    """Pair positions one to one; the last of the shorter list goes with all that is left of the longer one.

    ``mapper`` [source tokens, target tokens] is changed.
    """
    single = min(len(source), len(target)) - 1
    if single >= 0:
        mapper[source[:single], target[:single]] = 1.0
        _share(mapper, source[single:], target[single:])


def _share(mapper: Mapper, source: list[int], target: list[int]) -> None:
    """Give the attention of some source columns to some target columns."""
    if len(source) == len(target):
        mapper[source, target] = 1.0
    elif target:
        mapper[np.ix_(source, target)] = 1.0 / len(target)


def _places(words: Iterable[PromptWord]) -> list[int]:
    return [position for word in words for position in word.positions]


def _is_word(pair: WordPair) -> bool:
    """Whether a pair is more than punctuation."""
    return any(letter.isalnum() for word in pair.source for letter in word.text)


def _given_pairs(source: TokenMap, target: TokenMap, old: str, new: str) -> list[WordPair]:
    """The words that a user paired: every occurrence of the one with that of the other."""
    sides: list[list[tuple[PromptWord, ...]]] = []
    for phrase, tokens, what in ((old, source, "source"), (new, target, "target")):
        try:
            sides.append(tokens.find_words(phrase) if phrase else [])
        except HRVError as error:
            raise HRVError(f"The pair {quoted(f'{old} {_ARROW} {new}')} does not fit the {what}: {error}") from None
    olds, news = sides
    if old and new and len(olds) != len(news):
        raise HRVError(
            f"{quoted(f'{old} {_ARROW} {new}')} is not clear: the source prompt contains {quoted(old)} {len(olds)} "
            f"times, the target prompt {quoted(new)} {len(news)} times. Write longer phrases that each prompt "
            "contains once."
        )
    if not new:
        return [WordPair(words, ()) for words in olds]
    if not old:
        return [WordPair((), words) for words in news]
    return [WordPair(one, other) for one, other in zip(olds, news, strict=True)]


def _numbered(given: Sequence[tuple[PromptWord, ...]], what: str) -> dict[PromptWord, int]:
    """The number of the given pair that each word belongs to. Raises HRVError for a word of two."""
    numbers: dict[PromptWord, int] = {}
    for number, words in enumerate(given):
        for word in words:
            if word in numbers:
                raise HRVError(f"The word {quoted(word.text)} of the {what} prompt is in two of the pairs.")
            numbers[word] = number
    return numbers


def _compared(
    source: Sequence[PromptWord],
    target: Sequence[PromptWord],
    olds: Mapping[PromptWord, int],
    news: Mapping[PromptWord, int],
) -> Iterator[WordPair]:
    """Pairs of the words that no given pair has; the given ones, by number, part the rest unless they change places."""
    both = set(olds.values()) & set(news.values())
    in_source = dict.fromkeys(olds[word] for word in source if olds.get(word) in both)
    in_target = dict.fromkeys(news[word] for word in target if news.get(word) in both)
    if list(in_source) != list(in_target):
        source = [word for word in source if word not in olds]
        target = [word for word in target if word not in news]
    before = [olds.get(word, caseless(word.text)) for word in source]
    after = [news.get(word, caseless(word.text)) for word in target]
    for kind, first, last, start, stop in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        gone = [word for word in source[first:last] if word not in olds]
        come = [word for word in target[start:stop] if word not in news]
        if kind == "equal" or len(gone) == len(come):
            for old, new in zip(gone, come, strict=True):
                yield WordPair((old,), (new,))
        else:
            yield WordPair(tuple(gone), tuple(come))


def _line(pair: WordPair) -> str:
    old, new = len(_places(pair.source)), len(_places(pair.target))
    tokens = f" ({old} to {new} tokens)" if old and new and old != new else ""
    return pair.describe() + tokens
