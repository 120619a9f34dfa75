"""The words of a prompt for the page, by the tokenizer that SD 1.x, SD 2.x, SDXL and HRV-mini share."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import folder_paths
from comfy.sd1_clip import SD1Tokenizer

from ..page.tokens import tokens_told
from ..prompts.encoding import token_map

# The width of CLIP-L's embeddings: textual inversions of another one leave no tokens in it.
_WIDTH = 768


def words_of(text: str) -> dict[str, Any]:
    """The words of a prompt with their pieces, positions and weights, and how many tokens it takes.

    A textual inversion has the tokens that it has in CLIP-L. The encoders of SDXL put words at the same positions, or
    encoding the prompt fails.
    """
    clip = _tokenizer()
    words = token_map(clip, text)
    chunks = clip.tokenize(text)["l"]
    weights = [float(weight) for chunk in chunks for _, weight in chunk]
    return tokens_told(words, len(chunks[0]), lambda word: weights[word.positions[0]])


@cache
def _tokenizer() -> Any:
    """What a CLIP without a text encoder would be: its tokenizer, and the width of its embeddings."""
    tokenizer = SD1Tokenizer(embedding_directory=folder_paths.get_folder_paths("embeddings"))
    embeddings = SimpleNamespace(weight=SimpleNamespace(shape=(_WIDTH,)))
    encoder = SimpleNamespace(transformer=SimpleNamespace(get_input_embeddings=lambda: embeddings))
    return SimpleNamespace(
        tokenizer=tokenizer,
        tokenize=tokenizer.tokenize_with_weights,
        cond_stage_model=SimpleNamespace(clip_l=encoder),
    )
