"""Token maps against the host's real tokenizers and narrow random-weight text models of its own classes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import comfy.hooks
import comfy.sd
import pytest
import torch
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.sdxl_clip import SDXLClipModel, SDXLRefinerClipModel, SDXLTokenizer
from comfy.text_encoders.sd2_clip import SD2ClipModel, SD2Tokenizer
from comfy.text_encoders.sd3_clip import SD3Tokenizer
from comfy_extras.nodes_hooks import SetClipHooks
from hrv_pack.host.prompts.carried import TOKEN_MAP_KEY
from hrv_pack.host.prompts.encoding import (
    MOST_BRACKETS,
    encode_once,
    encode_prompt,
    tag_conditioning,
    token_map,
    word_tokens,
)
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.prompts.tokens import PromptWord
from hrv_pack.tests.support.small_host import TEXT_WIDTHS, small_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from nodes import CLIPTextEncode, ConditioningConcat

START, END = 49406, 49407


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of textual inversions; each vector is filled with its own number."""
    folder = tmp_path_factory.mktemp("embeddings")

    def vectors(count: int, width: int) -> torch.Tensor:
        return torch.arange(1.0, count + 1.0)[:, None].repeat(1, width)

    save_file({"emb_params": vectors(3, 16)}, folder / "dots.safetensors")
    save_file({"emb_params": vectors(10, 16)}, folder / "long.safetensors")
    save_file({"emb_params": vectors(2, 16)}, folder / "round(1).safetensors")
    save_file({"emb_params": vectors(2, 99)}, folder / "foreign.safetensors")
    save_file({"clip_l": vectors(2, 16), "clip_g": vectors(2, 24)}, folder / "both.safetensors")
    save_file({"clip_l": vectors(2, 16), "clip_g": vectors(3, 24)}, folder / "uneven.safetensors")
    return folder


@pytest.fixture(scope="module")
def clips(embeddings: Path) -> dict[str, Any]:
    """The four kinds of text encoder that are supported."""
    return {
        "sd1": small_clip(SD1Tokenizer, SD1ClipModel, embeddings),
        "sd2": small_clip(SD2Tokenizer, SD2ClipModel, embeddings),
        "sdxl": small_clip(SDXLTokenizer, SDXLClipModel, embeddings),
        "refiner": small_clip(SDXLTokenizer, SDXLRefinerClipModel, embeddings),
    }


@pytest.fixture(scope="module")
def sd1(clips: dict[str, Any]) -> Any:
    return clips["sd1"]


@pytest.fixture(scope="module")
def sdxl(clips: dict[str, Any]) -> Any:
    return clips["sdxl"]


def escaped(text: str) -> str:
    return text.replace("(", r"\(").replace(")", r"\)")


def seen(clip: Any, encoder: str, text: str) -> torch.Tensor:
    """What one encoder gets at every position, before position embeddings: float32 [tokens, C]."""
    chunks = [[token for token, _ in chunk] for chunk in clip.tokenize(text)[encoder]]
    embedded, *_ = getattr(clip.cond_stage_model, f"clip_{encoder}").process_tokens(chunks, "cpu")
    return embedded.flatten(0, 1)


def seen_alone(clip: Any, encoder: str, word: str) -> torch.Tensor:
    """The same for the own tokens of a word that is the whole prompt: float32 [T, C]."""
    tokens = [token for token, _ in clip.tokenize(escaped(word))[encoder][0]]
    end = next(index for index, token in enumerate(tokens) if isinstance(token, int) and token == END)
    return seen(clip, encoder, escaped(word))[1:end]


def assert_true_to_the_host(clip: Any, text: str) -> None:
    """Every word's positions hold the word's tokens and nothing else holds content, in every encoder."""
    words = token_map(clip, text)
    assert all(after > before for before, after in pairwise(words.content_positions))
    outside = sorted(set(range(words.length)) - set(words.content_positions))
    for encoder in encoders_of(clip):
        at = seen(clip, encoder, text)
        assert len(at) == words.length
        for word in words.words:
            assert torch.equal(at[list(word.positions)], seen_alone(clip, encoder, word.text)), word
        padding = getattr(clip.tokenizer, f"clip_{encoder}").pad_token
        special = seen_table(clip, encoder)[[START, END, padding]]
        assert all((at[position] == special).all(dim=1).any() for position in outside)


