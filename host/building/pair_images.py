"""The model's own images of pairs of prompts, and which tokens of a pair are what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ...hrv.building.causal_state import GROUPS
from ...hrv.building.pairs import Pair, pair_seed
from ...hrv.errors import quoted
from ...hrv.prompts.tokens import TokenMap
from ..models.architectures import architecture_of
from ..prompts.carried import TEXT_KEYS, Conditioning
from ..prompts.encoding import encode_once, token_map
from ..work.executor import Tick
from ..work.sampling import SamplingSettings, sample_latents, stacked
from .attribution import Pairs
from .word_texts import require_finite


class NumberedPair(NamedTuple):
    """A pair with its number among those of its concept, and the number of the noise level to measure it at."""

    pair: Pair
    number: int
    level: int


class PairImages:
    """Makes images of the first prompts of pairs with one MODEL and CLIP; all draws depend on (seed, pair) alone.

    An image is made as far as the noise level that its pair is measured at: there the sampler's latent is a noised
    image of the prompt, and the rest of the way would only be noised again. ``levels`` are in sampling progress.
    """

    def __init__(
        self,
        model: Any,
        clip: Any,
        settings: SamplingSettings,
        negative: str,
        seed: int,
        levels: Sequence[float],
    ):
        self.model, self.clip, self.settings, self.seed = model, clip, settings, seed
        sampling = model.get_model_object("model_sampling")
        self.sigmas = [float(sampling.percent_to_sigma(level)) for level in levels]
        self.negative: Conditioning = [self._encoded(negative, "the negative prompt")]

    def made(self, pairs: Sequence[NumberedPair], tick: Tick) -> Iterator[tuple[list[int], float, Pairs]]:
        """The pairs at their noised images, those of one level and shape together: (their places, sigma, pairs).

        ``tick`` is told of all sampling steps of a whole image, those that need not be made too.
        """
        together: dict[Any, list[int]] = {}
        encoded = [
            [
                self._encoded(prompt, f"the word {quoted(word)} in {quoted(prompt)}")
                for prompt, word in zip(one.pair.prompts, one.pair.words, strict=True)
            ]
            for one in pairs
        ]
        for place, one in enumerate(pairs):
            tensor, extras = encoded[place][0]
            # What is one for all rows of a batch, such as the tokens of Anima's prompts, is for one pair alone.
            alone = place if any(name in extras for name in TEXT_KEYS) else None
            together.setdefault((one.level, tuple(tensor.shape), alone), []).append(place)
        for (level, *_), places in together.items():
            a, b = (stacked([encoded[place][side] for place in places]) for side in range(2))
            seeds = [pair_seed(pairs[place].pair.concept, self.seed, pairs[place].number) for place in places]
            steps = _Steps(tick, len(places))
            sigma = self.sigmas[level]
            latents = sample_latents(self.model, seeds, a, self.negative, self.settings, steps.done, until=sigma)
            steps.finish(self.settings.steps)
            names = [" / ".join(pairs[place].pair.prompts) for place in places]
            # What is sampled so far holds its noise, so none is added.
            yield places, sigma, Pairs(names, a, b, latents, torch.zeros_like(latents))

    def _encoded(self, prompt: str, what: str) -> list[Any]:
        """The one entry of a prompt's conditioning; HRVError for numbers that are not finite, which name ``what``."""
        entry = encode_once(self.clip, prompt)
        tensor, extras = entry
        for numbers in (tensor, extras.get("pooled_output")):
            if numbers is not None:
                require_finite(what, numbers)
        return entry

    def groups(self, pairs: Sequence[NumberedPair]) -> npt.NDArray[np.bool_]:
        """Which tokens of the pairs belong to which of :data:`GROUPS`: bool [4, P, T]."""
        return np.stack([self._groups_of(one.pair) for one in pairs], axis=1)

    def _groups_of(self, pair: Pair) -> npt.NDArray[np.bool_]:
        a, b = (token_map(self.clip, prompt) for prompt in pair.prompts)
        own, words = _own_positions(a, b, pair), set(a.content_positions)
        rest = [position for position in range(a.length) if position not in words and position]
        end = [position for position in rest if position - 1 in words]
        keys, first = architecture_of(self.model).text_keys(a.length)
        groups = np.zeros((len(GROUPS), keys), dtype=bool)
        padding = [position for position in rest if position not in end]
        for number, positions in enumerate((sorted(own), sorted(words - own), end, padding)):
            groups[number, [first + position for position in positions]] = True
        # What the model itself fills up the text with.
        groups[GROUPS.index("padding"), [*range(first), *range(first + a.length, keys)]] = True
        return groups


class _Steps:
    """Tells of the steps of some images, and of those left out at the end."""

    def __init__(self, tick: Tick, images: int):
        self._tick, self._images, self._made = tick, images, 0

    def done(self) -> None:
        self._made += 1
        self._tick(self._images)

    def finish(self, steps: int) -> None:
        self._tick(self._images * max(0, steps - self._made))


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
