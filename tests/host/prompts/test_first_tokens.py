"""Encoding the first tokens alone gives them the states that they have in the whole text, and leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comfy.clip_model import CLIPTextModel_
from hrv_pack.host.prompts.encoding import word_tokens
from hrv_pack.host.prompts.first_tokens import only_first
from hrv_pack.tests.support.small_host import small_clip_sd15, small_clip_sd20, small_clip_sdxl

TEXT = "a large red circle"
END = 6  # start, four words, end


@pytest.fixture(params=[small_clip_sd15, small_clip_sd20, small_clip_sdxl])
def clip(request: pytest.FixtureRequest) -> Any:
    return request.param()


def widths(clip: Any) -> set[int]:
    """Of how many tokens the first layers of all encoders are given states, from now on."""
    found: set[int] = set()
    for module in clip.cond_stage_model.modules():
        if isinstance(module, CLIPTextModel_):
            module.encoder.layers[0].register_forward_pre_hook(lambda _, args: found.add(args[0].shape[1]))
    return found


def test_tokens_have_the_states_that_they_have_in_the_whole_text(clip: Any) -> None:
    tokens = clip.tokenize(TEXT)
    with torch.inference_mode():
        whole, pooled = clip.encode_from_tokens(tokens, return_pooled=True)
        with only_first(clip, END):
            short, short_pooled = clip.encode_from_tokens(tokens, return_pooled=True)
        again = clip.encode_from_tokens(tokens)
    assert short.shape == whole.shape
    torch.testing.assert_close(short[:, :END], whole[:, :END], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(short_pooled, pooled, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(short[:, END:], whole[:, END:], atol=1e-3)
    assert torch.equal(again, whole)


def test_words_of_concepts_are_encoded_as_far_as_the_last_of_them(clip: Any) -> None:
    words = ["red", "dark blue"]
    with torch.inference_mode():
        whole = word_tokens(clip, words, "a {word} circle")
        found = widths(clip)
        short = word_tokens(clip, words, "a {word} circle", whole=False)
    # Start, a, dark, blue.
    assert found == {4}
    for one, other in zip(short, whole, strict=True):
        torch.testing.assert_close(one.tokens, other.tokens, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(one.start, other.start, atol=1e-5, rtol=1e-4)


def test_nothing_is_left_after_an_error(clip: Any) -> None:
    with pytest.raises(KeyError), only_first(clip, END):
        raise KeyError
    hooks = [
        hook
        for module in clip.cond_stage_model.modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    ]
    assert not hooks
