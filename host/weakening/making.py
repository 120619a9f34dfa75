"""Making the images of an ordered weakening analysis, and scoring them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import comfy.model_management
import comfy.utils
import numpy as np
import torch

from ...hrv.controls.control import Control
from ...hrv.errors import HRVError, printable
from ...hrv.relevance.vectors import HRV
from ...hrv.scoring.experiments import Case
from ...hrv.scoring.scorer import Scorer
from ...hrv.weakening.plan import Plan, Scores, cell_factors
from ..mechanism import with_mechanism
from ..prompts.carried import CONTROLS_KEY, Conditioning
from ..prompts.encoding import encode_prompt, tokenized
from ..work.executor import Tick
from ..work.sampling import have_one_text, sample_latents, stacked
from .grid import Batch, WeakeningSettings

# So many images that all fail say that the scorer does not work at all, and no more are made for it.
HOPELESS = 8


@dataclass(frozen=True, eq=False)
class Examined:
    """What an analysis looks at: an HRV on a model, with what judges its images."""

    model: Any
    clip: Any
    vae: Any
    hrv: HRV
    scorer: Scorer


class ImageMaker:
    """Makes the images of batches."""

    def __init__(
        self,
        examined: Examined,
        cases: Sequence[tuple[Case, ...]],
        concepts: Sequence[str],
        plan: Plan,
        settings: WeakeningSettings,
        tick: Tick,
    ):
        self.model = with_mechanism(examined.model)
        self.clip, self.vae, self.hrv = examined.clip, examined.vae, examined.hrv
        self.cases, self.concepts, self.plan, self.settings, self.tick = cases, concepts, plan, settings, tick
        self.negative = self.clip.encode_from_tokens_scheduled(tokenized(self.clip, settings.negative))
        self.encoded: tuple[int, list[list[Any]]] = (-1, [])

    def entries(self, concept: int) -> list[list[Any]]:
        """The encoded prompts of a concept; those of one concept are kept at a time."""
        if self.encoded[0] != concept:
            rows = [encode_prompt(self.clip, case.prompt)[0] for case in self.cases[concept]]
            self.encoded = concept, [_only_entry(row) for row in rows]
        return self.encoded[1]

    def of(self, batch: Batch) -> torch.Tensor:
        """Images float32 [B, height, width, 3] in 0..1, on the CPU."""
        hrv, (line, heads) = self.hrv, batch.cell
        rows = [self.entries(batch.concept)[case] for case, _ in batch.units]
        factors = cell_factors(batch.cell, hrv, self.concepts[batch.concept], self.plan.order_seed)
        label = f"weaken {heads} heads by {line.factor:g}, {line.order}"
        control = Control(factors, batch.positions, hrv.layout, label=label)
        seeds = [self.settings.seeds[seed] for _, seed in batch.units]
        # Anima's prompts have something of their text beside their tensors, which is one for a whole batch.
        together = [slice(None)] if have_one_text(rows) else [slice(row, row + 1) for row in range(len(rows))]
        latents = torch.cat([self.sampled(rows[some], seeds[some], control) for some in together])
        # Models that make videos give a frame for each image.
        images = self.vae.decode(latents).flatten(0, -4)
        return images.float().cpu().clamp(0, 1)

    def sampled(self, rows: list[list[Any]], seeds: Sequence[int], control: Control) -> torch.Tensor:
        """Latents of prompts with a control, a seed for each."""
        ((tensor, extras),) = stacked(rows)
        positive = [[tensor, {**extras, CONTROLS_KEY: (control,)}]]
        done = partial(self.tick, len(seeds))
        return sample_latents(self.model, seeds, positive, self.negative, self.settings, done)


class Scoring:
    """Scores images, and gives up on a scorer that fails on all of them.

    ``scored`` images have been scored before; a scorer that fails on all of the ``fewest`` first does not work at all.
    """

    def __init__(self, scorer: Scorer, scored: int, fewest: int):
        self.scorer, self.scored, self.fewest = scorer, scored, fewest
        self.failed = 0

    def of(self, images: torch.Tensor, cases: Sequence[Case]) -> Scores:
        """One number for each image; NaN for those that the scorer fails on."""
        try:
            found = _checked(self.scorer.score(images, cases), len(cases))
        except comfy.model_management.InterruptProcessingException:
            raise
        except Exception as error:  # noqa: BLE001 - scorers are other people's code, and one bad image is not the end
            logging.warning("[HRV] %s failed: %s", self.scorer.name, printable(str(error)))
            if len(cases) == 1:
                found = np.array([np.nan])
            else:
                return np.concatenate([self.of(images[[row]], [case]) for row, case in enumerate(cases)])
        self.scored += len(found)
        self.failed += int(np.isnan(found).sum())
        if self.failed == self.scored >= self.fewest:
            raise HRVError(
                f"{self.scorer.name} failed on all of the first {self.failed} images, so no more images are made. The "
                "log says why."
            )
        return found


def _only_entry(conditioning: Conditioning) -> list[Any]:
    if len(conditioning) != 1:
        raise HRVError(
            "The text encoder changes during sampling (scheduled hooks), which an analysis does not support."
        )
    return conditioning[0]


def _checked(scores: Sequence[float], images: int) -> Scores:
    """Scores as numbers; those that are not finite count as failures."""
    found = np.array([float(score) for score in scores])
    if len(found) != images:
        raise HRVError(f"it gave {len(found)} scores for {images} images")
    return np.where(np.isfinite(found), found, np.nan)