def encoders_of(clip: Any) -> list[str]:
    return [name for name in TEXT_WIDTHS if hasattr(clip.cond_stage_model, f"clip_{name}")]


def seen_table(clip: Any, encoder: str) -> torch.Tensor:
    return getattr(clip.cond_stage_model, f"clip_{encoder}").transformer.get_input_embeddings().weight


def texts(clip: Any, text: str) -> list[str]:
    return [word.text for word in token_map(clip, text).words]


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "refiner"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("   \n", []),
        ("A Rose-Colored vase", ["a", "rose", "-", "colored", "vase"]),
        ("red, blue", ["red", ",", "blue"]),
        ("the car's door in 1984", ["the", "car", "'s", "door", "in", "1", "9", "8", "4"]),
        ("(red:1.2) car", ["red", "car"]),
        ("(red:1.2)car", ["red", "car"]),
        ("a ((red) (big:0.5)) car", ["a", "red", "big", "car"]),
        ("(ro:1.3)se", ["ro", "se"]),
        (r"\(red\), (blue \(sky\):1.1)", ["(", "red", "),", "blue", "(", "sky", ")"]),
        ("(unclosed:1.2", ["(", "unclosed", ":", "1", ".", "2"]),
        ("antidisestablishmentarianism skyscrapers", ["antidisestablishmentarianism", "skyscrapers"]),
        ("Cafe\u0301  CAFÉ\u3000naïve", ["café", "café", "naïve"]),
        ("红色的花 красный लाल", ["红色的花", "красный", "ल", "ा", "ल"]),
        ("a 👩‍🚀 ❤️ 🧑🏽", ["a", "👩‍🚀", "❤️", "🧑🏽"]),
        ("red<|endoftext|>car <|startoftext|>", ["red", "car"]),
        ("</w> a</w>", ["</", "w", ">", "a", "</", "w", ">"]),
    ],
)
def test_words_come_out_as_the_tokenizer_splits_them(
    clips: dict[str, Any], kind: str, text: str, words: list[str]
) -> None:
    assert texts(clips[kind], text) == words
    assert token_map(clips[kind], text).length == 77
    assert_true_to_the_host(clips[kind], text)


def test_pieces_are_the_tokens_of_a_word(sd1: Any) -> None:
    long_word, chinese = token_map(sd1, "skyscrapers 红").words
    assert long_word == PromptWord("skyscrapers", (1, 2, 3), ("sky", "scrap", "ers"))
    assert chinese == PromptWord("红", (4, 5, 6), (r"\xe7", r"\xba", r"\xa2"))


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "refiner"])
def test_long_prompts_go_on_in_further_chunks(clips: dict[str, Any], kind: str) -> None:
    prompt = token_map(clips[kind], "red " + "a " * 160 + "car")
    assert prompt.length == 3 * 77
    assert prompt.find("red") == (1,)
    assert prompt.find("car") == (2 * 77 + 12,)
    assert prompt.content_positions == (*range(1, 76), *range(78, 153), *range(155, 167))
    assert_true_to_the_host(clips[kind], prompt.text)


def test_a_word_cut_by_the_end_of_a_chunk_is_one_word(sd1: Any) -> None:
    prompt = token_map(sd1, "a " * 74 + "skyscrapers")
    assert prompt.words[-1] == PromptWord("skyscrapers", (75, 78, 79), ("sky", "scrap", "ers"))
    assert_true_to_the_host(sd1, prompt.text)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_a_short_weighted_segment_is_pushed_whole_to_the_next_chunk(clips: dict[str, Any], kind: str) -> None:
    prompt = token_map(clips[kind], "a " * 73 + "(two red cars:1.3) here")
    assert prompt.find("two red cars") == (78, 79, 80)
    assert prompt.find("here") == (81,)
    assert_true_to_the_host(clips[kind], prompt.text)


