"""One sampling run with attend-and-excite: at each step's begin the latent moves until the subjects are attended to.

Source: arXiv 2301.13826 and arXiv 2412.02237, section 5.3. Published step sizes are in units of what the network is
given; latents of the host are that times sqrt(sigma^2 + sigma_data^2) (``comfy/model_sampling.py``).
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import comfy.utils
import numpy as np
import psutil
import torch
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY

from ...hrv.attend_and_excite.report import ExcitedStep, ExcitementReport, Iteration, ReportLog
from ...hrv.attend_and_excite.settings import ExcitementSettings, Subject, image_losses, map_size, subject_map
from ...hrv.errors import HRVError
from ...hrv.heads.layout import AttentionLayer, HeadLayout, LayerKey
from ...hrv_kernels.weighted_maps import weighted_maps
from ..models.layouts import head_layout
from ..models.older_hosts import prepare_state
from ..page.texts import show_on_running_node
from ..runs.attention import LayerWrapping, Replacer, at_every_call
from ..runs.gradients import checkpointed, differentiable_attention, gradients, require_differentiable
from ..runs.rows import row_groups

EXCITEMENT_KEY = "hrv_excitement"
"""The key of a conditioning's dict that holds its :class:`Excitement`."""

SubjectKey = tuple[str, str]
"""The uid of a subject's excitement, and its words."""

_WRAPPER_KEY = "hrv_excitement"

# The length of a chunk of CLIP's tokens, which begins with a start token.
_CHUNK = 77

# Plain attend-and-excite looks at maps of a quarter of the latent's side: 16 x 16 for pictures of 512 pixels.
_PLAIN_REDUCTION = 4.0

# Half precision would lose gradients smaller than its smallest number. Tried from the left until all are finite.
_HALF_SCALES = (2.0**12, 2.0**4, 1.0)


@dataclass(frozen=True, eq=False)
class Excitement:
    """What a conditioning carries: the subjects of its prompt and how to treat them.

    ``uid`` is shared by the entries of one conditioning and by copies of it; ``log`` gets the report of every run.
    """

    settings: ExcitementSettings
    subjects: tuple[Subject, ...]
    layout: HeadLayout
    checkpointing: bool
    log: ReportLog
    uid: str = field(default_factory=lambda: uuid4().hex)


class _Prompt(NamedTuple):
    """An entry of a run's conditionings with subjects: what it carries, and the tokens of its own context."""

    excitement: Excitement
    tokens: int


