"""HRV Tokens, Tag Conditioning and Conditioning Concat on real text encoders and UNets."""

from __future__ import annotations

import logging
from typing import Any

import comfy.hooks
import numpy as np
import pytest
import torch
from comfy_extras.nodes_hooks import SetClipHooks
from hrv_pack.host.prompts.carried import CONTROLS_KEY, TOKEN_MAP_KEY
from hrv_pack.host.prompts.encoding import token_map
from hrv_pack.hrv.errors import HRVError
from hrv_pack.nodes.head_controls import ScaleHeads
from hrv_pack.nodes.text_encode import TextEncode
from hrv_pack.nodes.tokens import ConditioningConcat, TagConditioning, Tokens
from hrv_pack.tests.support.small_host import (
    Rescaling,
    encoded,
    latents,
    picture,
    relative_error,
    small_clip_sdxl,
    with_explicit_maps,
)
from hrv_pack.tests.support.small_transformers import small_clip_flux

from nodes import CLIPTextEncode, ConditioningCombine, ConditioningSetArea
from nodes import ConditioningConcat as HostConcat

FIRST, SECOND = "a red car", "skyscrapers and a red boat"
UNTAGGED = "does not say which token belongs to which word. Encode the prompt with the node 'CLIP Text Encode .HRV.'"


@pytest.fixture(scope="module")
def clips(clip: Any) -> dict[str, Any]:
    return {"sd15": clip, "sdxl": small_clip_sdxl()}


def scaled(
    model: Any, conditioning: Any, words: str, *, heads: str = "all", factor: float = 0.0, **changes: Any
) -> Any:
    options = {"strength": 1.0, "start": 0.0, "end": 1.0, **changes}
    return ScaleHeads.execute(
        model=model, conditioning=conditioning, words=words, heads=heads, factor=factor, **options
    ).result


def shown(conditioning: Any) -> str:
    output = Tokens.execute(conditioning)
    assert output.ui == {"text": [output.result[0]]}
    return output.result[0]


def concatenated(conditioning_to: Any, conditioning_from: Any) -> Any:
    (joined,) = ConditioningConcat.execute(conditioning_to, conditioning_from).result
    return joined


def words_of(conditioning: Any) -> Any:
    return conditioning[0][1][TOKEN_MAP_KEY]


def test_tokens_shows_every_word_with_its_positions_and_pieces(clips: dict[str, Any]) -> None:
    for clip in clips.values():
        (prompt,) = TextEncode.execute(clip, "(Rose-colored:1.2) skyscrapers").result
        assert shown(prompt).splitlines() == [
            "rose: 1",
            "-: 2",
            "colored: 3",
            "skyscrapers: 4 sky, 5 scrap, 6 ers",
            "",
            "No controls.",
        ]
    assert shown(encoded(clips["sd15"], "")) == "No words.\n\nNo controls."


def test_tokens_shows_the_controls_in_the_order_of_their_nodes(model: Any, clip: Any) -> None:
    _, prompt = scaled(model, encoded(clip, FIRST), "red car", heads="mid", strength=0.5, end=0.25)
    _, prompt = scaled(model, prompt, "*", heads="up0-1:2", factor=-1.5)
    assert shown(prompt).splitlines()[-2:] == [
        'scale mid by 0: "red car"; strength 0.5; progress 0 to 0.25',
        "scale up0-1:2 by -1.5: all words; strength 1; progress 0 to 1",
    ]


def test_tokens_shows_entries_that_differ_and_only_those(model: Any, clip: Any) -> None:
    hooks = comfy.hooks.create_hook_lora({}, 1.0, 1.0)
    keyframes = comfy.hooks.HookKeyframeGroup()
    for start, strength in ((0.0, 1.0), (0.5, 0.5)):
        keyframes.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
    hooks.set_keyframes_on_hooks(keyframes)
    (scheduled,) = SetClipHooks().apply_hooks(clip, schedule_clip=True, apply_to_conds=True, hooks=hooks)
    _, prompt = scaled(model, encoded(scheduled, FIRST), "red")
    assert len(prompt) == 2
    one = 'a: 1\nred: 2\ncar: 3\n\nscale all by 0: "red"; strength 1; progress 0 to 1'
    assert shown(prompt) == one
    (both,) = ConditioningCombine().combine(prompt, encoded(clip, "boat"))
    assert shown(both) == f"{one}\n\nboat: 1\n\nNo controls."


@pytest.mark.parametrize(
    ("words", "positions"),
    [
        ("red, shiny", (2, 4)),
        (r"red\, shiny", (2, 3, 4)),
        (r"red\,shiny car, tree", (2, 3, 4, 5, 8)),
        (r" \, ", (3, 6)),
        (",, red ,", (2,)),
        ("*, car", (1, 2, 3, 4, 5, 6, 7, 8)),
        ("", ()),
    ],
)
def test_a_phrase_may_have_commas_of_its_own(model: Any, clip: Any, words: str, positions: tuple[int, ...]) -> None:
    _, prompt = scaled(model, encoded(clip, "a (red:1.2), shiny car, a tree"), words)
    assert prompt[0][1][CONTROLS_KEY][0].positions == positions


