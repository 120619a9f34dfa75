"""Random draws that depend only on what they are for, never on order or on what ran before.

A build draws words and noise for (seed, image, step, layer, concept). Each draw hashes these numbers with SplitMix64
(Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"), so any split of a build draws the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Indices = int | npt.NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def hashed(*keys: int | npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Hash numbers (each a scalar or an array, broadcast together) in order into uniform 64-bit numbers.

    Of a scalar its remainder by 2**64 counts, so that seeds which follow the largest one begin again at 0.
    """
    state = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for key in keys:
            # One finaliser round per key: the order of the keys matters and no two keys can cancel.
            number = np.asarray(key % 2**64 if isinstance(key, int) else key).astype(np.uint64)
            mixed = (state ^ number) + _GOLDEN
            mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
            mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
            state = mixed ^ (mixed >> np.uint64(31))
    return np.asarray(state)


def draw_words(seed: int, image: Indices, step: int, layer: Indices, words: Sequence[int]) -> npt.NDArray[np.int64]:
    """Draw one word index per concept, uniform below ``words[concept]`` (their numbers of words): int64 [..., N].

    ``image`` and ``layer`` are numbers or arrays of them, broadcast together into the leading axes.
    """
    numbers = np.asarray(words, dtype=np.uint64)
    concepts = np.arange(len(numbers), dtype=np.uint64)
    images, layers = (np.asarray(number, dtype=np.uint64)[..., None] for number in (image, layer))
    # The remainder's bias is below words / 2**64.
    return (hashed(seed, images, step, layers, concepts) % numbers).astype(np.int64)


def noise_seed(seed: int, image: int) -> int:
    """The seed of an image's starting noise, below 2**63 as torch takes it."""
    return int(hashed(seed, image, 0x6E6F697365) >> np.uint64(1))
