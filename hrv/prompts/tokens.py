"""Token maps: which positions along a conditioning's token axis belong to which word of the prompt."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, chain, pairwise

from ..errors import HRVError, closest, listed, quoted

# So many words are listed in the prompt's order, more by their likeness.
_FEW_WORDS = 20

# Words of prompts stand in double quotes.
_MARK = '"'

MOST_PARTS = 200
"""Words of a phrase at most."""

ALL_WORDS = "*"
"""The phrase that means all words of a prompt."""

TEMPLATE, PADDING = "template", "padding"
"""Groups of tokens beside a prompt's words: what its text encoder writes around it, and what fills it up."""


@dataclass(frozen=True)
class PromptWord:
    """One word as the text encoder's tokenizer splits a prompt.

    CLIP takes runs of letters, single digits, contractions ('s) and runs of other signs as words of their
    own: "rose-colored" is the three words rose, -, colored. ``positions`` are the word's places along the
    token axis (chunk x chunk length + index), ascending. ``pieces`` are the texts of its tokens in the same
    order, or empty if they are not known. ``signs`` stand in front of its letters within its first token: other
    tokenizers make "rose-colored" of "rose" and "-colored".
    """

    text: str
    positions: tuple[int, ...]
    pieces: tuple[str, ...] = ()
    signs: str = ""


@dataclass(frozen=True)
class TokenMap:
    """The words of a prompt in order, with their places along a conditioning's token axis.

    ``text`` is the prompt as written, ``length`` the number of tokens that it takes along the axis with
    start, end and padding (77 for each chunk of an ordinary CLIP). An empty prompt has no words. ``groups`` are
    tokens beside the words that have a name (:data:`TEMPLATE`); a word of that name goes first. Raises HRVError
    for a word without positions, positions that do not ascend from word to word or lie outside ``length``, and
    pieces that are not as many as the positions.
    """

    text: str
    words: tuple[PromptWord, ...]
    length: int
    groups: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __post_init__(self) -> None:
        for word in self.words:
            if not word.positions:
                raise HRVError(f"The word {quoted(word.text, _MARK)} has no position in the token map.")
            if word.pieces and len(word.pieces) != len(word.positions):
                raise HRVError(
                    f"The word {quoted(word.text, _MARK)} has {len(word.pieces)} pieces for {len(word.positions)} "
                    "positions."
                )
        positions = self.content_positions
        if any(after <= before for before, after in pairwise(positions)):
            raise HRVError(f"The positions of a token map must ascend from word to word; these don't: {positions}.")
        if positions and not 0 <= positions[0] <= positions[-1] < self.length:
            raise HRVError(
                f"The words of the token map are at positions {positions[0]} to {positions[-1]}, "
                f"but its token axis has positions 0 to {self.length - 1}."
            )

    @property
    def content_positions(self) -> tuple[int, ...]:
        """The positions of all words, ascending: everything but start, end and padding."""
        return tuple(chain.from_iterable(word.positions for word in self.words))

    def find(self, phrase: str, occurrence: str | int = "all") -> tuple[int, ...]:
        """Return the positions of a word or of a phrase of consecutive words, ascending.

        Upper and lower case are the same. The phrase has to begin and end at word boundaries and to have
        the prompt's punctuation: "rose-colored" is found in "a rose-colored vase"; "rose colored" and "ros"
        are not. White space in the phrase asks for a word boundary, white space in the prompt asks for
        nothing: "bluebird" finds "blue bird", but not the other way round. The positions of punctuation
        inside a phrase belong to it.

        ``occurrence`` is "all", "first", or a number counted from 1, also as text. Occurrences do not
        overlap. Raises HRVError for an empty phrase, a phrase that is not in the prompt (the message lists
        the words that are), another occurrence than these, and a number beyond the last occurrence.
        """
        number = _occurrence_number(occurrence)
        if positions := self._group(phrase):
            return positions
        found = [tuple(chain.from_iterable(word.positions for word in words)) for words in self.find_words(phrase)]
        if number is None:
            return tuple(chain.from_iterable(found))
        if number > len(found):
            times = "once" if len(found) == 1 else f"{len(found)} times"
            raise HRVError(
                f"The prompt contains {quoted(phrase, _MARK)} only {times}, so there is no occurrence {number}."
            )
        return found[number - 1]

    def find_words(self, phrase: str) -> list[tuple[PromptWord, ...]]:
        """The words of every occurrence of a phrase, as :meth:`find` finds them.

        Raises HRVError for an empty phrase and for one that is not in the prompt, nor names tokens beside its words.
        """
        found = self.occurrences(phrase)
        if not found and (name := caseless(phrase).strip()) in dict(self.groups):
            raise HRVError(
                f"The text encoder adds no {name} to this prompt. What the model itself puts beside the text has no "
                "place in the conditioning, so it can't be named."
            )
        if not found:
            raise HRVError(f"The prompt does not contain {quoted(phrase, _MARK)}. {self._words_there(phrase)}")
        return found

    def _group(self, phrase: str) -> tuple[int, ...]:
        """The positions of the group with this name, or none; a word of the prompt with that name goes first."""
        name = caseless(phrase).strip()
        found = next((positions for group, positions in self.groups if group == name), ())
        return () if found and self.occurrences(phrase) else found

    def occurrences(self, phrase: str) -> list[tuple[PromptWord, ...]]:
        """:meth:`find_words` for a phrase that may be in the prompt or not. Raises HRVError for an empty one."""
        parts = caseless(phrase).split()
        if not parts:
            raise HRVError("There is no word: write a word or a phrase of the prompt.")
        if len(parts) > MOST_PARTS:
            raise HRVError(f"A phrase can have at most {MOST_PARTS} words; {quoted(phrase, _MARK)} has {len(parts)}.")
        return [self.words[first:end] for first, end in self._occurrences(parts)]

    def joined(self, other: TokenMap, offset: int) -> TokenMap:
        """The map of a conditioning with another one's tokens behind it, the first of them at ``offset``.

        Raises HRVError for an offset at which the words of the two would overlap.
        """
        moved = tuple(
            replace(word, positions=tuple(offset + position for position in word.positions)) for word in other.words
        )
        groups = dict(self.groups)
        for name, positions in other.groups:
            groups[name] = (*groups.get(name, ()), *(offset + position for position in positions))
        text = f"{self.text} | {other.text}"
        return TokenMap(text, (*self.words, *moved), offset + other.length, tuple(groups.items()))

    def describe(self) -> str:
        """One line a word, "skyscraper: 3 sky, 4 scraper": positions, and pieces where there are several.

        Then one for each group that has tokens, with their positions.
        """
        words = [f"{word.text}: {', '.join(_places(word))}" for word in self.words]
        groups = [f"({name}): {_runs(positions)}" for name, positions in self.groups if positions]
        return "\n".join([*words, *groups])

    @cached_property
    def _spelling(self) -> _Spelling:
        return _Spelling(self.words)

    def _occurrences(self, parts: list[str]) -> Iterator[tuple[int, int]]:
        """Every occurrence of the parts, each part being one or more whole words: its first word, and the one after
        its last.

        A word is spelled with the signs in front of it; a part may begin behind them. The letters are searched as one
        text, so that long prompts and many phrases take little time.
        """
        spelling = self._spelling
        place = spelling.letters.find(parts[0])
        while place >= 0:
            first = spelling.begins.get(place)
            end = spelling.match_end(place, parts) if first is not None else None
            if first is not None and end is not None:
                yield first, end
                place = spelling.ends[end - 1] - 1
            place = spelling.letters.find(parts[0], place + 1)

    def _words_there(self, phrase: str) -> str:
        """A sentence with the words of the prompt in order, the closest to the phrase first if they are many."""
        words = list(dict.fromkeys(word.text for word in self.words))
        if not words:
            return "The prompt has no words."
        if len(words) <= _FEW_WORDS:
            return f"Its words are: {listed(words, _MARK)}."
        ordered = dict.fromkeys([*closest(phrase, words, _FEW_WORDS), *words])
        return f"Its closest words are: {listed(list(ordered), _MARK)}."


