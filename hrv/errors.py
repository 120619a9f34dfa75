"""The one family of errors that users of the pack meet, and how messages quote what users wrote."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

LONGEST_MESSAGE = 500
"""Characters of a message at most; of a longer one, as with long paths in it, the middle is left out."""

# Control characters, lone surrogates, line and paragraph separators: nothing that can be shown on one line.
_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
_SHORT = 60
_LISTED = 240
_COMPARED = 30


class HRVError(ValueError):
    """Something a user gave cannot be used; the message says what, why and what to do instead.

    Whatever it was made of, the message is printable and short. A host that logs one that can't be encoded may stop
    working through its queue (``app/logger.py`` writes strictly, and logging prints the error that is being handled).
    """

    def __init__(self, message: str) -> None:
        super().__init__(_without_middle(printable(_without_middle(message))))


def is_printable(text: str) -> bool:
    """Whether ``text`` is not empty and can be shown on one line."""
    return bool(text) and (text.isprintable() or not any(map(_is_unprintable, text)))


def printable(text: str) -> str:
    r"""``text`` with escapes (``\x00``, ``\ud800``) for all that can't be shown or encoded; lines stay."""
    if text.isprintable():
        return text
    return "".join(
        letter.encode("unicode_escape").decode("ascii") if letter != "\n" and _is_unprintable(letter) else letter
        for letter in text
    )


def short(text: str) -> str:
    """What a user wrote, as messages show it: on one line, printable, its first 60 characters, counted as shown."""
    shown = printable(text[: _SHORT + 1]).replace("\n", r"\n")
    return shown if len(shown) <= _SHORT else f"{shown[: _SHORT - 1]}…"


def quoted(text: str, mark: str = "'") -> str:
    """:func:`short` in quotation marks."""
    return f"{mark}{short(text)}{mark}"


def require_encodable(name: str, text: str) -> None:
    """Raise HRVError for a text with a lone surrogate; ``name`` is that of the field it was written in."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise HRVError(
            f"The text of {quoted(name)} has half a character ({text[error.start]!a}) at place {error.start + 1}, "
            "which no file and no text encoder can hold. Remove it."
        ) from None


def listed(names: Sequence[str], mark: str = "") -> str:
    """Names side by side, as many as a message has room for: "Color, Shape and 32 more"; quoted with a ``mark``."""
    shown: list[str] = []
    room = _LISTED
    for name in names:
        shown.append(quoted(name, mark))
        room -= len(shown[-1]) + 2
        if room < 0 and len(shown) > 1:
            shown.pop()
            break
    left = len(names) - len(shown)
    return ", ".join(shown) + (f" and {left} more" if left else "")


def closest(wanted: str, names: Iterable[str], most: int = 3) -> list[str]:
    """The names that are most like a wanted one, the closest first, as far as there are any.

    Upper and lower case are the same. Of long names the first 30 letters are compared, so that ten thousand of them
    take less than a second.
    """
    beginnings: dict[str, str] = {}
    for name in names:
        beginnings.setdefault(name.casefold()[:_COMPARED], name)
    close = get_close_matches(wanted.casefold()[:_COMPARED], beginnings, n=most)
    return [beginnings[beginning] for beginning in close]


def _is_unprintable(letter: str) -> bool:
    return unicodedata.category(letter) in _UNPRINTABLE


def _without_middle(text: str) -> str:
    if len(text) <= LONGEST_MESSAGE:
        return text
    end = LONGEST_MESSAGE // 3
    return f"{text[: LONGEST_MESSAGE - end - 3]} … {text[-end:]}"