REAL_PROMPT = (
    r"a ((photo of (a Rose-Colored vase:1.3)):0.9), \(red\) (red:1.2) <b>, красная роза, "
    "embedding:both, an [old] skyscraper's door, " + "very " * 60 + "RED, a rose-colored skyscraper"
)


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
@pytest.mark.parametrize(
    ("phrase", "occurrence", "words"),
    [
        ("photo of a rose-colored VASE", "all", ["photo", "of", "a", "rose", "-", "colored", "vase"]),
        ("red", "all", ["red", "red", "red"]),
        ("red", "first", ["red"]),
        ("(red)", "all", ["(", "red", ")"]),
        (") red", "all", [")", "red"]),
        ("rose-colored", 2, ["rose", "-", "colored"]),
        ("КРАСНАЯ роза", "all", ["красная", "роза"]),
        ("embedding:both", "all", ["embedding:both"]),
        ("[old] skyscraper's", "all", ["[", "old", "]", "skyscraper", "'s"]),
        ("Red, a rose", "all", ["red", ",", "a", "rose"]),
        ("skyscraper", 2, ["skyscraper"]),
    ],
)
def test_phrases_are_found_in_a_real_prompt_at_the_tokens_that_they_have(
    clips: dict[str, Any], kind: str, phrase: str, occurrence: str | int, words: list[str]
) -> None:
    clip = clips[kind]
    prompt = token_map(clip, REAL_PROMPT)
    assert prompt.length == 2 * 77
    found = prompt.find(phrase, occurrence)
    for encoder in encoders_of(clip):
        alone = torch.cat([seen_alone(clip, encoder, word) for word in words])
        assert torch.equal(seen(clip, encoder, REAL_PROMPT)[list(found)], alone)


def test_a_word_that_is_not_in_a_long_prompt_is_refused_with_the_closest_that_are(sdxl: Any) -> None:
    with pytest.raises(HRVError, match=r'does not contain "skyscrapers"\. Its closest words are: "skyscraper", '):
        token_map(sdxl, REAL_PROMPT).find("skyscrapers")
    with pytest.raises(HRVError, match=r'"skyscraper" only 2 times, so there is no occurrence 3'):
        token_map(sdxl, REAL_PROMPT).find("skyscraper", 3)


WORDS = st.sampled_from(
    ["red", "Skyscrapers", "a", "café", "红色", "лошадь", "🧑🏽", "42", "rose-colored", ",", "car's"]
)
WEIGHTS = st.one_of(st.none(), st.floats(0.1, 2.0).map(lambda weight: round(weight, 2)))


@settings(max_examples=25, deadline=None)
@given(
    segments=st.lists(st.tuples(st.lists(WORDS, min_size=1, max_size=6), WEIGHTS), max_size=12),
    kind=st.sampled_from(["sd1", "sdxl"]),
)
def test_the_words_of_any_weighted_prompt_spell_the_prompt(
    clips: dict[str, Any], segments: list[tuple[list[str], float | None]], kind: str
) -> None:
    plain = [" ".join(words) for words, _ in segments]
    text = " ".join(
        segment if weight is None else f"({segment}:{weight})"
        for segment, (_, weight) in zip(plain, segments, strict=True)
    )
    assert "".join(texts(clips[kind], text)) == "".join("".join(plain).lower().split())
    assert_true_to_the_host(clips[kind], text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("embedding:dots", {"embedding:dots": (1, 2, 3)}),
        ("a embedding:dots car", {"a": (1,), "embedding:dots": (2, 3, 4), "car": (5,)}),
        ("a (embedding:dots:1.2) car", {"a": (1,), "embedding:dots": (2, 3, 4), "car": (5,)}),
        ("a embedding:dots, car", {"a": (1,), "embedding:dots": (2, 3, 4), ",": (5,), "car": (6,)}),
        ("embedding:dots.safetensors red", {"embedding:dots.safetensors": (1, 2, 3), "red": (4,)}),
        ("embedding:none embedding:dots red", {"embedding:dots": (1, 2, 3), "red": (4,)}),
        (r"(embedding:round\(1\)) red", {"embedding:round(1)": (1, 2), "red": (3,)}),
        (
            "embedding:dots embedding:both red",
            {"embedding:dots": (1, 2, 3), "embedding:both": (4, 5), "red": (6,)},
        ),
        ("a,embedding:dots", {"a": (1,), ",": (2,), "embedding": (3, 4), ":": (5,), "dots": (6,)}),
    ],
)
def test_a_textual_inversion_is_one_word_named_as_written(
    sd1: Any, text: str, words: dict[str, tuple[int, ...]]
) -> None:
    assert {word.text: word.positions for word in token_map(sd1, text).words} == words
    at = seen(sd1, "l", text)
    for name, positions in words.items():
        if name.startswith("embedding:"):
            assert at[list(positions), 0].tolist() == list(range(1, len(positions) + 1))
        else:
            assert torch.equal(at[list(positions)], seen_alone(sd1, "l", name))


