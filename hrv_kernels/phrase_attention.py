"""How much attention some tokens get at every image position: where in the image a phrase is.

For one cross-attention layer: the sum over the chosen tokens of A = softmax(Q K^T / sqrt(d)), mean over heads
(arXiv 2208.01626, section 3.2, local editing). The maps of all tokens exist only one row at a time: meant for layers
of low resolution.
"""

from __future__ import annotations

import torch


@torch.no_grad()
def phrase_attention(q: torch.Tensor, k: torch.Tensor, chosen: torch.Tensor, heads: int) -> torch.Tensor:
    """Share of attention that the chosen tokens get at each position: float32 [B, P] from 0 to 1.

    ``q``       [B, P, heads x d], queries of P image positions, any float type.
    ``k``       [B, T, heads x d], keys of the tokens, of the type of ``q``.
    ``chosen``  bool [B, T].
    Logits and softmax are float32 whatever the input. Nothing waits for a device. Raises ValueError for shapes that do
    not fit together.
    """
    _check(q, k, chosen, heads)
    scale = (q.shape[2] // heads) ** -0.5
    result = torch.empty(q.shape[:2], device=q.device)
    for row in range(len(q)):
        queries, keys = (part[row].float().unflatten(-1, (heads, -1)).transpose(0, 1) for part in (q, k))
        maps = torch.softmax(queries @ keys.transpose(-1, -2) * scale, dim=-1)
        result[row] = (maps @ chosen[row].float()).mean(0)
    return result


def phrase_attention_reference(q: torch.Tensor, k: torch.Tensor, chosen: torch.Tensor, heads: int) -> torch.Tensor:
    """:func:`phrase_attention` with all maps at once: float64 [B, P] on the CPU."""
    _check(q, k, chosen, heads)
    q, k = (part.cpu().double().unflatten(-1, (heads, -1)) for part in (q, k))
    maps = (torch.einsum("bphd,bthd->bhpt", q, k) / q.shape[-1] ** 0.5).softmax(-1)
    return torch.einsum("bhpt,bt->bp", maps, chosen.cpu().double()) / heads


def _check(q: torch.Tensor, k: torch.Tensor, chosen: torch.Tensor, heads: int) -> None:
    fits = q.ndim == k.ndim == 3 and q.shape[2] % heads == 0 and k.shape == (len(q), k.shape[1], q.shape[2])
    if not fits or chosen.shape != k.shape[:2]:
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and chosen {tuple(chosen.shape)} do not fit together with {heads} "
            "heads: q is [B, P, heads x d], k [B, T, heads x d], chosen [B, T]."
        )
