"""Rescaling cross-attention maps by rescaling V rows: out_h = A_h (diag(w_h) V_h), so no map is ever formed."""

from __future__ import annotations

import torch


def rescale_values(v: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Multiply V [B, T, heads x d] by ``weights`` [B, T, heads] (or [1, T, heads]), out of place, in V's type.

    The product is rounded once, from the wider type of the two. The result for a weight of 1 is bit-equal to V.
    """
    heads = weights.shape[-1]
    return (v.unflatten(-1, (heads, -1)) * weights[..., None]).to(v.dtype).flatten(-2)


def rescaled_attention_reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, weights: torch.Tensor, heads: int
) -> torch.Tensor:
    """Attention [B, P, heads x d] whose maps' columns are multiplied by ``weights`` [B, T, heads] after the softmax.

    Explicit maps in float64, as the paper writes the controls (arXiv 2412.02237, section 4).
    """
    q, k, v = (part.double().unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    maps = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    maps = maps * weights.double().permute(0, 2, 1)[:, :, None, :]
    return (maps @ v).transpose(1, 2).flatten(2)
