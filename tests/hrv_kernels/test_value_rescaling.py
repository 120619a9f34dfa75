"""Rescaling maps by rescaling values: the same result as explicit maps, in any type."""

from __future__ import annotations

import pytest
import torch
from hrv_pack.hrv_kernels.value_rescaling import rescale_values, rescaled_attention_reference
from hypothesis import given, settings
from hypothesis import strategies as st

TINY = 1e-6
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def plain(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Attention with explicit maps in the type of ``q`` throughout, their columns rescaled if asked for."""
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k, v))
    maps = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    if weights is not None:
        maps = maps * weights.to(maps.dtype).permute(0, 2, 1)[:, :, None]
    return (maps @ v).transpose(1, 2).flatten(2)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).square().mean().sqrt())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from(DTYPES),
    shape=st.tuples(st.integers(1, 3), st.integers(8, 24), st.integers(4, 24), st.integers(1, 5), st.integers(4, 12)),
    shared=st.booleans(),
)
def test_scaled_values_give_what_scaled_maps_give(
    seed: int, dtype: torch.dtype, shape: tuple[int, int, int, int, int], shared: bool
) -> None:
    rows, positions, tokens, heads, width = shape
    generator = torch.Generator().manual_seed(seed)

    def random(*sizes: int) -> torch.Tensor:
        return torch.randn(*sizes, generator=generator).to(dtype)

    q, k, v = random(rows, positions, heads * width), *(random(rows, tokens, heads * width) for _ in range(2))
    weights = torch.randn(1 if shared else rows, tokens, heads, generator=generator) * 3
    expected = rescaled_attention_reference(q, k, v, weights, heads)
    found = plain(q, k, rescale_values(v, weights), heads)
    # Root mean squares: the largest of few elements says more about luck in the last rounding than about the way.
    assert error(found, expected) <= 2 * error(plain(q, k, v, heads, weights), expected) + TINY


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_keep_their_type_and_shape_and_are_not_written(dtype: torch.dtype) -> None:
    v = torch.randn(2, 5, 12).to(dtype)
    before = v.clone()
    weights = torch.ones(2, 5, 3)
    assert torch.equal(rescale_values(v, weights), v)
    weights[1, 4, 2] = -2
    scaled = rescale_values(v, weights)
    assert scaled.dtype == dtype and scaled.shape == v.shape
    assert torch.equal(v, before)
    assert torch.equal(scaled[1, 4, 8:], v[1, 4, 8:] * -2)
    scaled[1, 4, 8:] = v[1, 4, 8:]
    assert torch.equal(scaled, v)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_are_rounded_once(dtype: torch.dtype) -> None:
    v = torch.randn(2, 50, 12, generator=torch.Generator().manual_seed(0)).to(dtype)
    weights = torch.rand(2, 50, 3, generator=torch.Generator().manual_seed(1)) * 9
    exact = v.double() * weights.double().repeat_interleave(4, dim=-1)
    # In half precision the product in float32 is rounded; there it is exact but for its own last place.
    assert torch.equal(rescale_values(v, weights), exact.float().to(dtype))


def test_the_reference_in_numbers() -> None:
    """One head of width 1 and two tokens whose maps are 1/3 and 2/3."""
    q, k = torch.ones(1, 1, 1), torch.tensor([[[0.0], [float(torch.log(torch.tensor(2.0)))]]])
    v, weights = torch.tensor([[[3.0], [6.0]]]), torch.tensor([[[10.0], [-1.0]]])
    found = rescaled_attention_reference(q, k, v, weights, heads=1)
    torch.testing.assert_close(found, torch.tensor([[[10 * 1.0 - 4.0]]], dtype=torch.float64), rtol=1e-6, atol=1e-6)
