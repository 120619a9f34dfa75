"""One look at a run: which entries have subjects, what a pass showed, and the gradient of its loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import comfy.samplers
import torch

from ...hrv.errors import HRVError
from ..models.ours import our_key
from ..prompts.carried import EXCITEMENT_KEY
from ..runs.attention import at_every_call
from ..runs.gradients import options_for_gradients, scaled_gradient
from .maps import Excitement, SubjectKey, SubjectMaps

_WRAPPER_KEY = our_key("excitement")


class Look(NamedTuple):
    """What one pass through the model showed, by subject: maps [B, y, x] and their maxima [B]; and per image."""

    maps: dict[SubjectKey, torch.Tensor]
    maxima: dict[SubjectKey, torch.Tensor]
    losses: torch.Tensor  # [B]
    gradient: torch.Tensor | None  # of each image's loss by its own latent


def entries_with_subjects(conds: Mapping[str, Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The entries of a guider's lists, the negative one left out, whose own prompts have subjects."""
    found = []
    for name, entries in conds.items():
        # For an area of one list the host adds a copy of that entry, with all it carries, to the others with the
        # context of one of theirs (create_cond_with_same_area_if_none): subjects belong to who brought the context.
        owners: dict[int, Excitement | None] = {}
        for cond in entries if name != "negative" else ():
            context = cond.get("model_conds", {}).get("c_crossattn")
            excitement = cond.get(EXCITEMENT_KEY)
            if excitement is not None and owners.setdefault(id(context), excitement) is excitement:
                found.append(cond)
            owners.setdefault(id(context), None)
    return found


def grouped_by_hooks(conds: Sequence[dict[str, Any]]) -> list[tuple[Any, list[dict[str, Any]]]]:
    groups: dict[Any, list[dict[str, Any]]] = {}
    for cond in conds:
        groups.setdefault(cond.get("hooks"), []).append(cond)
    return list(groups.items())


def worst_look(looks: Sequence[Look]) -> Look:
    """Several looks as one: for every image, the loss and the gradient of the look with the largest loss."""
    if len(looks) == 1:
        return looks[0]
    losses, which = torch.stack([look.losses for look in looks]).max(0)
    gradients_of = [look.gradient for look in looks if look.gradient is not None]
    gradient = torch.stack(gradients_of)[which, torch.arange(len(which))] if gradients_of else None
    maxima: dict[SubjectKey, torch.Tensor] = {}
    maps: dict[SubjectKey, torch.Tensor] = {}
    for look in looks:
        for key, of_subject in look.maxima.items():
            maxima[key] = torch.minimum(maxima.get(key, of_subject), of_subject)
            maps.setdefault(key, look.maps[key])
    return Look(maps, maxima, losses, gradient)


def latent_gradient(losses: torch.Tensor, latent: torch.Tensor, half: bool) -> torch.Tensor:
    """Of every image's loss by its own latent: images do not see each other."""
    if not losses.requires_grad:
        raise HRVError(
            "No gradient reaches the latent: another node on this model computes without gradients. Remove it from "
            "the model that Attend and Excite samples with."
        )
    return scaled_gradient(losses.sum(), latent, half)


def options_for_looking(options: dict[str, Any], maps: SubjectMaps) -> dict[str, Any]:
    """A copy of model options for one pass with a gradient whose maps are looked at."""
    own = options_for_gradients(options)
    at_every_call(own, _WRAPPER_KEY, maps.into)
    return own


class Conditional:
    """A guider that gives what the conditionings with subjects alone give, through one view of the model."""

    def __init__(self, guider: Any, model: Any, conds: list[dict[str, Any]]):
        self._guider, self._conds = guider, conds
        self.inner_model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guider, name)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, model_options: Any = None, seed: Any = None) -> Any:
        return comfy.samplers.calc_cond_batch(self.inner_model, [self._conds], x, sigma, model_options)[0]
