"""Sentence frames: sentences with a gap that a concept-word goes into, such as "a photo of a {word}"."""

from __future__ import annotations

from ..errors import HRVError, quoted

WORD = "{word}"
"""The gap of a frame."""

ALONE = WORD
"""The frame of a word that is the whole prompt."""

MOST_FRAMES = 12

DEFAULT_FRAMES = (ALONE, "a {word}", "a photo of a {word}")
"""Frames for words of any class. CLIP reads from left to right, so only what stands before the gap counts."""

# Characters of a frame: with its word it has to fit into one chunk of a text encoder anyway.
_LONGEST = 300
_EXAMPLE = f"Write one sentence a line, such as: a photo of a {WORD}"


def parse_frames(text: str) -> tuple[str, ...]:
    """Read one frame a line, each with one ``{word}``; blank lines are skipped.

    Raises HRVError with the line's number for a line without the gap or with several, one that is too long, is there
    twice, has brackets or backslashes (which weight a prompt's words), or letters right beside the gap; for more than
    12 frames, and for none.
    """
    frames: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"Line {number} of the sentence frames"
        if len(line) > _LONGEST:
            raise HRVError(f"{where} has {len(line)} characters; at most {_LONGEST} are allowed. {_EXAMPLE}")
        frame = " ".join(line.split())
        if not frame:
            continue
        _check(frame, where)
        if frame.casefold() in frames:
            raise HRVError(f"{where} repeats {quoted(frame)}: remove one of the two.")
        if len(frames) == MOST_FRAMES:
            raise HRVError(f"There are more than {MOST_FRAMES} sentence frames: remove some.")
        frames[frame.casefold()] = frame
    if not frames:
        raise HRVError(f"There are no sentence frames. {_EXAMPLE}")
    return tuple(frames.values())


def fill(frame: str, word: str) -> str:
    """The sentence that a frame makes of a word."""
    return frame.replace(WORD, word)


def _check(frame: str, where: str) -> None:
    gaps = frame.count(WORD)
    if gaps != 1:
        found = "no" if gaps == 0 else f"{gaps} times"
        raise HRVError(f"{where}, {quoted(frame)}, has {found} {WORD}, but a sentence needs it once. {_EXAMPLE}")
    before, after = frame.split(WORD)
    if before[-1:].isalnum() or after[:1].isalnum():
        raise HRVError(f"{where}, {quoted(frame)}, has letters right beside {WORD}: leave a space between.")
    if any(character in "()\\" or "\ud800" <= character <= "\udfff" for character in frame):
        raise HRVError(f"{where}, {quoted(frame)}, has a bracket, a backslash or half a character: remove it.")
