"""Attention whose heads stand between two texts A and B: (1 - g_h) attn(q, K_A, V_A) + g_h attn(q, K_B, V_B).

The queries are shared. With gates g_h of 0 and 1 this patches single heads; the derivative by g_h says how much it
moves the network's output that head h reads the other text.
"""

from __future__ import annotations

import torch


def gate_heads(a: torch.Tensor, b: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
    """Mix two attention outputs [B, P, heads x d] head by head with ``gates`` [B, heads] (or [1, heads]).

    Out of place, in the type of ``a``; the sum is rounded once, from the widest type of the three. Where a gate is 0
    the result equals ``a``, where it is 1 it equals ``b``, exactly. Gradients flow to all three.
    """
    share = gates[:, None, :, None]
    a_of_heads, b_of_heads = (of_text.unflatten(-1, (gates.shape[-1], -1)) for of_text in (a, b))
    return ((1.0 - share) * a_of_heads + share * b_of_heads).to(a.dtype).flatten(-2)


def gated_attention_reference(
    q: torch.Tensor,
    a: tuple[torch.Tensor, torch.Tensor],
    b: tuple[torch.Tensor, torch.Tensor],
    gates: torch.Tensor,
) -> torch.Tensor:
    """The formula with explicit maps, head by head, in float64: [B, P, heads x d] of q [B, P, heads x d].

    ``a`` and ``b`` are the keys and values [B, T, heads x d] of two texts, which may differ in T; ``gates`` [B, heads].
    """
    heads = gates.shape[1]

    def of_text(k: torch.Tensor, v: torch.Tensor, head: int) -> torch.Tensor:
        own_q, own_k, own_v = (part.double().unflatten(-1, (heads, -1))[:, :, head] for part in (q, k, v))
        return (own_q @ own_k.transpose(-1, -2) / own_q.shape[-1] ** 0.5).softmax(-1) @ own_v

    return torch.cat(
        [
            (1.0 - gates[:, head, None, None].double()) * of_text(*a, head)
            + gates[:, head, None, None].double() * of_text(*b, head)
            for head in range(heads)
        ],
        dim=-1,
    )