def test_tokens_of_an_untagged_prompt_are_refused(clip: Any) -> None:
    (plain,) = CLIPTextEncode().encode(clip, FIRST)
    with pytest.raises(HRVError, match=UNTAGGED):
        Tokens.execute(plain)
    with pytest.raises(HRVError, match=UNTAGGED):
        Tokens.execute([*encoded(clip, FIRST), *plain])


def test_a_tagged_prompt_is_one_of_our_own(clips: dict[str, Any]) -> None:
    for clip in clips.values():
        (plain,) = CLIPTextEncode().encode(clip, "a (red:1.3) car")
        before = picture(plain)
        (tagged,) = TagConditioning.execute(plain, clip, "a (red:1.3) car").result
        (own,) = TextEncode.execute(clip, "a (red:1.3) car").result
        assert picture(plain) == before
        assert tagged[0][0] is plain[0][0] and torch.equal(tagged[0][0], own[0][0])
        assert words_of(tagged) == words_of(own)
        assert tagged[0][1].keys() == own[0][1].keys()


def test_controls_work_on_what_other_nodes_made(model: Any, clip: Any) -> None:
    (plain,) = CLIPTextEncode().encode(clip, FIRST)
    (area,) = ConditioningSetArea().append(plain, 64, 64, 0, 0, 1.0)
    (tagged,) = TagConditioning.execute(area, clip, FIRST).result
    controlled, positive = scaled(model, tagged, "red")
    exact = with_explicit_maps(model, [Rescaling(plain[0][0][0], (2,), np.zeros(56))])
    negative = encoded(clip, "ugly")
    found = latents(controlled, positive, negative)
    assert relative_error(found, latents(exact, area, negative)) <= 1e-4
    assert relative_error(found, latents(model, area, negative)) > 1e-2


def test_tagging_with_a_longer_text_is_refused(clip: Any) -> None:
    with pytest.raises(HRVError, match="has 77 tokens, but this text has 154 in chunks of 77"):
        TagConditioning.execute(encoded(clip, "a"), clip, "a " * 100)


def test_whole_chunks_behind_those_of_the_text_are_taken_for_concatenated_ones(clip: Any) -> None:
    (tagged,) = TagConditioning.execute(encoded(clip, "a " * 100), clip, "a").result
    assert words_of(tagged).content_positions == (1,)


def test_tagging_refuses_tensors_that_no_clip_made(clip: Any) -> None:
    with pytest.raises(HRVError, match=r"has 100 tokens, but this text has 77 .* Connect the CLIP"):
        TagConditioning.execute([[torch.zeros(1, 100, 16), {}]], clip, FIRST)
    with pytest.raises(HRVError, match="There is no text encoder"):
        TagConditioning.execute(encoded(clip, FIRST), None, FIRST)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_concatenating_makes_the_hosts_tensor_and_keeps_everything_else(clips: dict[str, Any], kind: str) -> None:
    clip = clips[kind]
    (area,) = ConditioningSetArea().append(encoded(clip, FIRST), 64, 64, 0, 0, 1.0)
    to = [*encoded(clip, "a " * 80), *area]
    behind = encoded(clip, SECOND)
    before = picture([to, behind])
    (expected,) = HostConcat().concat(to, behind)
    found = concatenated(to, behind)
    assert picture([to, behind]) == before
    assert len(found) == len(expected) == 2
    for (tensor, extras), (host_tensor, host_extras) in zip(found, expected, strict=True):
        assert torch.equal(tensor, host_tensor)
        others = extras.keys() - {TOKEN_MAP_KEY, CONTROLS_KEY}
        assert others == host_extras.keys() - {TOKEN_MAP_KEY}
        assert all(picture(extras[key]) == picture(host_extras[key]) for key in others)


def test_of_several_entries_to_append_the_first_is_taken_and_said(clip: Any, caplog: pytest.LogCaptureFixture) -> None:
    several = [*encoded(clip, SECOND), *encoded(clip, "a tree")]
    with caplog.at_level(logging.WARNING):
        found = concatenated(encoded(clip, FIRST), several)
    assert "conditioning_from has 2 entries; only the first is appended" in caplog.text
    (expected,) = HostConcat().concat(encoded(clip, FIRST), several)
    assert torch.equal(found[0][0], expected[0][0])
    assert [word.text for word in words_of(found).words][3:] == SECOND.split()