def test_a_textual_inversion_used_twice_is_found_twice_and_may_cross_chunks(sd1: Any) -> None:
    prompt = token_map(sd1, "a " * 70 + "embedding:long, embedding:long red")
    assert prompt.find("embedding:long", 1) == (71, 72, 73, 74, 75, 78, 79, 80, 81, 82)
    assert prompt.find("embedding:long", 2) == tuple(range(84, 94))
    assert prompt.find("red") == (94,)


def test_a_textual_inversion_that_does_not_fit_the_encoder_leaves_no_gap(sd1: Any) -> None:
    prompt = token_map(sd1, "a embedding:foreign red " + "a " * 80 + "car")
    assert prompt.find("red") == (2,)
    assert "embedding:foreign" not in [word.text for word in prompt.words]
    at = seen(sd1, "l", prompt.text)
    for word in ("red", "car"):
        assert torch.equal(at[list(prompt.find(word))], seen_alone(sd1, "l", word))


def test_both_encoders_of_sdxl_must_agree_on_the_positions(sdxl: Any) -> None:
    agreed = token_map(sdxl, "a embedding:both red")
    assert [(word.text, word.positions) for word in agreed.words] == [
        ("a", (1,)),
        ("embedding:both", (2, 3)),
        ("red", (4,)),
    ]
    for name in ("uneven", "dots"):
        with pytest.raises(HRVError, match="g and l of this model put the words of the prompt at different"):
            token_map(sdxl, f"a embedding:{name} red")


def test_the_refiner_asks_only_the_encoder_that_it_has(clips: dict[str, Any]) -> None:
    refiner = clips["refiner"]
    assert token_map(refiner, "a embedding:uneven red").find("red") == (5,)
    assert token_map(refiner, "a embedding:dots red").find("red") == (2,)
    assert torch.equal(seen(refiner, "g", "a embedding:uneven red")[5:6], seen_alone(refiner, "g", "red"))
    assert torch.equal(seen(refiner, "g", "a embedding:dots red")[2:3], seen_alone(refiner, "g", "red"))


def test_an_encoder_with_longer_chunks_serves_as_far_as_the_other_agrees(embeddings: Path) -> None:
    longer = small_clip(SDXLTokenizer, SDXLClipModel, embeddings, clip_l_max_length=248)
    conditioning, words = encode_prompt(longer, "a red car")
    assert words.find("red") == (2,)
    assert conditioning[0][0].shape[1] == words.length == 77
    assert word_tokens(longer, ["red car"])[0].tokens.shape == (2, 40)
    with pytest.raises(HRVError, match="longer chunks"):
        token_map(longer, "a " * 90)
    alone = small_clip(SD1Tokenizer, SD1ClipModel, embeddings, clip_l_max_length=248)
    conditioning, words = encode_prompt(alone, "a " * 90 + "car")
    assert words.find("car") == (91,)
    assert token_map(alone, "a " * 246 + "car").find("car") == (248 + 1,)
    assert conditioning[0][0].shape[1] == words.length == 248


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "refiner"])
@pytest.mark.parametrize("text", ["", "a red car", "a (red:1.4) (car:0.5)", "a (red:1.2) car " * 30])
def test_the_conditioning_is_the_hosts_own_with_the_map_added(clips: dict[str, Any], kind: str, text: str) -> None:
    (expected,) = CLIPTextEncode().encode(clips[kind], text)
    conditioning, words = encode_prompt(clips[kind], text)
    assert words == token_map(clips[kind], text)
    assert len(conditioning) == len(expected) == 1
    (cond, extras), (host_cond, host_extras) = conditioning[0], expected[0]
    assert torch.equal(cond, host_cond)
    assert extras.keys() == host_extras.keys() | {TOKEN_MAP_KEY}
    assert torch.equal(extras["pooled_output"], host_extras["pooled_output"])
    assert extras[TOKEN_MAP_KEY] == words


