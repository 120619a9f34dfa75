"""How much attention each head pays to each concept, without keeping an attention map.

For one layer: A = softmax(Q K^T / sqrt(d)) over the tokens of concept-words (and the start token), averaged over image
positions, brought together over each word's tokens, then averaged over each concept's words (arXiv 2412.02237,
section 3; there one word stands for a concept at a time).
"""

from __future__ import annotations

import torch

from .token_attention import token_attention

POOLINGS = ("mean", "sum", "last", "max")
"""Ways to bring a word's tokens together; the paper's is "mean"."""


def concept_attention(
    q: torch.Tensor, k: torch.Tensor, there: torch.Tensor, places: torch.Tensor, heads: int, pooling: str = "mean"
) -> torch.Tensor:
    """Attention of every head to every concept, mean over image positions: float32 [B, heads, N].

    ``q``       [B, P, heads x d], queries of P image positions, any float type.
    ``k``       [B, T, heads x d], keys of the tokens.
    ``there``   bool [B, T]: the tokens that take part in the softmax.
    ``places``  int64 [B, N, W, L]: which token is the l-th of word w of concept n, -1 for none; a word's tokens come
                first, and so do a concept's words. Every concept has a word, every word of its a token.
    No synchronisation with a device. Raises ValueError for shapes that do not fit together and an unknown pooling.
    """
    return pool_words(token_attention(q, k, there, heads), places, pooling)


def pool_words(attention: torch.Tensor, places: torch.Tensor, pooling: str = "mean") -> torch.Tensor:
    """Attention to tokens [B, heads, T] as attention to concepts [B, heads, N]; see :func:`concept_attention`."""
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
