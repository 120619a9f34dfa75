"""The words of a prompt that a picture must show, each read in the heads of a concept or in all alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import HRVError, quoted, short
from ..prompts.tokens import TokenMap
from ..relevance.vectors import HRV, Factors, clamped_row

MOST_SUBJECTS = 16
"""More things than this no picture holds; a list that long is a mistake."""


@dataclass(frozen=True, eq=False)
class Subject:
    """Words of a prompt that the picture shall show.

    ``positions`` along the token axis of the conditioning; ``weights`` float32 [H], the HRV elements of its
    ``concept``, or None for plain attend-and-excite. Raises HRVError for an HRV row of nothing but zeros.
    """

    words: str
    positions: tuple[int, ...]
    concept: str = ""
    weights: Factors | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and not self.weights.any():
            raise HRVError(
                f"No head of this HRV is relevant for {short(self.concept)}, so {quoted(self.words)} would see "
                "nothing: choose another concept or none."
            )


def parse_subjects(text: str) -> list[tuple[str, str]]:
    """Read "cat: Animals, red frog" as [("cat", "Animals"), ("red frog", "")]: commas or lines between subjects.

    Raises HRVError for fewer than one and more than :data:`MOST_SUBJECTS`, a colon without words or concept, and
    the same words twice.
    """
    parts = [part.strip() for line in text.splitlines() for part in line.split(",") if part.strip()]
    subjects: list[tuple[str, str]] = []
    if len(parts) > MOST_SUBJECTS:
        raise HRVError(f"{len(parts)} subjects are more than one image can show: give at most {MOST_SUBJECTS}.")
    for part in parts:
        words, colon, concept = (piece.strip() for piece in part.partition(":"))
        if not words or (colon and not concept):
            raise HRVError(f"Write a subject as 'words' or 'words: concept', as in 'cat: Animals', not {quoted(part)}.")
        if words.casefold() in (other.casefold() for other, _ in subjects):
            raise HRVError(f"{quoted(words)} is in the list of subjects twice: list every subject once.")
        subjects.append((words, concept))
    if not subjects:
        raise HRVError("There is no subject: write what the image should show, as in 'cat: Animals, frog: Animals'.")
    return subjects


def find_subjects(
    tokens: TokenMap, asked: Sequence[tuple[str, str]], hrv: HRV | None, clamp: float | None
) -> tuple[Subject, ...]:
    """The subjects of a prompt. Raises HRVError for words that are not in it, a concept without an HRV or not in it,
    and two subjects with a token in common."""
    subjects: list[Subject] = []
    owners: dict[int, str] = {}
    for words, concept in asked:
        positions = tokens.find(words)
        for position in positions:
            if position in owners:
                raise HRVError(
                    f"The subjects {quoted(owners[position])} and {quoted(words)} share a word of the prompt: each "
                    "word can belong to only one subject."
                )
            owners[position] = words
        if concept and hrv is None:
            raise HRVError(
                f"The subject {quoted(words)} has the concept {quoted(concept)}, but no HRV is connected: connect "
                "one, or remove ': concept' for plain Attend and Excite."
            )
        if not concept or hrv is None:
            subjects.append(Subject(words, positions))
        else:
            name = hrv.concepts[hrv.index(concept)]
            subjects.append(Subject(words, positions, name, clamped_row(hrv, concept, clamp)))
    return tuple(subjects)
