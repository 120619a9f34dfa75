"""What a step of training is made of: captions as tokens, their pictures as latents, and how captions are read.

Every draw depends only on (seed, step, process).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from comfy.sd1_clip import SDTokenizer

from ..host.mini.model import LATENT_SCALE, PROMPT_TOKENS
from .captions import draw_samples
from .latents import to_latents
from .world import CONCEPTS, Pictures, draw

START, END = 49406, 49407


@dataclass(frozen=True)
class TrainingSettings:
    """What a run is made of; ``steps`` may change between parts of one run.

    ``empty``, ``unknown``, ``alone``, ``ends_empty`` and ``ends_other`` are shares of the captions: without words, with
    a word that means nothing, and read as :class:`Reading` says.
    """

    steps: int
    batch: int = 48
    rate: float = 8e-4
    warm_up: int = 200
    decay: int = 1000
    ema: float = 0.999
    empty: float = 0.1
    unknown: float = 0.1
    alone: float = 0.0
    ends_empty: float = 0.0
    ends_other: float = 0.0
    finest_self_attention_from: int = 0
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """Learning rate of ``step``: linear warm-up, constant, linear decay to zero."""
        return self.rate * min(1.0, (step + 1) / self.warm_up, max(0.0, (self.steps - step) / self.decay))


class Vocabulary:
    """The tokens that captions use, as rows of a small embedding; row 0 stands for every other token."""

    def __init__(self) -> None:
        self.tokenizer = SDTokenizer()
        words = {word for names in CONCEPTS.values() for word in names}
        words |= {"a", "and", "in", "the", "on", "center", "shape", "colored", ","}
        used = sorted({token for word in words for token in self._tokens(word)} | {START, END})
        self.token_ids = torch.tensor([-1, *used])
        self._row = {token: row for row, token in enumerate(used, start=1)}

    @lru_cache(maxsize=65536)  # noqa: B019 - one vocabulary lives as long as its training
    def _tokens(self, text: str) -> tuple[int, ...]:
        (chunk,) = self.tokenizer.tokenize_with_weights(text)
        ids = [int(token) for token, _ in chunk]
        return tuple(ids[1 : ids.index(END)])

    def rows(self, captions: list[str], insert_unknown: np.ndarray | None = None) -> torch.Tensor:
        """Embedding rows [B, 77] of captions; where ``insert_unknown`` [B] is >= 0 an unknown token goes in there."""
        rows = torch.full((len(captions), PROMPT_TOKENS), self._row[END])
        for index, caption in enumerate(captions):
            line = [self._row[START], *(self._row[token] for token in self._tokens(caption))]
            if insert_unknown is not None and insert_unknown[index] >= 0:
                line.insert(1 + int(insert_unknown[index]) % len(line), 0)
            rows[index, : len(line)] = torch.tensor(line)
        return rows


class Reading(NamedTuple):
    """How B captions are encoded in training, so that every word says what it means, and only where it stands.

    Tokens of the captions in ``alone`` [B] see the start and themselves only. End and padding get the states that they
    have in caption number ``ends`` [B], or in the empty prompt where that caption still has words; B stands for the
    empty prompt itself. So they are no place to tell anything.
    """

    alone: torch.Tensor
    ends: torch.Tensor


class Batch(NamedTuple):
    """Latents [B, 12, 16, 16], rows [B, 77] of their captions, how these are encoded, and a generator for all else."""

    latents: torch.Tensor
    rows: torch.Tensor
    reading: Reading
    generator: torch.Generator

    def to(self, device: str) -> Batch:
        """The same elsewhere; the generator stays on the CPU, so that every device draws alike."""
        reading = Reading(*(part.to(device) for part in self.reading))
        return Batch(self.latents.to(device), self.rows.to(device), reading, self.generator)


def draw_reading(settings: TrainingSettings, count: int, rng: np.random.Generator) -> Reading:
    """How ``count`` captions are encoded."""
    alone = rng.random(count) < settings.alone
    chance, ends = rng.random(count), np.arange(count)
    ends = np.where(chance < settings.ends_other, rng.permutation(count), ends)
    ends = np.where(chance >= 1 - settings.ends_empty, count, ends)
    return Reading(torch.from_numpy(alone), torch.from_numpy(ends))


def draw_batch(
    vocabulary: Vocabulary,
    settings: TrainingSettings,
    step: int,
    rank: int = 0,
    processes: int = 1,
    render: Callable[[Pictures], torch.Tensor] = draw,
) -> Batch:
    """One process's share of the batch of ``step``."""
    rng = np.random.default_rng((settings.seed, step, rank))
    count = settings.batch // processes
    samples, pictures = draw_samples(count, rng)
    captions = ["" if rng.random() < settings.empty else sample.caption for sample in samples]
    places = np.where(rng.random(count) < settings.unknown, rng.integers(0, 64, count), -1)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    reading = draw_reading(settings, count, rng)
    return Batch(to_latents(render(pictures)) * LATENT_SCALE, vocabulary.rows(captions, places), reading, generator)
