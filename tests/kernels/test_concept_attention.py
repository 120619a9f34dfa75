"""Concept attention against explicit float64 maps, for any shape, type, grouping and piece size."""

from __future__ import annotations

import pytest
import torch
from hrv_pack.hrv_kernels import concept_attention as module
from hrv_pack.hrv_kernels.concept_attention import IGNORED, PADDING, concept_attention, concept_attention_reference
from hypothesis import given, settings
from hypothesis import strategies as st

TINY = 1e-6


def plain(q: torch.Tensor, k: torch.Tensor, groups: torch.Tensor, concepts: int, heads: int) -> torch.Tensor:
    """The same in plain torch and the type of ``q`` throughout."""
    q = q.unflatten(-1, (heads, -1)).transpose(1, 2)
    k = k.unflatten(-1, (heads, -1)).transpose(1, 2)
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    maps = logits.masked_fill((groups == PADDING)[:, None, None], -torch.inf).softmax(-1).mean(2)
    of_concepts = [(maps * (groups == concept)[:, None]).sum(-1) for concept in range(concepts)]
    sizes = [(groups == concept).sum(-1)[:, None] for concept in range(concepts)]
    return torch.stack([total / size for total, size in zip(of_concepts, sizes, strict=True)], dim=-1)


def draw(
    seed: int, dtype: torch.dtype, rows: int, positions: int, heads: int, width: int, concepts: int, scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q, k and groups: the start token, one to four tokens a concept, padding in between."""
    generator = torch.Generator().manual_seed(seed)
    longest = 4
    groups = torch.full((rows, 1 + concepts * longest), PADDING)
    groups[:, 0] = IGNORED
    for row in range(rows):
        for concept in range(concepts):
            tokens = int(torch.randint(1, longest + 1, (), generator=generator))
            groups[row, 1 + concept * longest : 1 + concept * longest + tokens] = concept
    q = torch.randn(rows, positions, heads * width, generator=generator) * scale
    k = torch.randn(rows, groups.shape[1], heads * width, generator=generator) * scale
    return q.to(dtype), k.to(dtype), groups


def assert_as_good_as_plain(q: torch.Tensor, k: torch.Tensor, groups: torch.Tensor, concepts: int, heads: int) -> None:
    expected = concept_attention_reference(q, k, groups, concepts, heads)
    found = concept_attention(q, k, groups, concepts, heads)
    assert found.dtype == torch.float32 and found.shape == expected.shape == (len(q), heads, concepts)
    error = (found.double() - expected).abs().max()
    assert error <= 2 * (plain(q, k, groups, concepts, heads).double() - expected).abs().max() + TINY


SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 5), st.integers(1, 9), st.integers(2, 6))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    shape=SHAPES,
    scale=st.sampled_from([0.1, 1.0, 4.0]),
)
def test_errors_are_no_larger_than_those_of_plain_torch(
    seed: int, dtype: torch.dtype, shape: tuple[int, int, int, int, int], scale: float
) -> None:
    q, k, groups = draw(seed, dtype, *shape, scale)
    assert_as_good_as_plain(q, k, groups, shape[-1], shape[2])


@pytest.mark.parametrize("bound", [1, 100, 1000, 10_000])
def test_image_positions_may_be_taken_in_pieces(monkeypatch: pytest.MonkeyPatch, bound: int) -> None:
    q, k, groups = draw(0, torch.float32, 2, 37, 3, 8, 4, 2.0)
    whole = concept_attention(q, k, groups, 4, 3)
    pieces = []
    softmax = torch.Tensor.softmax

    def watched(logits: torch.Tensor, dim: int) -> torch.Tensor:
        pieces.append(logits.shape[2])
        return softmax(logits, dim)

    monkeypatch.setattr(module, "_BOUND", bound)
    monkeypatch.setattr(torch.Tensor, "softmax", watched)
    found = concept_attention(q, k, groups, 4, 3)
    monkeypatch.undo()
    assert sum(pieces) == 37 and (len(pieces) > 1) == (bound < 2 * 3 * k.shape[1] * 37)
    assert all(piece == 1 or 2 * 3 * k.shape[1] * piece <= bound for piece in pieces)
    torch.testing.assert_close(found, whole, rtol=1e-6, atol=1e-7)
    assert_as_good_as_plain(q, k, groups, 4, 3)


def test_padding_takes_no_part_and_the_start_token_does() -> None:
    q, k, groups = draw(1, torch.float32, 1, 5, 2, 4, 3, 1.0)
    there = groups[0] != PADDING
    padded = concept_attention(q, k, groups, 3, 2)
    torch.testing.assert_close(concept_attention(q, k[:, there], groups[:, there], 3, 2), padded)
    k_other = k.clone()
    k_other[:, ~there] = 1e4
    assert torch.equal(concept_attention(q, k_other, groups, 3, 2), padded)
    k_other[:, 0] += 3
    assert not torch.allclose(concept_attention(q, k_other, groups, 3, 2), padded, rtol=1e-3)
    # With the start token's share, the means weighted by the numbers of tokens add up to 1.
    tokens = torch.tensor([int((groups == concept).sum()) for concept in range(3)])
    assert ((padded * tokens).sum(-1) < 1).all()


def test_the_paper_in_numbers() -> None:
    """Two heads of width 1, two positions, the start token and words of one and of two tokens."""
    q = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    k = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [2.0, 0.0], [0.0, -1.0]]])
    groups = torch.tensor([[IGNORED, 0, 1, 1]])
    e = torch.e

    def share(logits: list[float]) -> torch.Tensor:
        weights = torch.tensor([e**logit for logit in logits])
        return weights / weights.sum()

    head_0 = (share([0, 1, 2, 0]) + share([0, 0, 0, 0])) / 2
    head_1 = (share([0, 0, 0, 0]) + share([0, 2, 0, -2])) / 2
    expected = torch.stack([torch.stack([head[1], head[2:].mean()]) for head in (head_0, head_1)])[None]
    for function in (concept_attention, concept_attention_reference):
        torch.testing.assert_close(function(q, k, groups, 2, 2).float(), expected)


@pytest.mark.parametrize(
    ("q", "k", "groups", "heads"),
    [
        ((1, 4, 6), (1, 3, 6), (1, 3), 4),
        ((1, 4, 6), (1, 3, 8), (1, 3), 2),
        ((2, 4, 6), (1, 3, 6), (1, 3), 2),
        ((1, 4, 6), (1, 3, 6), (1, 4), 2),
        ((2, 4, 6), (2, 3, 6), (1, 3), 2),
    ],
)
@pytest.mark.parametrize("function", [concept_attention, concept_attention_reference])
def test_shapes_that_do_not_fit_together_are_refused(
    function: object, q: tuple[int, ...], k: tuple[int, ...], groups: tuple[int, ...], heads: int
) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match="do not fit together with"):
        function(torch.zeros(q), torch.zeros(k), torch.zeros(groups, dtype=torch.int64), 1, heads)
