"""Attention to tokens as attention to concepts: tokens are brought together to words, words to concepts.

In the method's first form (arXiv 2412.02237, section 3) a word's attention is the mean over its tokens, and one word
stands for a concept at a time; of several, their mean is a concept's attention.
"""

from __future__ import annotations

import torch

POOLINGS = ("mean", "sum", "last", "max")
"""Ways to bring a word's tokens together; the paper's is "mean"."""


def pool_words(attention: torch.Tensor, places: torch.Tensor, pooling: str = "mean") -> torch.Tensor:
    """Attention to tokens [B, heads, T] as attention to concepts [B, heads, N], in the type given.

    ``places``  int64 [B or 1, N, W, L]: which token is the l-th of word w of concept n, -1 for none; a word's tokens
                come first, and so do a concept's words. Every concept has a word, every word of its a token.

    No synchronisation with a device. Raises ValueError for an unknown ``pooling``, which is one of :data:`POOLINGS`.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"Tokens of a word are pooled by {', '.join(POOLINGS)}, not {pooling!r}.")
    rows, heads, _ = attention.shape
    index = places.clamp_min(0).reshape(len(places), 1, -1).expand(rows, heads, -1)
    own = (places >= 0)[:, None]
    tokens = attention.gather(-1, index).unflatten(-1, places.shape[1:]) * own
    lengths = own.sum(-1)
    if pooling == "max":
        words = tokens.amax(-1)
    elif pooling == "last":
        last = (lengths - 1).clamp_min(0)[..., None].expand(*tokens.shape[:-1], 1)
        words = tokens.gather(-1, last)[..., 0]
    else:
        words = tokens.sum(-1)
        if pooling == "mean":
            words = words / lengths.clamp_min(1)
    return words.sum(-1) / (lengths > 0).sum(-1)
