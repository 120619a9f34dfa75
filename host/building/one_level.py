"""The passes of integrated attribution at one noise level: of both texts, gated with a gradient, and patched."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
import comfy.samplers
import torch

from ...hrv.errors import HRVError
from ..models.families.architecture import Architecture
from ..models.families.attention_call import Wrapping
from ..models.older_hosts import is_out_of_memory
from ..models.ours import our_key
from ..runs.attention import at_every_call
from ..runs.gradients import NoRoomError, checkpointed, gradients, options_for_gradients, scaled_gradient
from .patching import Patch, TextReader, gated, patched

_WRAPPER_KEY = our_key("attribution")

OTHER = "other"
"""The guider's list that holds B's conditioning; A's is its positive one."""

Measure = Callable[[Any, torch.Tensor, torch.Tensor, dict[str, Any]], None]
"""(guider in its run, x_t [P, C, h, w], sigma [P], the run's model options)."""


class AtOneLevel(comfy.samplers.Sampler):
    """In a sampler's place: measures at the noise level where sampling would start, and makes no step."""

    def __init__(self, measure: Measure):
        self._measure = measure

    def sample(
        self,
        guider: Any,
        sigmas: torch.Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: torch.Tensor,
        latent_image: torch.Tensor,
        denoise_mask: Any = None,
        disable_pbar: bool = False,
    ) -> torch.Tensor:
        with torch.no_grad():
            x: torch.Tensor = guider.inner_model.model_sampling.noise_scaling(sigmas[0], noise, latent_image)
            self._measure(guider, x, sigmas[:1].expand(len(x)), extra_args["model_options"])
        return x


class Level:
    """P pairs at one noise level, inside the run of a guider with A's conditioning as positive and B's as other.

    x is x_t [P, C, h, w], ``sigma`` [P], ``options`` the run's model options. All numbers it gives are on the CPU.
    ``room`` is how many bytes a graph may keep: layers run twice where it would keep more, and :attr:`room` is 0 then.
    """

    def __init__(
        self,
        architecture: Architecture,
        room: float,
        guider: Any,
        names: Sequence[str],
        x: torch.Tensor,
        sigma: torch.Tensor,
        options: dict[str, Any],
    ):
        self.architecture, self.layout = architecture, architecture.layout
        self.room = room
        self.names, self.x, self.sigma, self.options = names, x, sigma, options
        self.model, self.conds = guider.inner_model, guider.conds["positive"]
        self.reading_b, self.reading_a = TextReader(architecture), TextReader(architecture)
        # A last, so that weights that its hooks exchange are in place before anything is kept for a backward pass.
        self.of_b = self._predict(self.model, guider.conds[OTHER], self.reading_b.wrapping())
        self.of_a = self._predict(self.model, self.conds, self.reading_a.wrapping())
        for reading in (self.reading_b, self.reading_a):
            reading.require_complete(len(x))
        self.difference = self.of_b - self.of_a

    @property
    def squares(self) -> torch.Tensor:
        """|d|^2, float64 [P]."""
        return self._along(self.difference)

    def require_sound(self) -> None:
        """Raise HRVError for predictions that are not finite."""
        passes = {"first": (self.of_a, self.reading_a), "second": (self.of_b, self.reading_b)}
        for which, (prediction, reading) in passes.items():
            broken = (~prediction.isfinite().flatten(1).all(1)).nonzero()
            if len(broken):
                raise HRVError(
                    f"The model gave numbers that are not finite with the {which} prompt of "
                    f"{self.names[int(broken[0])]}, first at {reading.first_broken()}. The checkpoint may be broken, "
                    "or its precision too low."
                )

    def head_effects(self, alpha: float) -> torch.Tensor:
        """The derivative of <v, d> by every head's gate with all gates at ``alpha``, float64 [P, H]; 0 where d is 0."""
        # Brought to a common size for half precision, whose range is small.
        largest = self.difference.abs().amax(tuple(range(1, self.difference.ndim)), keepdim=True)
        largest = torch.where(largest > 0, largest, 1.0)
        along = self.difference / largest
        try:
            by_gates = self._by_gates(alpha, along)
        except Exception as error:
            if not isinstance(error, NoRoomError) and not (self.room and is_out_of_memory(error)):
                raise
            self.room = 0.0
            by_gates = None
        # Outside of the handler, whose error holds on to what the first try kept.
        if by_gates is None:
            comfy.model_management.soft_empty_cache()
            by_gates = self._by_gates(alpha, along)
        broken = (~by_gates.isfinite()).nonzero()
        if len(broken):
            pair, head = broken[0].tolist()
            raise HRVError(
                f"The gradient of {self.names[pair]} has numbers that are not finite, at the head "
                f"'{self.layout.head_names()[head]}': the model's precision is too low for gradients."
            )
        return by_gates.cpu().double() * largest.flatten(1).cpu().double()

    def _by_gates(self, alpha: float, along: torch.Tensor) -> torch.Tensor:
        """The derivative of <v, along> by every head's gate [P, H]; raises NoRoomError where a graph keeps too much."""
        dtype = self.model.get_dtype_inference()
        room = self.room or math.inf
        with gradients(room, self.model.diffusion_model.parameters()) as kept:
            gates = torch.full(
                (len(self.x), self.layout.head_count),
                alpha,
                dtype=torch.promote_types(dtype, torch.float32),
                device=self.x.device,
                requires_grad=True,
            )
            model = self.model
            if not self.room:
                model = checkpointed(model, self.architecture.checkpointed, kept)
            wrapping = gated(self.architecture, gates, self.reading_b.readings)
            prediction = self._predict(model, self.conds, wrapping)
            if not prediction.requires_grad:
                raise HRVError(
                    "No gradient reaches the heads: another node on this model computes without gradients. Take it off "
                    "the model whose heads are measured."
                )
            return scaled_gradient((prediction * along).sum(), gates, half=dtype == torch.float16)

    def patch_effects(self, patch: Patch) -> torch.Tensor:
        """<v(x_t, patch) - v(x_t, A), d>, float64 [P]."""
        wrapping = patched(self.architecture, patch, self.reading_b.readings)
        return self._along(self._predict(self.model, self.conds, wrapping) - self.of_a)

    def _along(self, change: torch.Tensor) -> torch.Tensor:
        return (change.cpu().double() * self.difference.cpu().double()).flatten(1).sum(1)

    def _predict(self, model: Any, conds: list[dict[str, Any]], wrapping: Wrapping) -> torch.Tensor:
        """The denoised latents [P, C, h, w] of conditionings with replacers around whatever attention there is."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        # All passes compute alike, whether or not they have a gradient.
        options = options_for_gradients(self.options)
        at_every_call(options, _WRAPPER_KEY, lambda x, context, call_options: wrapping.into(call_options, context))
        prediction: torch.Tensor = comfy.samplers.calc_cond_batch(model, [conds], self.x, self.sigma, options)[0]
        return prediction
