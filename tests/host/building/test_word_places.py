"""Pairs of prompts by what their tokens are: of every family's tokenizer, and the same as ever for CLIP's."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.text_encoders.lumina2
import pytest
import torch
from comfy.sd1_clip import SD1Tokenizer
from comfy.sdxl_clip import SDXLTokenizer
from hrv_pack.host.building.causal import build_causal_hrv
from hrv_pack.host.building.word_places import WordPlaces
from hrv_pack.host.files.folders import PRESETS
from hrv_pack.host.mini.loader import TRANSFORMER_WEIGHTS, WEIGHTS, load_mini
from hrv_pack.host.prompts.encoding import token_map
from hrv_pack.hrv.building.pairs import Example, Pair, draw_pairs, examples_of
from hrv_pack.hrv.prompts.frames import DEFAULT_FRAMES
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
from hrv_pack.hrv.scoring.experiments import parse_experiment
from hrv_pack.tests.host.building.test_transformers import SHORTEST
from hrv_pack.tests.support.family_tokenizers import clip_of, clip_with
from hrv_pack.tests.support.sentence_piece import sentence_piece_model
from hrv_pack.tests.support.small_transformers import SHALLOW_Z_IMAGE, small, small_clip_z_image
from hrv_pack.tests.support.tekken import flux_2_tokenizer

VOCABULARY = parse_vocabulary((PRESETS / "vocabularies" / "paper-34-concepts.txt").read_text(encoding="utf-8"))
EXAMPLES = examples_of(VOCABULARY, DEFAULT_FRAMES)
WORDS = [word for _, words in VOCABULARY for word in words]


def drawn(clip: Any, pairs: int = 16) -> list[Pair]:
    places = WordPlaces(clip)
    return [pair for name, examples in EXAMPLES.items() for pair in draw_pairs(name, examples, places, pairs, 0)]


def gemma() -> Any:
    """As published, without a space in front of a text; every second word is a token of its own behind a space."""
    corpus = [f"a photo of a {word}" for word in WORDS[::2]] * 3 + WORDS
    model = sentence_piece_model(corpus, vocab_size=700, add_dummy_prefix=False)
    return clip_with(comfy.text_encoders.lumina2.LuminaTokenizer(tokenizer_data={"spiece_model": model}))


def mistral() -> Any:
    return clip_with(flux_2_tokenizer([" photo", " of", " a", *(f" {word}" for word in WORDS[::2])]))


CLIPS: dict[str, Callable[[], Any]] = {
    **{name: functools.partial(clip_of, name) for name in ("Z-Image", "Qwen-Image", "Flux.2 Klein", "Anima", "Flux.1")},
    "Lumina 2": gemma,
    "Flux.2 dev": mistral,
}


@pytest.mark.parametrize("family", CLIPS)
def test_the_prompts_of_every_pair_have_the_same_tokens_but_for_the_word(family: str) -> None:
    clip = CLIPS[family]()
    pairs = drawn(clip)
    assert len(pairs) == 16 * len(VOCABULARY)
    for pair in pairs:
        a, b = (clip.tokenize(prompt) for prompt in pair.prompts)
        lengths = [[len(chunk) for chunk in chain(*tokens.values())] for tokens in (a, b)]
        assert lengths[0] == lengths[1], pair.prompts
        maps = [token_map(clip, prompt) for prompt in pair.prompts]
        own = [tokens.find_words(word)[-1] for tokens, word in zip(maps, pair.words, strict=True)]
        places = [tuple(chain.from_iterable(word.positions for word in words)) for words in own]
        assert places[0] == places[1], pair.prompts
        if family == "Anima":
            continue  # its places are those of T5 alone
        (name,) = [name for name in a if name != "l"]
        ids = [[token for token, _ in tokens[name][0]] for tokens in (a, b)]
        differ = {place for place, (one, other) in enumerate(zip(*ids, strict=True)) if one != other}
        dropped = 34 if family == "Qwen-Image" else 0
        assert differ <= {dropped + place for place in places[0]}, pair.prompts


def test_words_that_are_split_alike_behind_a_space_alone_are_compared_there_alone() -> None:
    """Qwen has a token for " whale"; "wh" and "ale", "z" and "ebra" are two in both places."""
    places = WordPlaces(clip_of("Z-Image"))
    words = ("whale", "zebra", "red")
    alone = [len(places(Example(word, word), "").own) for word in words]
    behind = [len(places(Example(f"a {word}", word), "a ").own) for word in words]
    assert alone == [2, 2, 1] and behind == [1, 2, 1]


def test_the_place_of_a_word_is_that_behind_the_text_in_front_of_it() -> None:
    places = WordPlaces(clip_with_cond(SD1Tokenizer()))
    example = Example("a red car, red sky", "red")
    assert places(example, "a ").own == (2,) and places(example, "a red car, ").own == (5,)


def clip_with_cond(tokenizer: Any) -> Any:
    """A CLIP of CLIP's encoders, which are told by the names in its model."""
    clip = clip_with(tokenizer)
    clip.cond_stage_model = SimpleNamespace(clip_l=None, clip_g=None)
    return clip


@pytest.mark.parametrize("tokenizer", [SD1Tokenizer, SDXLTokenizer])
def test_the_pairs_of_clip_stay_what_they_were(tokenizer: type) -> None:
    """A build under way would begin again, and shards of two versions would not be of one whole."""
    listed = [[pair.concept, *pair.prompts] for pair in drawn(clip_with_cond(tokenizer()))]
    assert hashlib.sha256(json.dumps(listed).encode()).hexdigest().startswith("eedb103eeea07e29")


@pytest.mark.parametrize(
    ("weights", "name"), [(WEIGHTS, "hrv-mini-causal"), (TRANSFORMER_WEIGHTS, "hrv-mini-t-causal")]
)
def test_the_hrvs_that_ship_are_of_the_pairs_that_are_drawn_today(weights: Path, name: str) -> None:
    clip = load_mini(weights)[1]
    made = load_hrv(PRESETS / "hrvs" / f"{name}.safetensors").provenance
    experiment = parse_experiment((PRESETS / "experiments" / "hrv-mini.txt").read_text(encoding="utf-8"))
    places = WordPlaces(clip)
    by_concept = [
        draw_pairs(
            concept,
            [Example(case.prompt, case.target) for case in experiment.of(concept)],
            places,
            made["pairs"],
            made["seed"],
        )
        for concept in experiment.concepts
    ]
    listed = [[pair.concept, *pair.prompts] for together in zip(*by_concept, strict=True) for pair in together]
    assert listed == [list(one) for one in made["prompts"]]


@pytest.mark.slow
def test_a_build_with_the_words_that_ship_gets_to_its_end(tmp_path: Path) -> None:
    with torch.inference_mode():
        built = build_causal_hrv(
            small(SHALLOW_Z_IMAGE), small_clip_z_image(), EXAMPLES, SHORTEST, states=tmp_path / "states"
        )
    assert built.hrv.concepts == VOCABULARY.names
    for one in built.report.concepts:
        assert one.checked == 1 and abs(sum(share or 0.0 for share in one.groups.values()) - 1.0) < 0.5, one
