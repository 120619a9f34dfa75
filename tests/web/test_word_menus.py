"""Fields for words in the real page: the words of the prompt, and what is said about words that are not there."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytestmark = pytest.mark.slow

UNKNOWN = "The words of this prompt are known after a run."


@pytest.mark.parametrize("renderer", ["classic", "nodes2"])
def test_words_of_the_prompt_are_chosen_and_marked_when_they_are_gone(report: dict[str, Any], renderer: str) -> None:
    seen = report["words"][renderer]
    assert seen["offered"] == ["", "*", "a", "red", "striped", "square", "skyscraper", "… type"]
    assert seen["says"] == "no words: no effect"
    assert seen["queued"] == "striped, red"
    assert seen["gone"] == "The prompt does not contain 'striped'. Its words are: a, red, square."
    assert seen["dynamic"] == UNKNOWN


@pytest.mark.parametrize("renderer", ["classic", "nodes2"])
def test_before_a_run_words_are_those_of_the_text_encoder_upstream(report: dict[str, Any], renderer: str) -> None:
    seen = report["words"][renderer]["upstream"]
    assert seen["mini"] == "6 of 14 tokens"
    assert seen["long"] == "20 of 28 tokens in 2 chunks"
    assert seen["chips"] == ["a", "small", "red", "skyscraper", "template"]
    words, tokens = re.fullmatch(r"(\d+) of (\d+) tokens are words", seen["gemma"]).groups()
    assert 4 <= int(words) < int(tokens)
    assert seen["offered"] == ["", "*", "a", "small", "red", "skyscraper", "template", "… type"]
    assert seen["gone"] == seen["none"] == UNKNOWN


def test_a_new_encoder_shows_its_words(report: dict[str, Any]) -> None:
    seen = report["words"]["chips"]
    assert seen["chips"] == ["a", "skyscraper", "(", "red", ")", "car×1.3"]
    assert seen["pieces"] == ["sky", "scra", "per"]
    assert seen["says"].endswith(" of 75 tokens")
    assert seen["long"] == 2


def test_clicks_on_words_add_them_to_the_node_that_reads_the_prompt(report: dict[str, Any]) -> None:
    assert report["words"]["chips"]["clicked"] == ["skyscraper", "skyscraper"]


def test_words_that_a_run_decides_are_known_after_it(report: dict[str, Any]) -> None:
    seen = report["words"]["afterRun"]
    assert seen == {
        "before": UNKNOWN,
        "offered": ["", "*", "a", "red", "… type"],
    }


def test_tokens_of_encoders_that_are_not_clip_are_shown_once_a_run_has_told_them(report: dict[str, Any]) -> None:
    seen = report["words"]["otherEncoder"]
    assert seen["chips"] == ["a", "skyscraper", "template", "padding"]
    assert seen["pieces"] == ["sky", "scraper"]
    assert seen["says"] == "3 of 12 tokens are words"
    assert seen["offered"] == ["", "*", "a", "skyscraper", "template", "padding", "… type"]
    assert seen["clicked"] == "template"
    assert seen["changed"] == UNKNOWN