class _Look(NamedTuple):
    """What one pass through the model showed, by subject: maps [B, y, x] and their maxima [B]; and per image."""

    maps: dict[SubjectKey, torch.Tensor]
    maxima: dict[SubjectKey, torch.Tensor]
    losses: torch.Tensor  # [B]
    gradient: torch.Tensor | None  # of each image's loss by its own latent


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
                "Two Attend and Excite nodes with different settings meet in one run: a latent can be moved in one "
                "way only. Give them the same settings."
            )
        self.layout = head_layout(guider.model_patcher)
        for excitement in excitements:
            if excitement.layout.signature != self.layout.signature:
                raise HRVError(
                    f"Attend and Excite was made for {excitement.layout.describe()}, but this model has "
                    f"{self.layout.describe()}. Connect the model that its node was given."
                )
        require_differentiable(guider.model_patcher)
        self.sampling = guider.model_patcher.get_model_object("model_sampling")
        self.subjects = {
            (excitement.uid, subject.words): subject for excitement in excitements for subject in excitement.subjects
        }
        self.report = ExcitementReport([(subject.words, subject.concept) for subject in self.subjects.values()])
        self.logs = list(dict.fromkeys(excitement.log for excitement in excitements))
        self.steps = max(1, len(sigmas) - 1)
        self.ticks = self.settings.iterations + 1
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
        scale = float(self.sampling.calculate_input(sigma[:1], torch.ones_like(x[:1, :1, :1, :1])))
        moving = torch.ones(len(x), dtype=torch.bool, device=x.device)
        for number in range(settings.iterations if threshold is not None else 1):
            self.show_progress(step, number)
            look = self.look(model, x, sigma, kwargs, with_gradient=bool(size))
            if look is None:
                return
            self.require_finite(look, step, number)
            self.record(step, look)
            if look.gradient is None:
                break
            x.sub_(torch.where(moving[:, None, None, None], look.gradient * (size / scale**2), 0.0))
            if threshold is None:
                break
            moving &= look.losses > 1.0 - threshold
            if not moving.any():
                break
        self.report.steps.append(step)

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
        for log in self.logs:
            log.add(latents.cpu().numpy(), self.report)

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
                f"{self.settings.iterations}, loss {step.iterations[-1].losses.max():.3f}"
            )

    def require_finite(self, look: _Look, step: ExcitedStep, iteration: int) -> None:
        found = [("maps of a subject", look.losses[:, None])]
        if look.gradient is not None:
            found.append(("gradient", look.gradient.flatten(1)))
        for what, values in found:
            broken = (~values.isfinite().all(1)).nonzero()
            if len(broken):
                raise HRVError(
                    f"Attend and Excite: the {what} of image {int(broken[0]) + 1} had numbers that are not finite in "
                    f"step {step.number + 1}, iteration {iteration + 1}. Lower the step size; if it happens at once, "
                    "the model's precision is too low for gradients."
                )

    def record(self, step: ExcitedStep, look: _Look) -> None:
        seen = [look.maxima.get(key, torch.full_like(look.losses, math.nan)) for key in self.subjects]
        step.iterations.append(Iteration(look.losses.cpu().numpy(), torch.stack(seen).cpu().numpy()))
        nothing = torch.zeros(len(look.losses), 2, 2)
        self.report.maps = [look.maps.get(key, nothing).cpu().numpy() for key in self.subjects]

    def look(
        self, model: Any, x: torch.Tensor, sigma: torch.Tensor, kwargs: dict[str, Any], with_gradient: bool
    ) -> _Look | None:
        """Run the conditionings with subjects once; None where none of them acts at this sigma."""
        started = time.perf_counter()
        guider = model.inner_model
        on_gpu = x.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(x.device)
        looks = []
        for hooks, conds in _by_hooks(entries_with_subjects(guider.conds)):
            # Weights that hooks exchange have to be in place before anything keeps them for a backward pass.
            patcher, options = guider.inner_model.current_patcher, kwargs["model_options"]
            if hooks is not None:
                patcher.prepare_hook_patches_current_keyframe(sigma, hooks, options)
            prepare_state(patcher, sigma, options)
            patcher.apply_hooks(hooks=hooks)
            looks.append(self.look_with_hooks(model, conds, x, sigma, kwargs, with_gradient))
        found = [look for look in looks if look is not None]
        self.report.seconds += time.perf_counter() - started
        if on_gpu and with_gradient:
            self.report.peak_bytes = max(self.report.peak_bytes or 0, torch.cuda.max_memory_allocated(x.device))
        return _worst(found) if found else None

    def look_with_hooks(
        self,
        model: Any,
        conds: list[dict[str, Any]],
        x: torch.Tensor,
        sigma: torch.Tensor,
        kwargs: dict[str, Any],
        with_gradient: bool,
    ) -> _Look | None:
        with gradients() as kept:
            latent = x.clone().requires_grad_(with_gradient)
            maps = _Maps(self.layout, self.settings, conds)
            guider = model.inner_model
            inner = guider.inner_model
            if self.checkpointing and with_gradient:
                inner = checkpointed(inner, kept)
            # Masks and the like are part of what the sampler calls, so gradients go through them as well.
            conditional = copy.copy(model)
            conditional.inner_model = _Conditional(guider, inner, conds)
            conditional(latent, sigma, **{**kwargs, "model_options": _own_options(kwargs["model_options"], maps)})
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
            gradient = _gradient(losses, latent, _HALF_SCALES if half else (1.0,)) if with_gradient else None
            least: dict[SubjectKey, torch.Tensor] = {}
            for key, maximum in maxima:
                least[key] = torch.minimum(least.get(key, maximum), maximum).detach()
            return _Look({key: map_.detach() for key, map_ in shown}, least, losses.detach(), gradient)


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


def _by_hooks(conds: Sequence[dict[str, Any]]) -> list[tuple[Any, list[dict[str, Any]]]]:
    groups: dict[Any, list[dict[str, Any]]] = {}
    for cond in conds:
        groups.setdefault(cond.get("hooks"), []).append(cond)
    return list(groups.items())


