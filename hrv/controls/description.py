"""What a prompt's tokens are and which controls act on them, as text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from ..prompts.tokens import TokenMap
from .control import Control


def prompt_text(tokens: TokenMap, controls: Sequence[Control]) -> str:
    """A line for each word of a prompt with its positions and pieces, then one for each control."""
    words = tokens.describe() or "No words."
    return "\n".join([words, "", *([_control_line(tokens, control) for control in controls] or ["No controls."])])


def _control_line(tokens: TokenMap, control: Control) -> str:
    window = f"{control.window.start:g} to {control.window.end:g}"
    return f"{control.label}: {_words(tokens, control)}; strength {control.strength:g}; progress {window}"


def _words(tokens: TokenMap, control: Control) -> str:
    """The words that a control acts on, those that follow each other in one pair of quotes."""
    if not control.positions:
        return "no words"
    if set(control.positions) >= set(tokens.content_positions):
        return "all words"
    acting = groupby(tokens.words, key=lambda word: not set(word.positions).isdisjoint(control.positions))
    return ", ".join(f'"{" ".join(word.text for word in run)}"' for acts, run in acting if acts)
