"""The words of a prompt for the page, in the tokens of the text encoder that the graph has for it."""

from __future__ import annotations

from typing import Any

from ..page.tokens import run_tokens_told, tokens_told
from ..prompts.encoding import token_map
from ..prompts.tokenizers import clip_of_length
from .loaders import clip_of
from .requests import Request, object_of, text_of

# Tokens of a chunk of CLIP with start and end.
_CHUNK = 77


def words_of(request: Request) -> dict[str, Any]:
    """The words of a prompt as the page shows them, by the ``loader`` of its text encoder: by CLIP if there is none.

    ``words`` is None where they are known only after a run. A textual inversion has the tokens that it has in CLIP-L.
    """
    text = text_of(request, "text")
    clip = clip_of(object_of(request, "loader")) if "loader" in request else clip_of_length(_CHUNK)
    if clip is None:
        return {"words": None}
    words = token_map(clip, text)
    if words.groups:
        return run_tokens_told(words)
    tokens = clip.tokenize(text)
    chunks = next(tokens[name] for name in tokens if hasattr(clip.cond_stage_model, f"clip_{name}"))
    weights = [float(weight) for chunk in chunks for _, weight in chunk]
    return tokens_told(words, len(chunks[0]), lambda word: weights[word.positions[0]])