def _worst(looks: Sequence[_Look]) -> _Look:
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
    return _Look(maps, maxima, losses, gradient)


def _gradient(losses: torch.Tensor, latent: torch.Tensor, scales: Sequence[float]) -> torch.Tensor:
    """Of every image's loss by its own latent: images do not see each other."""
    if not losses.requires_grad:
        raise HRVError(
            "No gradient reaches the latent: another node on this model computes without gradients. Take it off the "
            "model that Attend and Excite samples with."
        )
    gradient = latent
    for scale in scales:
        (gradient,) = torch.autograd.grad(losses.sum() * scale, latent, retain_graph=scale != scales[-1])
        gradient = gradient / scale
        if gradient.isfinite().all():
            break
    return gradient


def _own_options(options: dict[str, Any], maps: _Maps) -> dict[str, Any]:
    """A copy of model options for one pass with a gradient whose maps are looked at."""
    own = comfy.model_patcher.create_model_options_clone(options)
    # A graph for the backward pass runs once: neither compiled, nor on several devices.
    own.pop("multigpu_clones", None)
    own["transformer_options"] = differentiable_attention(own.get("transformer_options", {}))
    own["transformer_options"].get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {}).pop(COMPILE_KEY, None)
    at_every_call(own, _WRAPPER_KEY, lambda x, context, call_options: maps.wrapping.into(call_options))
    return own


class _Conditional:
    """A guider that gives what the conditionings with subjects alone give, through one view of the model."""

    def __init__(self, guider: Any, model: Any, conds: list[dict[str, Any]]):
        self._guider, self._conds = guider, conds
        self.inner_model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guider, name)

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, model_options: Any = None, seed: Any = None) -> Any:
        return comfy.samplers.calc_cond_batch(self.inner_model, [self._conds], x, sigma, model_options)[0]


class _PlainSum(NamedTuple):
    """Maps [B, y, x, T] of one size added up over all ``heads`` that have it."""

    distance: float
    size: tuple[int, int]
    heads: int
    maps: torch.Tensor


class _Ask(NamedTuple):
    """What is wanted of one layer: HRV elements [S, heads] or None, and whether its heads are averaged."""

    weights: torch.Tensor | None
    target: tuple[int, int]
    plain: bool


