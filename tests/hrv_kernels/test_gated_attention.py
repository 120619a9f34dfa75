"""Heads between two texts: the same result as explicit maps, exact at both ends, with the derivative of the formula."""

from __future__ import annotations

import pytest
import torch
from hrv_pack.hrv_kernels.gated_attention import gate_heads, gated_attention_reference

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
ROWS, POSITIONS, HEADS, WIDTH = 2, 6, 3, 4


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def drawn(dtype: torch.dtype) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)

    def random(length: int) -> torch.Tensor:
        return torch.randn(ROWS, length, HEADS * WIDTH, generator=generator).to(dtype)

    return random(POSITIONS), (random(5), random(5)), (random(7), random(7))


@pytest.mark.parametrize("dtype", DTYPES)
def test_mixed_outputs_are_gated_attention(dtype: torch.dtype) -> None:
    q, a, b = drawn(dtype)
    gates = torch.rand(ROWS, HEADS, generator=torch.Generator().manual_seed(1))
    found = gate_heads(plain(q, *a), plain(q, *b), gates)
    expected = gated_attention_reference(q, a, b, gates)  # type: ignore[arg-type]
    assert found.dtype == dtype
    assert (found.double() - expected).abs().max() <= 8 * max(torch.finfo(dtype).eps, 1e-7)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shared", [False, True])
def test_closed_and_open_gates_are_exact(dtype: torch.dtype, shared: bool) -> None:
    q, a, b = drawn(dtype)
    of_a, of_b = plain(q, *a), plain(q, *b)
    kept = of_a.clone(), of_b.clone()
    rows = 1 if shared else ROWS
    assert torch.equal(gate_heads(of_a, of_b, torch.zeros(rows, HEADS)), of_a)
    assert torch.equal(gate_heads(of_a, of_b, torch.ones(rows, HEADS)), of_b)
    one = gate_heads(of_a, of_b, torch.tensor([[0.0, 1.0, 0.0]]))
    assert torch.equal(one[..., WIDTH : 2 * WIDTH], of_b[..., WIDTH : 2 * WIDTH])
    assert torch.equal(one[..., :WIDTH], of_a[..., :WIDTH]) and torch.equal(
        one[..., 2 * WIDTH :], of_a[..., 2 * WIDTH :]
    )
    assert torch.equal(of_a, kept[0]) and torch.equal(of_b, kept[1])


def test_derivatives_are_those_of_the_formula() -> None:
    q, a, b = drawn(torch.float64)
    gates = torch.rand(ROWS, HEADS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    given = tuple(part.requires_grad_(True) for part in (plain(q, *a), plain(q, *b), gates))
    assert torch.autograd.gradcheck(gate_heads, given)
