"""Tokenizers of the host's own classes for every family whose words are found by their letters.

Imported as ``hrv_pack.tests.support.family_tokenizers``. Those whose models come with published weights have small ones
of the same formats.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import comfy.text_encoders.anima
import comfy.text_encoders.cosmos
import comfy.text_encoders.flux
import comfy.text_encoders.lumina2
import comfy.text_encoders.pixart_t5
import comfy.text_encoders.qwen_image
import comfy.text_encoders.wan
import comfy.text_encoders.z_image

from .sentence_piece import sentence_piece_model
from .tekken import flux_2_tokenizer

TEXT = 'A rose-colored "vase", a (red:1.3) skyscraper, 7girl — \\(nice\\) and é 😀'
_CORPUS = (*(TEXT.lower(), "a red car and a blue tree", "the girl sees a tall skyscraper", "nice vases of roses"),) * 9

# What has a token of its own in Mistral's model; everything else is spelled in bytes.
MERGED = ["A", " a", " rose", "-colored", " red", "red", "girl", "nice", " image", " You", " structured"]
ENCODERS = comfy.text_encoders
# The tokenizer of a family, the encoder that is read, where the words begin, and the length of the text.
FAMILIES: dict[str, tuple[Callable[[], Any], str, int, int]] = {
    "Anima": (ENCODERS.anima.AnimaTokenizer, "t5xxl", 0, 512),
    "Cosmos": (ENCODERS.cosmos.CosmosT5Tokenizer, "clip_t5xxl", 0, 512),
    "Flux.1": (ENCODERS.flux.FluxTokenizer, "t5xxl", 0, 256),
    "Chroma": (ENCODERS.pixart_t5.PixArtTokenizer, "clip_t5xxl", 0, 0),
    "Z-Image": (ENCODERS.z_image.ZImageTokenizer, "qwen3_4b", 3, 0),
    "Flux.2 Klein": (ENCODERS.flux.KleinTokenizer, "qwen3_4b", 3, 512),
    "Flux.2 dev": (functools.partial(flux_2_tokenizer, MERGED), "mistral3_24b", 140, 0),
    "Qwen-Image": (ENCODERS.qwen_image.QwenImageTokenizer, "qwen25_7b", 0, 0),
    "Wan": (
        lambda: ENCODERS.wan.WanT5Tokenizer(tokenizer_data={"spiece_model": sentence_piece_model(_CORPUS)}),
        "clip_umt5xxl",
        0,
        512,
    ),
    "Lumina 2": (
        lambda: ENCODERS.lumina2.LuminaTokenizer(tokenizer_data={"spiece_model": sentence_piece_model(_CORPUS)}),
        "gemma2_2b",
        1,
        0,
    ),
}


def clip_with(tokenizer: Any) -> Any:
    """A CLIP that tokenises as the host does, without a text model."""
    return SimpleNamespace(tokenizer=tokenizer, tokenize=tokenizer.tokenize_with_weights)


def clip_of(family: str) -> Any:
    """Such a CLIP of one of :data:`FAMILIES`."""
    return clip_with(FAMILIES[family][0]())
