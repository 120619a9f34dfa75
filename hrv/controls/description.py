"""What a prompt's tokens are and which controls act on them, as text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from ..prompts.tokens import TokenMap
from .control import Control
from .reading import Reading


def prompt_text(tokens: TokenMap, controls: Sequence[Control], readings: Sequence[Reading] = ()) -> str:
    """A line for each word of a prompt with its positions and pieces, then one for each control and each reading."""
    lines = [
        *(f"{control.label}: {_words(tokens, control)}; {_extent(control)}" for control in controls),
        *(f"{reading.label}; {_extent(reading)}" for reading in readings),
    ]
    return "\n".join([tokens.describe() or "No words.", "", *(lines or ["No controls."])])


def _extent(made: Control | Reading) -> str:
    """How much and when it acts."""
    return f"strength {made.strength:g}; progress {made.window.start:g} to {made.window.end:g}"


def _words(tokens: TokenMap, control: Control) -> str:
    """The words that a control acts on, those that follow each other in one pair of quotes."""
    if not control.positions:
        return "no words"
    if set(control.positions) >= set(tokens.content_positions):
        return "all words"
    acting = groupby(tokens.words, key=lambda word: not set(word.positions).isdisjoint(control.positions))
    return ", ".join(f'"{" ".join(word.text for word in run)}"' for acts, run in acting if acts)
