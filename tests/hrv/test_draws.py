"""Draws: the published generator, and independence of everything but what a draw is for."""

from __future__ import annotations

import numpy as np
import pytest
from hrv_pack.hrv.draws import draw_words, hashed, noise_seed
from hypothesis import given
from hypothesis import strategies as st

MASK = 2**64 - 1
KEYS = st.integers(0, 2**64 - 1)


def splitmix(*keys: int) -> int:
    """The same hash with Python's unbounded integers."""
    state = 0
    for key in keys:
        mixed = ((state ^ key) + 0x9E3779B97F4A7C15) & MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK
        state = mixed ^ (mixed >> 31)
    return state


@pytest.mark.parametrize(("seed", "first"), [(0, 0xE220A8397B1DCDAF), (1234567, 6457827717110365317)])
def test_one_key_gives_the_published_first_number_of_splitmix64(seed: int, first: int) -> None:
    assert int(hashed(seed)) == splitmix(seed) == first


@given(st.lists(KEYS, min_size=1, max_size=6))
def test_hashes_equal_those_of_unbounded_integers(keys: list[int]) -> None:
    assert int(hashed(*keys)) == splitmix(*keys)


@given(KEYS)
def test_after_the_largest_seed_comes_the_first(seed: int) -> None:
    assert hashed(seed, 1) == hashed(seed + 2**64, 1) == hashed(seed - 2**64, 1)


@given(KEYS, st.lists(KEYS, min_size=1, max_size=5))
def test_arrays_are_hashed_element_by_element(key: int, others: list[int]) -> None:
    together = hashed(key, np.array(others, dtype=np.uint64), 3)
    assert together.dtype == np.uint64
    assert together.tolist() == [splitmix(key, other, 3) for other in others]


@given(KEYS, KEYS, st.integers(0, 10_000), st.integers(0, 200), st.lists(st.integers(1, 40), min_size=1, max_size=40))
def test_words_are_drawn_below_their_numbers_each_concept_by_itself(
    seed: int, image: int, step: int, layer: int, words: list[int]
) -> None:
    drawn = draw_words(seed, image, step, layer, words)
    assert drawn.dtype == np.int64
    assert drawn.tolist() == [splitmix(seed, image, step, layer, n) % words[n] for n in range(len(words))]
    # More concepts behind change nothing before them.
    assert np.array_equal(draw_words(seed, image, step, layer, [*words, 7])[:-1], drawn)


@pytest.mark.parametrize("moving", ["seed", "image", "step", "layer", "concept"])
def test_every_word_is_as_likely_whichever_number_moves(moving: str) -> None:
    count, words = 6000, 10
    drawn: list[int] = []
    if moving == "concept":
        drawn = draw_words(1, 2, 3, 4, [words] * count).tolist()
    else:
        fixed = {"seed": 1, "image": 2, "step": 3, "layer": 4}
        for number in range(count):
            drawn.extend(draw_words(**{**fixed, moving: number}, words=[words]).tolist())
    # Chi-squared of 9 degrees of freedom is above 33.7 once in 10,000 times for a fair draw.
    expected = count / words
    assert ((np.bincount(drawn, minlength=words) - expected) ** 2 / expected).sum() < 33.7
    # Neighbours are independent of each other as well: 100 pairs, 99 degrees of freedom, limit likewise.
    pairs = np.bincount(np.array(drawn[:-1]) * words + np.array(drawn[1:]), minlength=words**2)
    expected = (count - 1) / words**2
    assert ((pairs - expected) ** 2 / expected).sum() < 160


def test_the_order_of_the_numbers_matters() -> None:
    def drawn(seed: int, image: int, step: int, layer: int) -> bytes:
        return draw_words(seed, image, step, layer, [1000] * 8).tobytes()

    assert len({drawn(1, 2, 3, 4), drawn(2, 1, 3, 4), drawn(1, 3, 2, 4), drawn(1, 2, 4, 3)}) == 4


@given(KEYS, st.integers(0, 2**40))
def test_noise_seeds_are_numbers_that_torch_takes(seed: int, image: int) -> None:
    assert 0 <= noise_seed(seed, image) < 2**63


def test_noise_seeds_differ_between_images_and_seeds() -> None:
    assert len({noise_seed(seed, image) for seed in range(50) for image in range(200)}) == 50 * 200
