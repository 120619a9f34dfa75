"""One sampling run with attend-and-excite: at each step's begin the latent moves until the subjects are attended to.

Source: arXiv 2301.13826 and arXiv 2412.02237, section 5.3. Published step sizes are in units of what the network is
given; latents of the host are that times sqrt(sigma^2 + sigma_data^2) (``comfy/model_sampling.py``).
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Sequence
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import comfy.utils
import numpy as np
import numpy.typing as npt
import psutil
import torch

from ...hrv.attend_and_excite.loss import image_losses
from ...hrv.attend_and_excite.report import ExcitedStep, ExcitementReport, Iteration
from ...hrv.errors import HRVError
from ..models.architectures import architecture_of
from ..models.capabilities import Capability
from ..models.older_hosts import prepare_state
from ..page.texts import show_on_running_node
from ..runs.gradients import checkpointed, gradients, require_differentiable
from ..work.status import Curve, Curves, Seen
from ..work.telling import Teller
from .look import (
    Conditional,
    Look,
    entries_with_subjects,
    grouped_by_hooks,
    latent_gradient,
    options_for_looking,
    worst_look,
)
from .maps import Excitement, SubjectKey, SubjectMaps


class ExcitementRun:
    """What one sampling run keeps.

    Raises HRVError for excitements that ask for different settings or were made for another head layout than the
    model's, and for weights that cannot be differentiated.
    """

    def __init__(self, guider: Any, excitements: Sequence[Excitement], sigmas: torch.Tensor):
        first = excitements[0]
        self.settings, self.checkpointing = first.settings, any(one.checkpointing for one in excitements)
        if any(one.settings != self.settings for one in excitements):
            raise HRVError(
                "Two Attend and Excite nodes with different settings are used in one run, but a latent can only be "
                "moved in one way. Give them the same settings."
            )
        self.architecture = architecture_of(guider.model_patcher, Capability.EXCITEMENT)
        layout = self.architecture.layout
        for excitement in excitements:
            if excitement.layout.signature != layout.signature:
                raise HRVError(
                    f"Attend and Excite was made for {excitement.layout.describe()}, but this model has "
                    f"{layout.describe()}. Connect the model that its node was given."
                )
        require_differentiable(guider.model_patcher, "Attend and Excite")
        self.sampling = guider.model_patcher.get_model_object("model_sampling")
        self.subjects = {
            (excitement.uid, subject.words): subject for excitement in excitements for subject in excitement.subjects
        }
        self.report = ExcitementReport([(subject.words, subject.concept) for subject in self.subjects.values()])
        self.logs = list(dict.fromkeys(excitement.log for excitement in excitements))
        self.nodes = list(dict.fromkeys(excitement.node for excitement in excitements if excitement.node))
        self.tellers: list[Teller] = []
        self.steps = max(1, len(sigmas) - 1)
        self.ticks = self.settings.iterations + 2
        self.bar = comfy.utils.ProgressBar(self.steps * self.ticks)
        self.before = -1.0
        self.number = -1

    def begin_step(self, model: Any, x: torch.Tensor, sigma: torch.Tensor, kwargs: dict[str, Any]) -> None:
        """Move the latents ``x`` [B, C, h, w] of a step in place, each image by its own loss.

        ``model`` is what the sampler calls, ``kwargs`` what it calls it with.
        """
        self.number += 1
        settings, progress = self.settings, self.progress_of(float(sigma[0]))
        if not settings.window.start <= progress < settings.window.end:
            return
        size = settings.step_at(progress)
        # Without steps nothing can be reached: one look at each step is all.
        threshold, self.before = settings.maximum_at(self.before, progress) if size else None, progress
        step = ExcitedStep(self.number, progress, float(sigma[0]), threshold)
        # The share of the network's input that a latent of this sigma makes up.
        scale = float(self.sampling.calculate_input(sigma[:1], x.new_ones(1, 1, 1, 1)))
        moving = torch.ones(len(x), dtype=torch.bool, device=x.device)

        def update() -> Look | None:
            """Look once, and move the images in ``moving``; None where no prompt with subjects acts."""
            number = len(step.iterations)
            self.show_progress(step, number)
            look = self.look(model, x, sigma, kwargs, with_gradient=bool(size))
            if look is None:
                return None
            self.require_finite(look, step, number)
            self.record(step, look)
            if look.gradient is not None:
                x.sub_(torch.where(moving.view(-1, *[1] * (x.ndim - 1)), look.gradient * (size / scale**2), 0.0))
            return look

        look = update()
        if look is None:
            return
        if threshold is not None:
            # Images that miss the threshold are moved until they reach it, and then once more as in any other step
            # (the authors' code refines a latent first and then makes its ordinary update).
            missed = look.losses > 1.0 - threshold
            moving &= missed
            while moving.any() and len(step.iterations) < settings.iterations:
                look = update()
                if look is None:
                    return
                moving &= look.losses > 1.0 - threshold
            moving.copy_(missed)
            if moving.any():
                update()

    def finish(self, latents: torch.Tensor) -> None:
        """Leave the report of the run that made ``latents`` [B, C, h, w], and say what it did not reach."""
        if not self.report.steps:
            window = self.settings.window
            self.say(
                f"none of the {self.steps} steps lies between the progress {window.start:g} and {window.end:g} where "
                "subjects act, so nothing was moved."
            )
        for sentence in self.report.unmet():
            self.say(sentence)
        self.tell(self.steps)
        for log in self.logs:
            log.add(_array(latents), self.report)

    def tell(self, done: int) -> None:
        for teller in self.tellers:
            teller.tell(min(done, self.steps))

    def seen(self) -> Seen:
        """The loss and the subjects' maxima so far."""
        curves = [Curve.of(name, range(1, len(values) + 1), values) for name, values in self.report.curves()]
        return Seen(Curves("updates", "share of attention, and loss", curves))

    def say(self, sentence: str) -> None:
        logging.warning("[HRV] Attend and Excite: %s", sentence)
        show_on_running_node(f"HRV: Attend and Excite: {sentence}")

    def progress_of(self, sigma: float) -> float:
        """Sampling progress at a sigma to four digits: where the host's own conversion, which falls, meets it."""
        low, high = 0.0, 1.0
        for _ in range(32):
            middle = (low + high) / 2
            low, high = (middle, high) if self.sampling.percent_to_sigma(middle) > sigma else (low, middle)
        # Schedules hit a half and the like by rounding only.
        return round(high, 4)

    def show_progress(self, step: ExcitedStep, iteration: int) -> None:
        """Count the iteration on the node that samples; raises the host's exception if the user cancelled."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.bar.update_absolute(min(step.number, self.steps - 1) * self.ticks + iteration)
        if iteration:
            show_on_running_node(
                f"Attend and Excite: step {step.number + 1} of {self.steps}, iteration {iteration + 1} of at most "
                f"{self.settings.iterations + 1}, loss {step.iterations[-1].losses.max():.3f}"
            )

    def require_finite(self, look: Look, step: ExcitedStep, iteration: int) -> None:
        found = [("maps of a subject", look.losses[:, None])]
        if look.gradient is not None:
            found.append(("gradient", look.gradient.flatten(1)))
        for what, values in found:
            broken = (~values.isfinite().all(1)).nonzero()
            if len(broken):
                raise HRVError(
                    f"Attend and Excite: the {what} of image {int(broken[0]) + 1} had numbers that aren't finite in "
                    f"step {step.number + 1}, iteration {iteration + 1}. Lower the step size; if it happens at once, "
                    "the model's precision is too low for gradients."
                )

    def record(self, step: ExcitedStep, look: Look) -> None:
        if not step.iterations:
            self.report.steps.append(step)
        seen = [look.maxima.get(key, torch.full_like(look.losses, math.nan)) for key in self.subjects]
        step.iterations.append(Iteration(_array(look.losses), _array(torch.stack(seen))))
        nothing = torch.zeros(len(look.losses), 2, 2)
        self.report.maps = [_array(look.maps.get(key, nothing)) for key in self.subjects]
        self.tell(step.number)

    def look(
        self, model: Any, x: torch.Tensor, sigma: torch.Tensor, kwargs: dict[str, Any], with_gradient: bool
    ) -> Look | None:
        """Run the conditionings with subjects once; None where none of them acts at this sigma."""
        started = time.perf_counter()
        guider = model.inner_model
        on_gpu = x.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(x.device)
        looks = []
        for hooks, conds in grouped_by_hooks(entries_with_subjects(guider.conds)):
            # Weights that hooks exchange have to be in place before anything keeps them for a backward pass.
            patcher, options = guider.inner_model.current_patcher, kwargs["model_options"]
            if hooks is not None:
                patcher.prepare_hook_patches_current_keyframe(sigma, hooks, options)
            prepare_state(patcher, sigma, options)
            patcher.apply_hooks(hooks=hooks)
            # Networks that draw (token merging) draw in every look what they draw in the step itself.
            with torch.random.fork_rng([x.device] if on_gpu else []):
                looks.append(self.look_with_hooks(model, conds, x, sigma, kwargs, with_gradient))
        found = [look for look in looks if look is not None]
        self.report.seconds += time.perf_counter() - started
        if on_gpu and with_gradient:
            self.report.peak_bytes = max(self.report.peak_bytes or 0, torch.cuda.max_memory_allocated(x.device))
        return worst_look(found) if found else None

    def look_with_hooks(
        self,
        model: Any,
        conds: list[dict[str, Any]],
        x: torch.Tensor,
        sigma: torch.Tensor,
        kwargs: dict[str, Any],
        with_gradient: bool,
    ) -> Look | None:
        with gradients() as kept:
            latent = x.clone().requires_grad_(with_gradient)
            maps = SubjectMaps(self.architecture, self.settings, conds)
            guider = model.inner_model
            inner = guider.inner_model
            if self.checkpointing and with_gradient:
                inner = checkpointed(inner, self.architecture.checkpointed, kept)
            # Masks and the like are part of what the sampler calls, so gradients go through them as well.
            conditional = copy.copy(model)
            conditional.inner_model = Conditional(guider, inner, conds)
            options = options_for_looking(kwargs["model_options"], maps)
            conditional(latent, sigma, **{**kwargs, "model_options": options})
            shown = maps.of_subjects()
            if not shown:
                return None
            maxima = [(key, of_subject.amax((1, 2))) for key, of_subject in shown]
            losses = image_losses(torch.stack([maximum for _, maximum in maxima], dim=-1))
            if with_gradient and latent.device.type == "cpu":
                # Nothing counts a CPU's tensors, and the backward pass adds little to the graph.
                in_use = psutil.Process().memory_info().rss
                self.report.peak_bytes = max(self.report.peak_bytes or 0, in_use)
            half = guider.inner_model.get_dtype_inference() == torch.float16
            gradient = latent_gradient(losses, latent, half) if with_gradient else None
            least: dict[SubjectKey, torch.Tensor] = {}
            for key, maximum in maxima:
                least[key] = torch.minimum(least.get(key, maximum), maximum).detach()
            return Look({key: map_.detach() for key, map_ in shown}, least, losses.detach(), gradient)


def _array(tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    """A tensor's numbers; under autocast they may be of a type that numpy does not have."""
    return tensor.float().cpu().numpy()
