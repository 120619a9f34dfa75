"""Words are brought together as their definition says, on top of attention to tokens."""

from __future__ import annotations

import pytest
import torch
from hrv_pack.hrv_kernels.token_attention import token_attention
from hrv_pack.hrv_kernels.word_pooling import POOLINGS, pool_words
from hypothesis import given, settings
from hypothesis import strategies as st

HOW = {
    "mean": lambda tokens: sum(tokens) / len(tokens),
    "sum": sum,
    "last": lambda tokens: tokens[-1],
    "max": lambda tokens: torch.stack(tokens).amax(0),
}


@st.composite
def words_of_concepts(draw: st.DrawFn) -> list[list[list[int]]]:
    """Concepts of one to four words of one to three tokens, numbered through from 1 (0 is the start token)."""
    sizes = draw(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=4), min_size=1, max_size=5))
    concepts: list[list[list[int]]] = []
    taken = 1
    for words in sizes:
        concepts.append([])
        for size in words:
            concepts[-1].append(list(range(taken, taken + size)))
            taken += size
    return concepts


def as_places(concepts: list[list[list[int]]]) -> torch.Tensor:
    """The same as int64 [1, N, W, L] with -1 for none."""
    most = max(len(words) for words in concepts)
    longest = max(len(tokens) for words in concepts for tokens in words)
    places = torch.full((1, len(concepts), most, longest), -1)
    for concept, words in enumerate(concepts):
        for word, tokens in enumerate(words):
            places[0, concept, word, : len(tokens)] = torch.tensor(tokens)
    return places


def expected(attention: torch.Tensor, concepts: list[list[list[int]]], pooling: str) -> torch.Tensor:
    columns = []
    for words in concepts:
        values = [HOW[pooling]([attention[..., token] for token in tokens]) for tokens in words]
        columns.append(sum(values) / len(values))
    return torch.stack(columns, dim=-1)


@settings(max_examples=60, deadline=None)
@given(concepts=words_of_concepts(), pooling=st.sampled_from(POOLINGS), seed=st.integers(0, 99))
def test_tokens_become_words_and_words_concepts(concepts: list[list[list[int]]], pooling: str, seed: int) -> None:
    tokens = concepts[-1][-1][-1] + 1
    attention = torch.rand(2, 3, tokens + 2, generator=torch.Generator().manual_seed(seed))
    found = pool_words(attention, as_places(concepts), pooling)
    torch.testing.assert_close(found, expected(attention, concepts, pooling))


def test_every_image_may_have_words_of_its_own() -> None:
    attention = torch.rand(2, 1, 4)
    places = torch.tensor([[[[1, 2]], [[3, -1]]], [[[1, -1]], [[2, 3]]]])
    found = pool_words(attention, places)
    for row, concepts in enumerate(([[[1, 2]], [[3]]], [[[1]], [[2, 3]]])):
        torch.testing.assert_close(found[row], expected(attention[row], concepts, "mean"))


def test_attention_is_that_of_the_paper() -> None:
    """Explicit maps over the start token and one word per concept, positions and then tokens averaged."""
    q, k = torch.randn(2, 7, 6), torch.randn(2, 5, 6)
    there = torch.tensor([[True] * 5, [True] * 4 + [False]])
    places = torch.tensor([[[[1]], [[2]], [[3]]], [[[1]], [[2]], [[3]]]])
    places = torch.cat([places, torch.full_like(places, -1)], dim=-1)
    places[0, 2, 0] = torch.tensor([3, 4])
    found = pool_words(token_attention(q, k, there, heads=2), places)
    for row, concepts in enumerate(([[1], [2], [3, 4]], [[1], [2], [3]])):
        for head in range(2):
            own = slice(3 * head, 3 * head + 3)
            logits = q[row, :, own].double() @ k[row, there[row]][:, own].double().T / 3**0.5
            maps = logits.softmax(-1).mean(0)
            wanted = torch.stack([maps[tokens].mean() for tokens in concepts])
            torch.testing.assert_close(found[row, head].double(), wanted, rtol=1e-5, atol=1e-7)


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(ValueError, match="mean, sum, last, max, not 'median'"):
        pool_words(torch.rand(1, 1, 2), torch.ones(1, 1, 1, 1, dtype=torch.long), "median")
