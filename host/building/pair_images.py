"""The model's own images of pairs of prompts, and which tokens of a pair are what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import comfy.sample
import numpy as np
import numpy.typing as npt
import torch

from ...hrv.building.causal_state import GROUPS
from ...hrv.building.pairs import Pair, pair_seed
from ...hrv.errors import HRVError
from ...hrv.prompts.tokens import TokenMap
from ..prompts.carried import Conditioning
from ..prompts.encoding import token_map
from ..work.executor import Tick
from ..work.sampling import SamplingSettings, sample_latents, stacked
from .attribution import Pairs
from .build import encode_once

_IMAGE, _LEVEL_NOISE = 0, 1


class NumberedPair(NamedTuple):
    """A pair with its number among those of its concept."""

    pair: Pair
    number: int


class PairImages:
    """Makes images of the first prompts of pairs with one MODEL and CLIP; all draws depend on (seed, pair) alone."""

    def __init__(self, model: Any, clip: Any, settings: SamplingSettings, negative: str, seed: int):
        self.model, self.clip, self.settings, self.seed = model, clip, settings, seed
        self.negative: Conditioning = [encode_once(clip, negative)]

    def made(self, pairs: Sequence[NumberedPair], tick: Tick) -> Iterator[tuple[list[int], Pairs]]:
        """The pairs with their images, those whose conditionings have one shape together: (their places, pairs).

        :attr:`Pairs.noise` is still empty. ``tick`` is told after every sampling step.
        """
        together: dict[tuple[int, ...], list[int]] = {}
        encoded = [[encode_once(self.clip, prompt) for prompt in one.pair.prompts] for one in pairs]
        for place, (a, _) in enumerate(encoded):
            together.setdefault(tuple(a[0].shape), []).append(place)
        for places in together.values():
            a, b = (stacked([encoded[place][side] for place in places]) for side in range(2))
            seeds = [self._seed(pairs[place], _IMAGE) for place in places]
            latents = sample_latents(self.model, seeds, a, self.negative, self.settings, partial(tick, len(places)))
            names = [" / ".join(pairs[place].pair.prompts) for place in places]
            yield places, Pairs(names, a, b, latents, torch.zeros_like(latents))

    def noise(self, pairs: Sequence[NumberedPair], level: int, like: torch.Tensor) -> torch.Tensor:
        """Noise of unit variance in the shape of latents [P, C, h, w], for the number of a noise level."""
        return torch.cat([comfy.sample.prepare_noise(like[:1], self._seed(one, _LEVEL_NOISE + level)) for one in pairs])

    def sigma(self, progress: float) -> float:
        """The noise level of a sampling progress."""
        return float(self.model.get_model_object("model_sampling").percent_to_sigma(progress))

    def groups(self, pairs: Sequence[NumberedPair]) -> npt.NDArray[np.bool_]:
        """Which tokens of the pairs belong to which of :data:`GROUPS`: bool [4, P, T]."""
        return np.stack([self._groups_of(one.pair) for one in pairs], axis=1)

    def _seed(self, one: NumberedPair, what: int) -> int:
        return pair_seed(one.pair.concept, self.seed, one.number, what)

    def _groups_of(self, pair: Pair) -> npt.NDArray[np.bool_]:
        a, b = (token_map(self.clip, prompt) for prompt in pair.prompts)
        if a.length != b.length or a.content_positions != b.content_positions:
            raise HRVError(
                f"The prompts '{pair.prompts[0]}' and '{pair.prompts[1]}' have different numbers of tokens. Write "
                "words that the tokenizer splits alike."
            )
        own, words = _own_positions(a, b, pair), set(a.content_positions)
        rest = [position for position in range(a.length) if position not in words and position]
        end = [position for position in rest if position - 1 in words]
        groups = np.zeros((len(GROUPS), a.length), dtype=bool)
        padding = [position for position in rest if position not in end]
        for number, positions in enumerate((sorted(own), sorted(words - own), end, padding)):
            groups[number, positions] = True
        return groups


def _own_positions(a: TokenMap, b: TokenMap, pair: Pair) -> set[int]:
    """Where the words stand in which the prompts differ: the occurrence of the word that holds every difference."""
    differ = {
        position
        for one, other in zip(a.words, b.words, strict=False)
        if one != other
        for position in (*one.positions, *other.positions)
    }
    places = [{position for word in words for position in word.positions} for words in a.occurrences(pair.words[0])]
    return next((place for place in places if differ <= place), differ)
