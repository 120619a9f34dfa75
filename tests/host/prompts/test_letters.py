"""Words in the tokens of T5, Qwen, SentencePiece and Mistral, against what the tokens themselves spell."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import comfy.text_encoders.sd3_clip
import pytest
import torch
from hrv_pack.host.prompts import letters
from hrv_pack.host.prompts.encoding import tag_conditioning, token_map, word_tokens
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.prompts.tokens import TokenMap, find_phrases
from hrv_pack.tests.support.family_tokenizers import FAMILIES, TEXT, clip_of

WORDS = ["rose", "colored", "vase", "red", "skyscraper", "7", "girl", "nice", "and", "é", "😀"]


each_family = pytest.mark.parametrize("family", FAMILIES)


def spelled(clip: Any, family: str, positions: tuple[int, ...]) -> str:
    """What the tokens at positions of the text spell."""
    name = FAMILIES[family][1]
    chunk = clip.tokenize(TEXT)[name.removeprefix("clip_")][0]
    tokenizer = getattr(clip.tokenizer, name).tokenizer
    dropped = 34 if family == "Qwen-Image" else 0
    text: str = tokenizer.decode([chunk[dropped + position][0] for position in positions])
    return text.strip()


@each_family
def test_the_tokens_of_every_word_spell_it(family: str) -> None:
    clip = clip_of(family)
    words = token_map(clip, TEXT)
    for word in WORDS:
        if family in ("Anima", "Cosmos", "Flux.1", "Chroma") and word == "😀":
            continue  # unknown to T5
        assert spelled(clip, family, words.find(word)).strip("\"'(),-— ") == word, word
    assert spelled(clip, family, words.find("rose-colored")) == "rose-colored"
    assert len(words.find_words("a")) == 2


@each_family
def test_every_place_of_the_text_is_of_a_word_or_in_a_group(family: str) -> None:
    _, name, first, length = FAMILIES[family]
    clip = clip_of(family)
    words = token_map(clip, TEXT)
    groups = dict(words.groups)
    named = [*words.content_positions, *groups["template"], *groups["padding"]]
    assert len(named) == len(set(named)) and words.content_positions[0] == first
    chunk = clip.tokenize(TEXT)[name.removeprefix("clip_")][0]
    assert words.length == max(length, len(chunk)) - (34 if family == "Qwen-Image" else 0)
    # What is left over are spaces of the prompt alone.
    left = sorted(set(range(words.length)) - set(named))
    assert all(spelled(clip, family, (position,)) == "" for position in left)
    for name, positions in words.groups:
        assert not positions or find_phrases(words, [name]) == positions
    assert find_phrases(words, ["*"]) == words.content_positions


def test_templates_and_padding_can_be_named_unless_the_prompt_has_that_word() -> None:
    words = token_map(clip_of("Flux.2 Klein"), "a red car")
    assert words.find("template") == (0, 1, 2, *range(6, 15)) and words.find("Padding") == tuple(range(15, 512))
    assert "(template): 0-2, 6-14" in words.describe() and "(padding): 15-511" in words.describe()
    named = token_map(clip_of("Flux.2 Klein"), "a template of steel")
    assert named.find("template") == (4,)


@pytest.mark.parametrize("family", ["Flux.2 dev", "Z-Image"])
def test_padding_that_the_model_adds_cannot_be_named(family: str) -> None:
    words = token_map(clip_of(family), "a red car")
    assert words.find("template")
    with pytest.raises(HRVError, match=r"^The text encoder adds no padding to this prompt\. What the model"):
        words.find("padding")
    assert token_map(clip_of(family), "a padding").find("padding")


def test_words_behind_signs_are_found_with_and_without_them() -> None:
    words = token_map(clip_of("Z-Image"), "rose-colored")
    assert [(word.text, word.signs) for word in words.words] == [("rose", ""), ("colored", "-")]
    assert words.find("rose-colored") == (3, 4) and words.find("colored") == words.find("-colored") == (4,)
    with pytest.raises(HRVError, match="does not contain"):
        words.find("rosecolored")


def test_scripts_without_spaces_have_a_word_for_each_letter() -> None:
    words = token_map(clip_of("Z-Image"), "一辆红色的车")
    assert words.find("车") and set(words.find("红色")) < set(words.content_positions)


@each_family
def test_weights_that_count_for_nothing_are_said(family: str, caplog: pytest.LogCaptureFixture) -> None:
    clip, text = clip_of(family), "a (red:1.3) car"
    with caplog.at_level(logging.WARNING):
        length = token_map(clip, text).length
        assert not caplog.text  # who only looks for words, as the page does, isn't told
        tag_conditioning([[torch.zeros(1, length, 1), {}]], clip, text)
    honours = family not in ("Z-Image", "Flux.2 Klein", "Flux.2 dev", "Qwen-Image")
    assert ("has no weights: (red:1.3) is read as it is written" in caplog.text) == (not honours)


def test_what_was_not_made_from_the_text_is_refused() -> None:
    clip = clip_of("Flux.1")
    with pytest.raises(HRVError, match="it wasn't made from this text"):
        tag_conditioning([[torch.zeros(1, 77, 8), {}]], clip, "a red car")
    ((_, extras),) = tag_conditioning([[torch.zeros(1, 256, 8), {}]], clip, "a red car")
    assert isinstance(extras["hrv_token_map"], TokenMap)
    # Anima's conditioning holds the states of another encoder.
    assert tag_conditioning([[torch.zeros(1, 5, 8), {}]], clip_of("Anima"), "a red car")


def test_textual_inversions_and_other_tokenisers_are_refused() -> None:
    with pytest.raises(HRVError, match="textual inversion"):
        token_map(clip_of("Flux.1"), "a embedding:thing car")
    clip = clip_of("Flux.1")
    tokenize = clip.tokenize
    clip.tokenize = lambda text, **kwargs: tokenize(text.replace("red", "blue"), **kwargs)
    with pytest.raises(HRVError, match="tokenises this prompt otherwise"):
        token_map(clip, "a red car")
    with pytest.raises(HRVError, match="needs a CLIP text encoder"):
        word_tokens(clip_of("Flux.1"), ["red"])


def test_encoders_whose_text_has_every_word_twice_are_not_read() -> None:
    assert not letters.reads(["l", "g", "t5xxl"]) and letters.reads(["l", "t5xxl"])
    tokenizer = comfy.text_encoders.sd3_clip.SD3Tokenizer()
    clip = SimpleNamespace(tokenizer=tokenizer, tokenize=tokenizer.tokenize_with_weights)
    with pytest.raises(HRVError, match=r"l, g, t5xxl|g, l, t5xxl"):
        token_map(clip, "a red car")
