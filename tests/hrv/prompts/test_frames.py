"""Sentence frames: what is read and what is refused."""

from __future__ import annotations

import time

import pytest
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.prompts.frames import DEFAULT_FRAMES, MOST_FRAMES, fill, parse_frames


def test_one_frame_a_line_is_read_and_filled() -> None:
    frames = parse_frames("\n  a  photo of a {word}, at night \r\n\n{word}\n“{word}” in neon\n")
    assert frames == ("a photo of a {word}, at night", "{word}", "“{word}” in neon")
    assert [fill(frame, "{word} 1") for frame in frames][:2] == ["a photo of a {word} 1, at night", "{word} 1"]


def test_the_default_is_read_as_it_is() -> None:
    assert parse_frames("\n".join(DEFAULT_FRAMES)) == DEFAULT_FRAMES
    assert len(parse_frames("\n".join(f"{'so ' * count}{{word}}" for count in range(MOST_FRAMES)))) == MOST_FRAMES


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "There are no sentence frames. Write one sentence a line, such as: a photo of a {word}"),
        (" \n\n\t", "There are no sentence frames"),
        ("{word}\na photo of a cat", "Line 2 of the sentence frames, 'a photo of a cat', has no {word}"),
        ("a {Word}", "has no {word}"),
        ("a {word} and a {word}", "has 2 times {word}, but a sentence needs it once"),
        ("a photo of {word}s", "has letters right beside {word}: leave a space"),
        ("pre{word}", "has letters right beside {word}"),
        ("a ({word}:1.3) car", "has a bracket, a backslash or half a character"),
        ("a {word} \\", "has a bracket"),
        ("a {word} \ud800", "has a bracket"),
        ("a {word}\n\nA  {word} ", "Line 3 of the sentence frames repeats 'A {word}'"),
        ("a" * 301, "Line 1 of the sentence frames has 301 characters; at most 300"),
        ("\n".join(f"{'so ' * count}{{word}}" for count in range(13)), "There are more than 12 sentence frames"),
    ],
)
def test_what_is_no_frame_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(HRVError) as caught:
        parse_frames(text)
    assert sentence in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("text", ["{word}" * 200_000, "\n" * 2_000_000, "a {word}\n" * 200_000, "{" * 2_000_000])
def test_long_texts_are_read_or_refused_at_once(text: str) -> None:
    before = time.process_time()
    with pytest.raises(HRVError):
        parse_frames(text)
    assert time.process_time() - before < 2
