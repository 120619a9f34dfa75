"""Vocabularies: concepts and the words that stand for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import HRVError, closest, is_printable, listed, quoted, short

_EXAMPLE = "Write one concept per line, like this: Color: red, blue, green."
_NUMBERED_LINE = re.compile(r"\d+\s*\.\s*(.*)")


@dataclass(frozen=True)
class Vocabulary:
    """An ordered set of concepts, each with its words: ``((concept, (word, ...)), ...)``.

    Case and spacing do not tell names or words apart. A word may stand for several concepts ("orange" is a
    color and a fruit), but only once for each. Raises HRVError for an empty vocabulary, a concept without a
    name or without words, a repeated concept, and a word repeated within a concept.
    """

    concepts: tuple[tuple[str, tuple[str, ...]], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "concepts", _checked(("", name, words) for name, words in self.concepts))

    @property
    def names(self) -> tuple[str, ...]:
        """The concepts' names in order."""
        return tuple(name for name, _ in self.concepts)

    def __iter__(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        return iter(self.concepts)

    def __len__(self) -> int:
        return len(self.concepts)

    def to_text(self) -> str:
        """The form that :func:`parse_vocabulary` reads: one "Color: red, blue" a line."""
        return "".join(f"{name}: {', '.join(words)}\n" for name, words in self.concepts)


def parse_vocabulary(text: str) -> Vocabulary:
    """Read one concept a line: ``Color: red, blue, dark green``.

    Blank lines and everything after a ``#`` are skipped. Raises HRVError with the line's number for a line
    without a colon and for everything that :class:`Vocabulary` refuses.
    """
    entries = []
    for where, line in _lines(text):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        name, colon, words = content.partition(":")
        if not colon:
            raise HRVError(f"{where}there is no colon in {quoted(content)}. {_EXAMPLE}")
        entries.append((where, name, [word for word in words.split(",") if word.strip()]))
    return Vocabulary(_checked(entries))


def parse_paper_csv(text: str) -> Vocabulary:
    """Read the layout of the authors' word list: a line with the concept's name, then "1. word" and so on.

    Blank lines are skipped. Raises HRVError with the line's number for a numbered line before the first name
    and for everything that :class:`Vocabulary` refuses.
    """
    entries: list[tuple[str, str, list[str]]] = []
    for where, line in _lines(text):
        content = line.strip()
        numbered = _NUMBERED_LINE.fullmatch(content)
        if numbered and not entries:
            raise HRVError(f"{where}{quoted(content)} comes before the name of its concept.")
        if numbered:
            entries[-1][2].append(numbered[1])
        elif content:
            entries.append((where, content, []))
    return Vocabulary(_checked(entries))


def require_contrast(vocabulary: Vocabulary) -> None:
    """Raise HRVError unless there are at least two concepts to tell apart."""
    if len(vocabulary) < 2:
        raise HRVError(
            f"Building HRVs needs at least two concepts, but there is only {vocabulary.names[0]}. Each head "
            "is counted for the concept it attends to most, so with one concept all heads would look equally "
            "relevant. Add a line with another concept."
        )


def fold(name: str) -> str:
    """The form in which names and words are compared: without case, runs of space as one space."""
    return tidy(name).casefold()


def tidy(name: str) -> str:
    """``name`` without surrounding space and with every run of space as one space."""
    return " ".join(name.split())


def find_concept(name: str, concepts: Sequence[str], where: str) -> int:
    """Index of ``name`` among ``concepts``; HRVError that lists them, the closest first, if it is not there.

    ``where`` says in the message what was searched, such as "vocabulary".
    """
    known = {fold(concept): index for index, concept in enumerate(concepts)}
    if fold(name) in known:
        return known[fold(name)]
    close = closest(tidy(name), concepts)
    hint = f" Did you mean {short(close[0])}?" if close else ""
    there = listed(list(dict.fromkeys([*close, *concepts])))
    raise HRVError(f"There is no concept {quoted(name)} in this {where}.{hint} It has: {there}.")


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Every line with its place ("Line 3: "), without byte-order marks: joined files have one in the middle."""
    for number, line in enumerate(text.replace("\ufeff", "").splitlines(), start=1):
        yield f"Line {number}: ", line


def _checked(entries: Iterable[tuple[str, str, Iterable[str]]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Tidy ``(where, name, words)`` entries; HRVError for the first that a vocabulary cannot have."""
    concepts: dict[str, tuple[str, tuple[str, ...]]] = {}
    for where, raw_name, raw_words in entries:
        name = tidy(raw_name)
        if not name:
            raise HRVError(f"{where}a concept has no name. {_EXAMPLE}")
        _check_characters(where, "concept", name)
        if fold(name) in concepts:
            raise HRVError(f"{where}the concept {short(name)} is there twice; put all its words on one line.")
        words: dict[str, str] = {}
        for raw_word in raw_words:
            word = tidy(raw_word)
            _check_characters(where, "word", word)
            if fold(word) in words:
                raise HRVError(f"{where}the word {short(word)} is there twice in {short(name)}; remove one.")
            words[fold(word)] = word
        if not words:
            raise HRVError(f"{where}the concept {short(name)} has no words; add some, separated by commas.")
        concepts[fold(name)] = name, tuple(words.values())
    if not concepts:
        raise HRVError(f"The vocabulary is empty. {_EXAMPLE}")
    return tuple(concepts.values())


def _check_characters(where: str, kind: str, text: str) -> None:
    """Refuse what the text form could not give back, or what is a slip such as two concepts on one line."""
    taken = ":#" if kind == "concept" else ":#,"
    if not is_printable(text) or any(character in text for character in taken):
        raise HRVError(
            f"{where}the {kind} {quoted(text)} is empty or has a character that isn't allowed there. "
            "Commas separate words, a colon ends a concept's name, # starts a comment, and every concept has "
            "its own line."
        )