def find_phrases(tokens: TokenMap, phrases: Sequence[str], occurrence: str | int = "all") -> tuple[int, ...]:
    """Return the positions of several words or phrases, ascending and each once.

    The phrase "*" is every word of the prompt, whatever the occurrence. Raises HRVError as :meth:`TokenMap.find`
    does.
    """
    _occurrence_number(occurrence)
    found: set[int] = set()
    for phrase in dict.fromkeys(phrases):
        found.update(tokens.content_positions if phrase.strip() == ALL_WORDS else tokens.find(phrase, occurrence))
    return tuple(sorted(found))


def caseless(text: str) -> str:
    """The form in which words are compared: composed letters, as in CLIP's tokenizer, without case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


class _Spelling:
    """All words in the form in which they are compared, as one text.

    ``letters`` are the words with the signs in front of them, one behind the other; ``ends`` says where each ends,
    ``begins`` which word begins at a place, with its signs or behind them, and ``after`` which follows a place.
    """

    def __init__(self, words: Sequence[PromptWord]) -> None:
        signs = ["".join(caseless(word.signs).split()) for word in words]
        texts = [before + "".join(caseless(word.text).split()) for before, word in zip(signs, words, strict=True)]
        self.letters = "".join(texts)
        self.ends = list(accumulate(map(len, texts)))
        self.begins: dict[int, int] = {}
        self.after: dict[int, int] = {}
        self._signs = signs
        for index, (end, before) in enumerate(zip(self.ends, signs, strict=True)):
            start = end - len(texts[index])
            self.begins.setdefault(start, index)
            self.begins.setdefault(start + len(before), index)
            self.after.setdefault(end, index + 1)

    def match_end(self, place: int, parts: Sequence[str]) -> int | None:
        """The index after the words that spell the parts one after the other from a place on, or None."""
        index = None
        for part in parts:
            if index is not None:
                if index == len(self.ends):
                    return None
                signs = self._signs[index]
                place = self.ends[index - 1] + (0 if part.startswith(signs) else len(signs))
            index = self.after.get(place + len(part)) if self.letters.startswith(part, place) else None
            if index is None:
                return None
        return index


def _occurrence_number(occurrence: str | int) -> int | None:
    """The occurrence counted from 1, or None for all."""
    if occurrence == "all":
        return None
    if occurrence == "first":
        return 1
    try:
        number = int(occurrence)
    except ValueError:
        number = 0
    if number < 1:
        raise HRVError(
            f'The occurrence must be "all", "first" or a number from 1, not {quoted(str(occurrence), _MARK)}.'
        )
    return number


def _places(word: PromptWord) -> list[str]:
    if len(word.pieces) < 2:
        return [str(position) for position in word.positions]
    return [f"{position} {piece}" for position, piece in zip(word.positions, word.pieces, strict=True)]


def _runs(positions: Sequence[int]) -> str:
    """Ascending positions, runs of them as "3-8"."""
    runs: list[list[int]] = []
    for position in positions:
        if runs and runs[-1][-1] == position - 1:
            runs[-1].append(position)
        else:
            runs.append([position])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