class _Maps:
    """The attention maps of one pass, as far as its subjects need them, by uuid of their conditioning."""

    def __init__(self, layout: HeadLayout, settings: ExcitementSettings, conds: Sequence[dict[str, Any]]):
        self.layout, self.settings = layout, settings
        self.prompts = {
            cond["uuid"]: _Prompt(cond[EXCITEMENT_KEY], cond["model_conds"]["c_crossattn"].cond.shape[1])
            for cond in conds
        }
        self.wrapping = LayerWrapping(layout, self.replacer)
        self.asked: dict[tuple[Any, LayerKey], _Ask] = {}
        # Sums over the heads so far: weighted by each subject's HRV, and plain ones of one size of maps.
        self.weighted: dict[Any, torch.Tensor] = {}
        self.plain: dict[Any, _PlainSum] = {}
        self.complete = False

    def replacer(self, layer: AttentionLayer, previous: Replacer) -> Replacer:
        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
            groups = row_groups(extra["cond_or_uncond"], extra)
            if groups is None or len(q) % len(groups):
                raise HRVError(
                    "Another node changed how prompts share the rows of the batch, so Attend and Excite cannot tell "
                    "which maps are whose. Take it off the model that samples with it."
                )
            rows = len(q) // len(groups)
            for number, group in enumerate(groups):
                if not group.region:
                    own = slice(number * rows, (number + 1) * rows)
                    self.add(layer, extra["uuids"][group.chunk], q[own], k[own], extra)
            return previous(q, k, v, extra)

        return attend

    def add(self, layer: AttentionLayer, uuid: Any, q: torch.Tensor, k: torch.Tensor, extra: dict[str, Any]) -> None:
        """Take up one layer's maps of one conditioning: q [B, P, C], k [B, T, C]."""
        height, width = extra["activations_shape"][-2:]
        # NegPip of other packs doubles the context on its way to the model, and halves it again here.
        tokens = min(self.prompts[uuid].tokens, k.shape[1])
        if height * width != q.shape[1] or k.shape[1] % tokens:
            raise HRVError(
                f"At {layer.name} another node changed the image positions or the tokens ({q.shape[1]} positions of "
                f"{height} x {width}, {k.shape[1]} tokens of {tokens}), so Attend and Excite cannot read the maps."
            )

        def maps(weights: torch.Tensor, target: tuple[int, int]) -> torch.Tensor:
            # The host repeats shorter prompts to a common length (comfy/conds.py, CONDCrossAttn.concat).
            return weighted_maps(q, k, weights, (height, width), target).unflatten(-1, (-1, tokens)).sum(-2)

        # With activation checkpointing every layer runs again in the backward pass and has to do the same again.
        if not self.complete:
            self.ask(layer, uuid, extra, q.device)
        ask = self.asked[uuid, layer.key]
        if ask.weights is not None:
            weighted = maps(ask.weights, ask.target)
            if not self.complete:
                self.weighted[uuid] = self.weighted[uuid] + weighted if uuid in self.weighted else weighted
        if ask.plain:
            plain = maps(torch.ones(1, layer.heads, device=q.device), (height, width))[:, 0]
            if not self.complete:
                self.keep_plain(layer, uuid, plain, extra)

    def ask(self, layer: AttentionLayer, uuid: Any, extra: Mapping[str, Any], device: torch.device) -> None:
        if (uuid, layer.key) in self.asked:
            raise HRVError(
                f"Another node calls the model several times for one latent ({layer.name} ran twice), as tiled "
                "diffusion does, so Attend and Excite does not get whole maps. Take it off the model that samples."
            )
        subjects = self.prompts[uuid].excitement.subjects
        rows = [subject.weights for subject in subjects if subject.weights is not None]
        weights = None
        if rows:
            heads = self.layout.head_slice(layer.key)
            weights = torch.tensor(np.stack(rows)[:, heads] / self.layout.head_count, device=device)
        before = self.plain.get(uuid)
        plain = len(rows) < len(subjects) and (
            before is None
            or before.size == tuple(extra["activations_shape"][-2:])
            or _distance(extra) < before.distance
        )
        height, width = extra["original_shape"][-2:]
        target = map_size(height, width, self.settings.resolution)
        self.asked[uuid, layer.key] = _Ask(weights, target, plain)

    def keep_plain(self, layer: AttentionLayer, uuid: Any, maps: torch.Tensor, extra: Mapping[str, Any]) -> None:
        """Add to the maps of one size, or begin anew with those of a better size."""
        size = tuple(extra["activations_shape"][-2:])
        before = self.plain.get(uuid)
        if before is not None and before.size == size:
            self.plain[uuid] = before._replace(heads=before.heads + layer.heads, maps=before.maps + maps)
        else:
            self.plain[uuid] = _PlainSum(_distance(extra), size, layer.heads, maps)

    def of_subjects(self) -> list[tuple[SubjectKey, torch.Tensor]]:
        """Each subject's map [B, y, x] in every conditioning that acted; raises HRVError where layers were skipped."""
        self.complete = True
        found: list[tuple[SubjectKey, torch.Tensor]] = []
        for uuid in dict.fromkeys(uuid for uuid, _ in self.asked):
            missing = [layer.name for layer in self.layout.layers if (uuid, layer.key) not in self.asked]
            if missing:
                raise HRVError(
                    f"Attend and Excite saw no attention at {', '.join(missing[:4])}: another node replaces it there "
                    "or skips the model. Take it off the model that samples."
                )
            excitement = self.prompts[uuid].excitement
            number = 0
            for subject in excitement.subjects:
                if subject.weights is None:
                    maps = self.plain[uuid].maps / self.plain[uuid].heads
                else:
                    maps = self.weighted[uuid][:, number]
                    number += 1
                starts = range(0, maps.shape[-1], _CHUNK)
                own = subject_map(maps, subject.positions, starts, self.settings.smoothing)
                found.append(((excitement.uid, subject.words), own))
        return found


def _distance(extra: Mapping[str, Any]) -> float:
    """How far a layer's maps are from the size that plain attend-and-excite looks at, in octaves."""
    latent, maps = (math.prod(extra[name][-2:]) for name in ("original_shape", "activations_shape"))
    return abs(math.log2(math.sqrt(latent / maps) / _PLAIN_REDUCTION))
