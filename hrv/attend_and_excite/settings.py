"""Attend-and-excite: what every word of a list owes to a picture, and how far a latent is from it.

Plain attend-and-excite is arXiv 2301.13826; weighting heads with HRVs is arXiv 2412.02237, section 5.3. Settings are
in sampling progress (0 is pure noise, 1 the finished image), so that any number of steps works; the defaults are the
published 50 steps: updates in the first 25, thresholds at steps 0, 10 and 20.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...hrv_kernels.weighted_maps import smoothed
from ..controls.control import Factors, Window, clamped_row
from ..errors import HRVError
from ..prompts.tokens import TokenMap
from ..relevance.vectors import HRV

MOST_SUBJECTS = 16
"""More things than this no picture holds; a list that long is a mistake."""

SHARPNESS = 100.0
"""The published factor of the maps before their softmax over tokens."""


@dataclass(frozen=True)
class Threshold:
    """At the first step from ``progress`` on, repeat until every subject's maximum reaches ``maximum``."""

    progress: float
    maximum: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.progress < 1.0:
            raise HRVError(f"A threshold begins at a sampling progress from 0 to below 1, not at {self.progress:g}.")
        if not 0.0 < self.maximum <= 1.0:
            raise HRVError(
                f"A threshold is the share of a place's attention that every subject shall reach: above 0 and at "
                f"most 1, not {self.maximum:g}."
            )


PUBLISHED_WINDOW = Window(0.0, 0.5)
PUBLISHED_THRESHOLDS = (Threshold(0.0, 0.05), Threshold(0.2, 0.5), Threshold(0.4, 0.8))


@dataclass(frozen=True)
class ExcitementSettings:
    """How latents are moved.

    ``step_size``   of an update at progress 0, in units of what the network sees; 0 moves nothing.
    ``decay``       what is left at progress 1 of the number whose root the step size has as a factor.
    ``thresholds``  by ascending progress.
    ``iterations``  updates at most in the step of a threshold.
    ``window``      steps whose progress is inside are updated.
    ``resolution``  side of a square picture's maps for subjects with a concept; other pictures have about as many
                    places.
    ``smoothing``   sigma of the 3 x 3 Gaussian over the maps, in places; 0 for none.

    Raises HRVError for anything else than such numbers.
    """

    step_size: float = 20.0
    decay: float = 0.5
    thresholds: tuple[Threshold, ...] = PUBLISHED_THRESHOLDS
    iterations: int = 20
    window: Window = PUBLISHED_WINDOW
    resolution: int = 8
    smoothing: float = 0.5

    def __post_init__(self) -> None:
        if not (math.isfinite(self.step_size) and self.step_size >= 0):
            raise HRVError(f"The step size is a number from 0 on, not {self.step_size:g}.")
        if not 0.0 <= self.decay <= 1.0:
            raise HRVError(f"The decay of the step size is a number from 0 to 1, not {self.decay:g}.")
        if not 1 <= self.iterations <= 1000:
            raise HRVError(f"A threshold gets 1 to 1000 iterations, not {self.iterations}.")
        if not 2 <= self.resolution <= 64:
            raise HRVError(f"The resolution of the maps is 2 to 64, not {self.resolution}.")
        if not 0.0 <= self.smoothing <= 10.0:
            raise HRVError(f"The smoothing is a sigma from 0 to 10, not {self.smoothing:g}.")
        progresses = [threshold.progress for threshold in self.thresholds]
        if sorted(set(progresses)) != progresses:
            raise HRVError("Thresholds stand in the order of their progress, each progress once.")

    def step_at(self, progress: float) -> float:
        """The published step size: 20 sqrt(s), with s falling linearly from 1 to 0.5 over the run."""
        return self.step_size * math.sqrt(1.0 + (self.decay - 1.0) * progress)

    def maximum_at(self, before: float, progress: float) -> float | None:
        """What subjects shall reach in a step at ``progress``, after one at ``before``; None without a threshold.

        Where a run has so few steps that several thresholds fall into one, the last of them counts.
        """
        reached = [threshold for threshold in self.thresholds if before < threshold.progress <= progress]
        return reached[-1].maximum if reached else None


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
                f"No head of this HRV is relevant for {self.concept}, so {self.words!r} would see nothing: choose "
                "another concept, or leave it off."
            )


