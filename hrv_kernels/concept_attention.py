"""How much attention each head pays to each concept, without keeping an attention map.

For one layer: A = softmax(Q K^T / sqrt(d)) over the tokens of one word per concept (and the start token), averaged
over image positions, then over each word's tokens (arXiv 2412.02237, section 3).
"""

from __future__ import annotations

import torch

IGNORED = -1
"""Group of a token that takes part in the softmax and is ignored afterwards (the start token)."""
PADDING = -2
"""Group of a token that is not there (rows of one batch may have different numbers of tokens)."""

# Logits of this many elements are alive at once in the bounded version: 64 MiB in float32.
_BOUND = 1 << 24


def _check(q: torch.Tensor, k: torch.Tensor, groups: torch.Tensor, heads: int) -> None:
    rows, _, width = q.shape
    if width % heads or k.shape != (rows, groups.shape[-1], width) or groups.shape[0] != rows:
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and groups {tuple(groups.shape)} do not fit together with "
            f"{heads} heads: q is [B, P, heads x d], k [B, T, heads x d], groups [B, T]."
        )


def concept_attention_reference(
    q: torch.Tensor, k: torch.Tensor, groups: torch.Tensor, concepts: int, heads: int
) -> torch.Tensor:
    """:func:`concept_attention` with explicit maps in float64, one row at a time, as the paper writes it."""
    _check(q, k, groups, heads)
    result = torch.zeros(q.shape[0], heads, concepts, dtype=torch.float64)
    for row in range(q.shape[0]):
        there = groups[row] != PADDING
        queries = q[row].double().unflatten(-1, (heads, -1)).transpose(0, 1)
        keys = k[row, there].double().unflatten(-1, (heads, -1)).transpose(0, 1)
        maps = (queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5).softmax(-1)
        for concept in range(concepts):
            result[row, :, concept] = maps[:, :, groups[row, there] == concept].mean(-1).mean(-1)
    return result


def concept_attention(
    q: torch.Tensor, k: torch.Tensor, groups: torch.Tensor, concepts: int, heads: int
) -> torch.Tensor:
    """Mean attention of every head to every concept: float32 [B, heads, N].

    ``q``       [B, P, heads x d], queries of P image positions, any float type.
    ``k``       [B, T, heads x d], keys of the tokens.
    ``groups``  int64 [B, T], the concept 0 .. N-1 of each token, or :data:`IGNORED`, or :data:`PADDING`. Every row
                has at least one token of every concept.

    Logits and softmax are float32; image positions are taken in pieces, so that memory stays bounded. No
    synchronisation with a device. Raises ValueError for shapes that do not fit together.
    """
    _check(q, k, groups, heads)
    rows, positions, _ = q.shape
    keys = k.float().unflatten(-1, (heads, -1)).permute(0, 2, 3, 1)
    keys = keys * keys.shape[2] ** -0.5
    blocked = (groups == PADDING)[:, None, None, :]
    piece = max(1, _BOUND // (rows * heads * k.shape[1]))
    total = torch.zeros(rows, heads, k.shape[1], dtype=torch.float32, device=q.device)
    for queries in q.split(piece, dim=1):
        logits = queries.float().unflatten(-1, (heads, -1)).transpose(1, 2) @ keys
        total += logits.masked_fill_(blocked, -torch.inf).softmax(-1).sum(2)
    member = (groups[..., None] == torch.arange(concepts, device=groups.device)).float()
    return (total / positions) @ (member / member.sum(1, keepdim=True))
