"""Putting subjects on conditionings: the model holds only the mechanism, as with controls.

What a run makes of them is :mod:`.run`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

from comfy.patcher_extension import WrappersMP

from ...hrv.attend_and_excite.report import ReportLog
from ...hrv.attend_and_excite.settings import ExcitementSettings
from ...hrv.attend_and_excite.subjects import find_subjects
from ...hrv.relevance.vectors import HRV
from ..models.capabilities import Capability
from ..models.layouts import head_layout
from ..models.ours import our_key
from ..prompts.carried import EXCITEMENT_KEY, Conditioning, token_maps
from ..runs.steps import at_each_step
from ..work.telling import telling
from .maps import Excitement
from .run import ExcitementRun

_WRAPPER_KEY = our_key("excitement")


def excite(
    model: Any,
    conditioning: Conditioning,
    subjects: Sequence[tuple[str, str]],
    hrv: HRV | None,
    settings: ExcitementSettings,
    *,
    clamp: float | None = None,
    checkpointing: bool = False,
    node: str = "",
) -> tuple[Any, Conditioning, ReportLog]:
    """A clone of the MODEL with the mechanism, a copy of the conditioning that carries subjects, and where reports go.

    ``subjects`` are (words, concept) pairs, the concept empty for plain attend-and-excite. The page shows on the node
    with the id ``node`` how runs go. Tensors are shared. Raises HRVError for a conditioning without token maps and as
    :func:`~...hrv.attend_and_excite.subjects.find_subjects` does.
    """
    layout, log, uid = head_layout(model, Capability.EXCITEMENT), ReportLog(), uuid4().hex
    found = [find_subjects(tokens, subjects, hrv, clamp) for tokens in token_maps(conditioning)]
    tagged = [
        [tensor, {**extras, EXCITEMENT_KEY: Excitement(settings, own, layout, checkpointing, log, node, uid)}]
        for (tensor, extras), own in zip(conditioning, found, strict=True)
    ]
    clone = model.clone()
    if not clone.get_wrappers(WrappersMP.OUTER_SAMPLE, _WRAPPER_KEY):
        clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, _WRAPPER_KEY, _sample_with_subjects)
    return clone, tagged, log


def _sample_with_subjects(
    executor: Any, noise: Any, latent_image: Any, sampler: Any, sigmas: Any, *args: Any, **kwargs: Any
) -> Any:
    """OUTER_SAMPLE wrapper: a fresh state for each run."""
    guider = executor.class_obj
    excitements = [
        cond[EXCITEMENT_KEY]
        for name, conds in guider.conds.items()
        if name != "negative"
        for cond in conds
        if EXCITEMENT_KEY in cond
    ]
    if not excitements:
        logging.warning(
            "[HRV] Attend and Excite: no positive conditioning of this run has subjects, so nothing moves. Connect "
            "the CONDITIONING of its node to the sampler."
        )
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    run = ExcitementRun(guider, excitements, sigmas)
    with ExitStack() as stack:
        for node in run.nodes:
            told = telling("Attend and Excite", "steps", run.steps, run.seen, node=node)
            run.tellers.append(stack.enter_context(told))
        latents = executor(noise, latent_image, at_each_step(sampler, run.begin_step), sigmas, *args, **kwargs)
        run.finish(latents)
    return latents
