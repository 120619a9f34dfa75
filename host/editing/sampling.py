"""Sampling a batch of sources and their edits: what is checked before, and what is done around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import torch

from ...hrv.errors import HRVError
from ..models.architectures import unet_of
from ..models.capabilities import Capability
from ..models.latents import pixels_per_position
from ..models.older_hosts import is_out_of_memory
from ..prompts.carried import PromptRows
from ..runs.noise import with_shared_noise
from .blending import LocalBlending
from .run import EditingRun


class BatchMemoryError(HRVError, comfy.model_management.OOM_EXCEPTION):
    """A batch of a source and its edits that does not fit into memory, which the host frees as for its own error."""


class EditedSampling:
    """One sampling run with edits: :meth:`install` it into the run's options, then :meth:`sample`.

    Raises HRVError for conditionings with unlike numbers of prompts, rows of one group that do not start from the same
    noise, a batch that is no number of groups, two local blends, an HRV of another head layout than the model's, and as
    :func:`~..runs.noise.with_shared_noise` does.
    """

    def __init__(
        self,
        guider: Any,
        edited: Sequence[PromptRows],
        noise: torch.Tensor,
        sampler: Any,
        sigmas: torch.Tensor,
        seed: int | None,
    ):
        model = guider.model_patcher
        self.group = len(edited[0].rows)
        if any(len(prompts.rows) != self.group for prompts in edited):
            raise HRVError("The conditionings of this run have different numbers of edits: give each the same number.")
        _require_rows(self.group, noise)
        self.run = EditingRun(guider, edited)
        self.blending: LocalBlending | None = None
        for blend in dict.fromkeys(prompts.blend for prompts in edited if prompts.blend is not None):
            if self.blending is not None:
                raise HRVError("This run has two local blends: use one Local Blend, with the words of both.")
            self.blending = LocalBlending(
                unet_of(model, Capability.BLENDING),
                self.run.windows,
                blend,
                noise,
                self.group,
                pixels_per_position(model),
            )
        self.sampler = with_shared_noise(sampler, sigmas, noise, self.group, model.load_device, seed)

    def install(self, options: dict[str, Any]) -> None:
        """Get into a run by its own model options."""
        self.run.install(options)
        if self.blending is not None:
            self.blending.install(options)

    def sample(self, sample: Callable[[Any], torch.Tensor]) -> torch.Tensor:
        """What ``sample`` gives with this run's sampler. Raises BatchMemoryError where memory is too small."""
        try:
            samples = sample(self.sampler)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            edits = "1 edit" if self.group == 2 else f"{self.group - 1} edits"
            raise BatchMemoryError(
                f"A source and {edits} don't fit into memory together. Edits don't depend on each other: make them in "
                "several runs, each with the same source and seed, fewer targets and one source image; or make the "
                "image smaller."
            ) from error
        if self.blending is not None:
            self.blending.finish(samples)
        return samples


def _require_rows(group: int, noise: torch.Tensor) -> None:
    """Raise HRVError unless the batch is groups of so many rows, with one noise in each group."""
    if len(noise) % group:
        raise HRVError(
            f"The source and its edits are {group} rows, but the latent has {len(noise)}. Connect the LATENT of the "
            "last Prompt Edit to the sampler."
        )
    groups = noise.unflatten(0, (-1, group))
    if not torch.equal(groups, groups[:, :1].expand_as(groups)):
        raise HRVError(
            "The source and its edits don't start from the same noise. Connect the LATENT of the last Prompt Edit to "
            "the sampler, and use a noise that follows its batch index."
        )