def parse_subjects(text: str) -> list[tuple[str, str]]:
    """Read "cat: Animals, red frog" as [("cat", "Animals"), ("red frog", "")]: commas or lines between subjects.

    Raises HRVError for fewer than one and more than :data:`MOST_SUBJECTS`, a colon without words or concept, and
    the same words twice.
    """
    parts = [part.strip() for line in text.splitlines() for part in line.split(",") if part.strip()]
    subjects: list[tuple[str, str]] = []
    for part in parts:
        words, colon, concept = (piece.strip() for piece in part.partition(":"))
        if not words or (colon and not concept):
            raise HRVError(f"A subject is 'words' or 'words: concept', as in 'cat: Animals', not {part!r}.")
        if words.casefold() in (other.casefold() for other, _ in subjects):
            raise HRVError(f"{words!r} is in the list of subjects twice: name every subject once.")
        subjects.append((words, concept))
    if not subjects:
        raise HRVError(
            "No subject was given: write the words that the picture shall show, as in 'cat: Animals, frog: Animals'."
        )
    if len(subjects) > MOST_SUBJECTS:
        raise HRVError(f"{len(subjects)} subjects are more than one picture can show: give at most {MOST_SUBJECTS}.")
    return subjects


def parse_thresholds(text: str) -> tuple[Threshold, ...]:
    """Read "0: 0.05, 0.2: 0.5" as thresholds by progress; an empty text is none. Raises HRVError for anything else."""
    thresholds = []
    for part in (part.strip() for part in text.split(",") if part.strip()):
        try:
            progress, maximum = (float(number) for number in part.split(":"))
        except ValueError:
            raise HRVError(
                f"Thresholds are 'progress: maximum' pairs, as in '0: 0.05, 0.2: 0.5, 0.4: 0.8', not {part!r}."
            ) from None
        thresholds.append(Threshold(progress, maximum))
    return tuple(thresholds)


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
                    f"The subjects {owners[position]!r} and {words!r} share a word of the prompt: each word counts "
                    "for one subject."
                )
            owners[position] = words
        if concept and hrv is None:
            raise HRVError(
                f"The subject {words!r} has the concept {concept!r}, but no HRV is connected: connect one, or leave "
                "': concept' off for plain attend-and-excite."
            )
        if not concept or hrv is None:
            subjects.append(Subject(words, positions))
        else:
            name = hrv.concepts[hrv.index(concept)]
            subjects.append(Subject(words, positions, name, clamped_row(hrv, concept, clamp)))
    return tuple(subjects)


def map_size(height: int, width: int, resolution: int) -> tuple[int, int]:
    """(y, x) of about ``resolution`` squared places in the aspect of a latent; at least 2 each way."""
    aspect = math.sqrt(height / width)
    return max(2, round(resolution * aspect)), max(2, round(resolution / aspect))


def subject_map(maps: torch.Tensor, positions: Sequence[int], starts: Sequence[int], smoothing: float) -> torch.Tensor:
    """How much of every place a subject has, [B, y, x] from 0 to 1.

    ``maps`` [B, y, x, T] are attention to all tokens, averaged over heads. Start tokens (``starts``) are cut off, the
    rest is multiplied by :data:`SHARPNESS` and soft-maxed over the tokens, and the shares of the subject's tokens are
    added and smoothed (arXiv 2301.13826, and its authors' code for the numbers).
    """
    cut = torch.zeros(maps.shape[-1], dtype=torch.bool, device=maps.device)
    cut[list(starts)] = True
    shares = (SHARPNESS * maps).masked_fill(cut, -torch.inf).softmax(-1)
    return smoothed(shares[..., list(positions)].sum(-1), smoothing)


def image_losses(maxima: torch.Tensor) -> torch.Tensor:
    """The loss [B] of every image from the maxima [B, S] of its subjects' maps: that of the most neglected one."""
    return (1.0 - maxima).clamp(min=0.0).amax(-1)