def test_every_entry_of_a_scheduled_conditioning_carries_the_map(sd1: Any) -> None:
    hooks = comfy.hooks.create_hook_lora({}, 1.0, 1.0)
    keyframes = comfy.hooks.HookKeyframeGroup()
    keyframes.add(comfy.hooks.HookKeyframe(strength=1.0, start_percent=0.0))
    keyframes.add(comfy.hooks.HookKeyframe(strength=0.5, start_percent=0.5))
    hooks.set_keyframes_on_hooks(keyframes)
    (scheduled,) = SetClipHooks().apply_hooks(sd1, schedule_clip=True, apply_to_conds=True, hooks=hooks)
    conditioning, words = encode_prompt(scheduled, "a red car")
    assert [extras["clip_start_percent"] for _, extras in conditioning] == [0.0, 0.5]
    assert all(extras[TOKEN_MAP_KEY] is words for _, extras in conditioning)


def test_tagging_copies_and_shares_only_tensors(sd1: Any) -> None:
    (made,) = CLIPTextEncode().encode(sd1, "a red car")
    made[0][1]["strength"] = 0.5
    before = copy.deepcopy(made)
    tagged = tag_conditioning(made, sd1, "a red car")
    assert made[0][1].keys() == before[0][1].keys()
    assert torch.equal(made[0][0], before[0][0])
    assert tagged[0][0] is made[0][0]
    assert tagged[0][1]["strength"] == 0.5
    assert tagged[0][1][TOKEN_MAP_KEY] == token_map(sd1, "a red car")


def test_tagging_accepts_what_was_concatenated_behind(sd1: Any) -> None:
    first, second = "a red car " * 30, "a blue car"
    (made,) = ConditioningConcat().concat(
        CLIPTextEncode().encode(sd1, first)[0], CLIPTextEncode().encode(sd1, second)[0]
    )
    assert made[0][0].shape[1] == 3 * 77
    assert tag_conditioning(made, sd1, first)[0][1][TOKEN_MAP_KEY].length == 2 * 77


@pytest.mark.parametrize(("text", "tokens", "length"), [("a " * 100, 77, 154), ("a", 100, 77), ("a", 60, 77)])
def test_tagging_refuses_lengths_that_cannot_match(sd1: Any, text: str, tokens: int, length: int) -> None:
    with pytest.raises(HRVError, match=f"has {tokens} tokens, but this text has {length} "):
        tag_conditioning([[torch.zeros(1, tokens, 16), {}]], sd1, text)


