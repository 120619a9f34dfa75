"""Attention to phrases against explicit maps in float64."""

from __future__ import annotations

import pytest
import torch
from hrv_pack.hrv_kernels.phrase_attention import phrase_attention, phrase_attention_reference


def case(rows: int, positions: int, tokens: int, width: int, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(rows + positions + tokens)
    q, k = (torch.randn(rows, count, width, generator=generator).to(dtype) * 2 for count in (positions, tokens))
    return q, k, torch.rand(rows, tokens, generator=generator) < 0.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("rows", "positions", "tokens", "heads"), [(2, 16, 77, 8), (1, 63, 154, 5), (3, 1, 1, 1)])
def test_it_is_what_explicit_maps_give(rows: int, positions: int, tokens: int, heads: int, dtype: torch.dtype) -> None:
    q, k, chosen = case(rows, positions, tokens, heads * 8, dtype)
    found = phrase_attention(q, k, chosen, heads)
    assert found.dtype == torch.float32 and found.shape == (rows, positions)
    torch.testing.assert_close(found.double(), phrase_attention_reference(q, k, chosen, heads), rtol=1e-5, atol=1e-6)


def test_all_tokens_get_everything_and_none_get_nothing() -> None:
    q, k, _ = case(2, 9, 12, 16, torch.float32)
    everything = torch.ones(2, 12, dtype=torch.bool)
    torch.testing.assert_close(phrase_attention(q, k, everything, 2), torch.ones(2, 9))
    assert not phrase_attention(q, k, ~everything, 2).any()


@pytest.mark.parametrize("change", ["heads", "width", "chosen"])
def test_shapes_that_do_not_fit_are_named(change: str) -> None:
    q, k, chosen = case(2, 9, 12, 16, torch.float32)
    heads = 3 if change == "heads" else 2
    k = k[..., :8] if change == "width" else k
    chosen = chosen[:1] if change == "chosen" else chosen
    for function in (phrase_attention, phrase_attention_reference):
        with pytest.raises(ValueError, match=r"q \(2, 9, 16\).* do not fit together"):
            function(q, k, chosen, heads)
