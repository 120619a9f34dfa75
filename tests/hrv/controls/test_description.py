"""Prompts and their controls as text."""

from __future__ import annotations

import numpy as np
import pytest
from hrv_pack.hrv.controls.control import Control
from hrv_pack.hrv.controls.description import prompt_text
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.hrv.progress import Window
from hrv_pack.hrv.prompts.tokens import PromptWord, TokenMap

LAYOUT = HeadLayout((AttentionLayer("middle", 0, 0, 2),))
PROMPT = TokenMap(
    "a rose-colored skyscraper",
    (
        PromptWord("a", (1,), ("a",)),
        PromptWord("rose", (2,), ("rose",)),
        PromptWord("-", (3,), ("-",)),
        PromptWord("colored", (4,), ("colored",)),
        PromptWord("skyscraper", (5, 6), ("sky", "scraper")),
    ),
    77,
)
WORDS = "a: 1\nrose: 2\n-: 3\ncolored: 4\nskyscraper: 5 sky, 6 scraper\n\n"


def control(positions: tuple[int, ...], strength: float = 1.0, window: Window | None = None) -> Control:
    return Control(np.zeros(2, np.float32), positions, LAYOUT, strength, window or Window(), "scale mid by 0")


@pytest.mark.parametrize(
    ("positions", "words"),
    [
        ((), "no words"),
        ((2,), '"rose"'),
        ((2, 3, 4), '"rose - colored"'),
        ((1, 4, 5, 6), '"a", "colored skyscraper"'),
        ((6,), '"skyscraper"'),
        ((1, 2, 3, 4, 5, 6), "all words"),
    ],
)
def test_controls_are_shown_with_the_words_they_act_on(positions: tuple[int, ...], words: str) -> None:
    expected = f"{WORDS}scale mid by 0: {words}; strength 1; progress 0 to 1"
    assert prompt_text(PROMPT, [control(positions)]) == expected


def test_controls_have_a_line_each_in_their_order() -> None:
    text = prompt_text(PROMPT, [control((1,), -0.5, Window(0.25, 1.0)), control((2,), 1.25, Window(0.0, 0.4))])
    assert text.removeprefix(WORDS).splitlines() == [
        'scale mid by 0: "a"; strength -0.5; progress 0.25 to 1',
        'scale mid by 0: "rose"; strength 1.25; progress 0 to 0.4',
    ]


def test_a_prompt_without_words_or_controls_says_so() -> None:
    assert prompt_text(PROMPT, []) == f"{WORDS}No controls."
    assert prompt_text(TokenMap("", (), 77), []) == "No words.\n\nNo controls."
    assert prompt_text(TokenMap("", (), 77), [control(())]).splitlines()[-1].startswith("scale mid by 0: no words;")