def test_concatenated_words_are_found_in_both_prompts(clip: Any) -> None:
    long = encoded(clip, f"{FIRST}, " + "very " * 80)
    joined = words_of(concatenated(long, encoded(clip, SECOND)))
    assert joined.length == 3 * 77
    assert joined.find("red") == (2, 2 * 77 + 6)
    assert joined.find("red", 2) == (2 * 77 + 6,)
    assert joined.find("skyscrapers") == (155, 156, 157)
    third = words_of(concatenated(concatenated(long, encoded(clip, SECOND)), encoded(clip, "tree")))
    assert third.find("tree") == (3 * 77 + 1,)


def test_words_are_found_behind_chunks_that_belong_to_no_word(clip: Any) -> None:
    """A tagged conditioning may be longer than its text; what is appended begins behind all of it."""
    (made,) = HostConcat().concat(encoded(clip, FIRST), encoded(clip, "a tree"))
    assert words_of(concatenated(made, encoded(clip, SECOND))).find("skyscrapers") == (155, 156, 157)


def test_the_controls_of_both_prompts_act_on_their_own_words(model: Any, clip: Any) -> None:
    first, second, negative = encoded(clip, FIRST), encoded(clip, SECOND), encoded(clip, "ugly")
    controlled, to = scaled(model, first, "red", heads="down", factor=2.0)
    controlled, behind = scaled(controlled, second, "skyscrapers", heads="mid up", factor=-1.0, end=0.5)
    controlled, behind = scaled(controlled, behind, "boat", factor=0.5)
    joined = concatenated(to, behind)
    labels = [(control.label, control.positions) for control in joined[0][1][CONTROLS_KEY]]
    assert labels == [("scale down by 2", (2,)), ("scale mid up by -1", (78, 79, 80)), ("scale all by 0.5", (84,))]
    controlled, joined = scaled(controlled, joined, "red", heads="mid", factor=3.0, occurrence="2")

    (plain,) = HostConcat().concat(first, second)
    down, mid, everywhere = (np.ones(56) for _ in range(3))
    down[:16], mid[16:24], everywhere[:] = 2.0, 3.0, 0.5
    rest = np.where(np.arange(56) < 16, 1.0, -1.0)
    context = plain[0][0][0]
    exact = with_explicit_maps(
        model,
        [
            Rescaling(context, (2,), down),
            Rescaling(context, (78, 79, 80), rest, (0.0, 0.5)),
            Rescaling(context, (84,), everywhere),
            Rescaling(context, (83,), mid),
        ],
    )
    found = latents(controlled, joined, negative, steps=4)
    expected = latents(exact, plain, negative, steps=4)
    assert relative_error(found, expected) <= 1e-4
    assert relative_error(latents(controlled, concatenated(to, second), negative, steps=4), expected) > 1e-2
    assert relative_error(latents(model, plain, negative, steps=4), expected) > 1e-2


def test_a_shifted_control_is_the_same_but_for_its_positions(model: Any, clip: Any) -> None:
    _, behind = scaled(model, encoded(clip, SECOND), "boat", strength=0.5, start=0.25)
    (own,) = behind[0][1][CONTROLS_KEY]
    (moved,) = concatenated(encoded(clip, FIRST), behind)[0][1][CONTROLS_KEY]
    assert own.positions == (7,) and moved.positions == (84,)
    assert np.array_equal(moved.weights, own.weights)
    assert (moved.label, moved.window, moved.layout) == (own.label, own.window, own.layout)


@pytest.mark.parametrize("untagged", ["conditioning_to", "conditioning_from"])
def test_concatenating_needs_the_words_of_both(clip: Any, untagged: str) -> None:
    (plain,) = CLIPTextEncode().encode(clip, FIRST)
    inputs = {"conditioning_to": encoded(clip, FIRST), "conditioning_from": encoded(clip, SECOND), untagged: plain}
    with pytest.raises(HRVError, match=f"^{untagged} {UNTAGGED}"):
        ConditioningConcat.execute(**inputs)


def test_the_page_is_told_the_tokens_of_encoders_that_it_does_not_know(clips: dict[str, Any]) -> None:
    assert TextEncode.execute(clips["sd15"], FIRST).ui == {"hrv_text": [FIRST], "hrv_encoder": ["clip"]}
    told = TextEncode.execute(small_clip_flux(), "an antique rose-colored skyscraper").ui
    (tokens,) = told["hrv_tokens"]
    words = token_map(small_clip_flux(), "an antique rose-colored skyscraper")
    assert [(word["text"], word["positions"]) for word in tokens["words"]] == [
        (word.text, list(word.positions)) for word in words.words
    ]
    assert tokens["length"] == tokens["chunk"] == words.length
    assert tokens["groups"] == {name: len(positions) for name, positions in words.groups if positions} != {}


def test_hrv_tokens_shows_the_tokens_of_a_transformers_encoder() -> None:
    (conditioning,) = TextEncode.execute(small_clip_flux(), FIRST).result
    (text,) = Tokens.execute(conditioning).result
    assert text.startswith(token_map(small_clip_flux(), FIRST).describe())
    assert "(padding)" in text and "car" in text