@pytest.mark.parametrize(("kind", "width"), [("sd1", 16), ("sd2", 16), ("sdxl", 40), ("refiner", 24)])
@pytest.mark.parametrize(("word", "count"), [("red", 1), ("oak tree", 2), ("Skyscrapers", 3), ("rose-colored", 3)])
def test_a_word_alone_gives_its_own_tokens_and_the_start(
    clips: dict[str, Any], kind: str, width: int, word: str, count: int
) -> None:
    _, (tokens, start), _ = word_tokens(clips[kind], ["a much longer word", word, "embedding"])
    (host,) = CLIPTextEncode().encode(clips[kind], word)
    assert tokens.shape == (count, width) and start.shape == (1, width)
    assert tokens.dtype == start.dtype == torch.float32
    torch.testing.assert_close(tokens, host[0][0][0, 1 : count + 1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(start, host[0][0][0, :1], rtol=1e-5, atol=1e-6)
    ((alone, _),) = word_tokens(clips[kind], [word])
    assert torch.equal(alone, host[0][0][0, 1 : count + 1])


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl", "refiner"])
@pytest.mark.parametrize("frame", ["a photo of a {word}", "{word}, at night", "the {word}'s door"])
@pytest.mark.parametrize("word", ["red", "rose-colored skyscrapers", "photo", "(red:1.2)", "红"])
def test_a_word_in_a_sentence_is_found_there(clips: dict[str, Any], kind: str, frame: str, word: str) -> None:
    (own, start), _ = word_tokens(clips[kind], [word, "a much longer word"], frame)
    sentence = frame.replace("{word}", word)
    (host,) = CLIPTextEncode().encode(clips[kind], sentence)
    before = len(token_map(clips[kind], frame.partition("{word}")[0]).content_positions)
    count = len(token_map(clips[kind], word).content_positions)
    assert own.shape[0] == count
    torch.testing.assert_close(own, host[0][0][0, 1 + before : 1 + before + count], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(start, host[0][0][0, :1], rtol=1e-5, atol=1e-6)


def test_a_textual_inversion_can_be_a_concept_word(sd1: Any) -> None:
    for frame in ("{word}", "a photo of {word} here"):
        assert word_tokens(sd1, ["embedding:dots"], frame)[0].tokens.shape == (3, 16)


@pytest.mark.parametrize("word", ["", " ", "<|endoftext|>", "embedding:foreign"])
def test_a_concept_word_without_tokens_is_refused_by_name(sd1: Any, word: str) -> None:
    for frame in ("{word}", "a photo of {word}, at night"):
        with pytest.raises(HRVError) as error:
            word_tokens(sd1, ["red", word], frame)
        assert f"The concept-word {word!r} has no token" in str(error.value)


def test_brackets_inside_each_other_have_a_limit_that_is_said(sd1: Any) -> None:
    """Thousands made the host's reader call itself until Python gave up."""

    def nested(brackets: int) -> str:
        return "(" * brackets + "a red car" + ")" * brackets

    assert [word.text for word in token_map(sd1, nested(MOST_BRACKETS)).words] == ["a", "red", "car"]
    assert token_map(sd1, r"\(" * 600 + "car" + r"\)" * 600).words
    for text in (nested(501), nested(50_000), "a (b) " + nested(3000)):
        started = time.process_time()
        for read in (token_map, encode_prompt, encode_once):
            with pytest.raises(HRVError, match=r"has \d+ brackets inside each other, and ComfyUI can read at most 500"):
                read(sd1, text)
        assert time.process_time() - started < 2


def test_a_concept_word_of_more_than_a_chunk_is_refused(sd1: Any) -> None:
    assert len(word_tokens(sd1, ["a " * 75])[0].tokens) == 75
    with pytest.raises(
        HRVError, match=r"'red red .* has 76 tokens, more than fit into one chunk .*77 with start and end"
    ):
        word_tokens(sd1, ["red " * 76])
    with pytest.raises(
        HRVError, match=r"'red red .* in 'a photo of {word}' has 76 tokens, more than fit into one chunk"
    ):
        word_tokens(sd1, ["red " * 73], "a photo of {word}")


@pytest.mark.parametrize(
    "use",
    [
        token_map,
        encode_prompt,
        lambda clip, text: word_tokens(clip, [text]),
        lambda clip, text: tag_conditioning([], clip, text),
    ],
)
def test_other_text_encoders_are_refused_with_those_that_work(use: Callable[[Any, str], Any]) -> None:
    both = comfy.sd.CLIP(no_init=True)
    both.tokenizer, both.tokenizer_options = SD3Tokenizer(), {}
    with pytest.raises(HRVError, match=r"this text encoder \(g, l, t5xxl\)\. Supported are the CLIP"):
        use(both, "a red car")
    with pytest.raises(HRVError, match="There is no text encoder"):
        use(None, "a red car")
