"""Edits that stay where their words are: outside a mask every edit is its source (arXiv 2208.01626, local editing).

The mask comes from the attention that words get in the source's row and in the edit's, in the finest of the small
cross-attention layers, over all evaluations so far. What lies outside is exchanged before and after each evaluation of
the model, as the host does it for inpainting (``comfy/samplers.py``, KSamplerX0Inpaint): every sampler ends with it.
"""

from __future__ import annotations

import logging
from typing import Any

import comfy.patcher_extension
import torch
import torch.nn.functional as F
from comfy.patcher_extension import WrappersMP

from ...hrv.editing.blend import Blend, Positions
from ...hrv.editing.edit import is_small
from ...hrv.heads.layout import AttentionLayer
from ...hrv_kernels.phrase_attention import phrase_attention
from ..models.families.replacers import Replacer
from ..models.families.unet import UNet
from ..models.ours import our_key
from ..page.texts import show_on_running_node
from ..runs.attention import at_every_call
from ..runs.windows import WindowEnds
from .run import Follower, followers_of

_WRAPPER_KEY = our_key("local_blend")
_CALL_KEY = "hrv_blended_rows"

_NOT_SEEN = (
    "Local Blend saw no place in this run, so the edits were not kept to one: either its size is below that of every "
    "cross-attention layer (raise it), or prompts with areas are sampled in pieces (use only one of the two)."
)

_Grid = tuple[int, int]


class LocalBlending:
    """The masks of one sampling run, made while it runs.

    The run is of latents like ``noise`` [B, C, h, w] in groups of ``group`` rows, each position of ``pixels`` x
    ``pixels`` pixels.
    """

    def __init__(
        self,
        architecture: UNet,
        windows: WindowEnds,
        blend: Blend,
        noise: torch.Tensor,
        group: int,
        pixels: int,
    ):
        self.windows, self.blend, self.pixels = windows, blend, pixels
        self.rows, self.group, self.size = len(noise), group, noise.shape[-2:]
        self.attention: dict[_Grid, torch.Tensor] = {}  # float32 [source's words or own, rows, h, w]
        self.wrapping = architecture.replacing(self.replacer)

    def install(self, options: dict[str, Any]) -> None:
        """Get into a run by its own model options."""
        comfy.patcher_extension.add_wrapper_with_key(
            WrappersMP.PREDICT_NOISE, _WRAPPER_KEY, self.evaluate, options, is_model_options=True
        )
        at_every_call(options, _WRAPPER_KEY, self.prepare_call)

    def evaluate(
        self, executor: Any, x: torch.Tensor, timestep: torch.Tensor, model_options: dict[str, Any], seed: Any = None
    ) -> torch.Tensor:
        """PREDICT_NOISE wrapper: outside the mask an edit goes in and comes out as its source."""
        acts = self.windows.is_open(self.blend.window, float(timestep[0]))
        denoised = executor(self.exchanged(x) if acts else x, timestep, model_options, seed)
        return self.exchanged(denoised) if acts else denoised

    def exchanged(self, x: torch.Tensor) -> torch.Tensor:
        """Latents [B, C, h, w] with those of the source outside the masks."""
        if not self.attention:
            return x
        sources = torch.arange(self.rows, device=x.device) // self.group * self.group
        return torch.where(self.masks()[:, None], x, x[sources])

    def masks(self) -> torch.Tensor:
        """Bool [B, h, w] at the latent's size: where each row may differ from its source; sources everywhere."""
        finest = max(self.attention, key=lambda grid: grid[0] * grid[1])
        spread = F.max_pool2d(self.attention[finest], kernel_size=3, stride=1, padding=1)
        there = F.interpolate(spread, size=self.size, mode="bilinear")
        highest = there.amax((-2, -1), keepdim=True).clamp_min(torch.finfo(there.dtype).tiny)
        masks = (there / highest > self.blend.threshold).any(0)
        masks[:: self.group] = True
        return masks

    def finish(self, samples: torch.Tensor) -> None:
        """Keep the masks for whoever asks for them with what the run gave; says so where there are none."""
        if self.attention:
            masks = self.masks().unflatten(0, (-1, self.group))[:, 1:].flatten(0, 1)
            enlarged = masks.repeat_interleave(self.pixels, dim=-2).repeat_interleave(self.pixels, dim=-1)
            self.blend.record.keep(samples, enlarged)
        else:
            self.blend.record.keep_none(_NOT_SEEN)
            logging.warning("[HRV] %s", _NOT_SEEN)
            show_on_running_node(f"HRV: {_NOT_SEEN}")

    def prepare_call(
        self, x: torch.Tensor, context: torch.Tensor | None, transformer_options: dict[str, Any]
    ) -> dict[str, Any]:
        """Have the layers look where the words are, in calls for whole images."""
        followers = [one for one in followers_of(transformer_options, len(x)) if one.prompts.blend is self.blend]
        if not followers or context is None or x.shape[-2:] != self.size:
            return transformer_options
        return self.wrapping.into({**transformer_options, _CALL_KEY: followers})

    def replacer(self, layer: AttentionLayer, previous: Replacer) -> Replacer:
        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
            if is_small(self.blend.size, q.shape[1], self.size[0] * self.size[1]):
                self.look(extra[_CALL_KEY], q, k, extra)
            return previous(q, k, v, extra)

        return attend

    def look(self, followers: list[Follower], q: torch.Tensor, k: torch.Tensor, extra: dict[str, Any]) -> None:
        """Add what the words of sources and edits get at every position of one layer."""
        grid: _Grid = tuple(extra["activations_shape"][-2:])
        if len(q) % self.rows or grid[0] * grid[1] != q.shape[1]:
            return
        found = torch.zeros(2, self.rows, *grid, device=q.device)
        for one in followers:
            words = self.blend.words[one.place - 1]
            sides = ((one.source, one.source_prompt, words[0]), (one.row, one.prompt, words[1]))
            for side, (row, prompt, positions) in enumerate(sides):
                chosen = _chosen(positions, prompt.tokens, k)
                mass = phrase_attention(q[[row]], k[[row]], chosen, extra["n_heads"])
                found[side, one.row % self.rows] += mass.view(grid)
        self.attention[grid] = self.attention.get(grid, 0.0) + found


def _chosen(positions: Positions, own_tokens: int, k: torch.Tensor) -> torch.Tensor:
    """Bool [1, T]: the positions in every copy of a context that the host repeated."""
    chosen = torch.zeros(k.shape[1], dtype=torch.bool)
    for first in range(0, k.shape[1], own_tokens):
        chosen[[first + position for position in positions]] = True
    return chosen[None].to(k.device)
