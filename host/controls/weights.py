"""The weights of a run's controls: one a row, token and head position, made once for as long as nothing changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from ...hrv.controls.control import Control
from ...hrv.controls.reading import Reading
from ...hrv.errors import HRVError
from ...hrv.heads.layout import HeadLayout, LayerKey
from ...hrv.progress import Window
from ..page.texts import SaidOnce
from ..runs.windows import WindowEnds


class PromptControls(NamedTuple):
    """The controls of a prompt, the tokens of its own context before any repetition, and which of them is its first."""

    controls: tuple[Control, ...]
    tokens: int
    first: int = 0


def require_layout(made: Iterable[Control | Reading], layout: HeadLayout) -> None:
    """Raise HRVError for what was made for another head layout than the model's."""
    for one in made:
        if one.layout.signature != layout.signature:
            raise HRVError(
                f"The control '{one.label}' was made for {one.layout.describe()}, but this model has "
                f"{layout.describe()}. Connect the model that the control's node was given."
            )


class _WindowWeights(NamedTuple):
    """The weights of one window, all its controls multiplied: float32 [B, T, H], and the layers that they change."""

    window: Window
    weights: torch.Tensor
    layers: frozenset[LayerKey]


class ControlWeights:
    """The weights of one sampling run's controls."""

    def __init__(self, layout: HeadLayout, windows: WindowEnds, say: SaidOnce):
        self.layout, self.windows, self.say = layout, windows, say
        self.made: dict[tuple[Any, ...], list[_WindowWeights]] = {}

    def at(
        self,
        sigma: torch.Tensor,
        prompts: tuple[PromptControls, ...],
        rows: int,
        tokens: int,
        halved: bool,
        device: torch.device,
        heads: slice = slice(None),
    ) -> tuple[torch.Tensor, frozenset[LayerKey]]:
        """The weights of all controls at a sigma, [rows, tokens, heads], and all layers that they change.

        ``prompts`` are those of equally many consecutive rows each; ``halved`` says that their contexts reach attention
        with half of their tokens.
        """
        key = (prompts, rows, tokens, halved, device)
        if key not in self.made:
            self.made[key] = self.make(prompts, rows, tokens, halved, device)
        weights: torch.Tensor | None = None
        changed: frozenset[LayerKey] = frozenset()
        for window, of_all_heads, layers in self.made[key]:
            of_window = of_all_heads[..., heads]
            if not window.is_whole:
                start, end = self.windows.of(window)
                # On the device: asking for the sigma here would wait for it at every call.
                of_window = torch.where((sigma <= start) & (sigma > end), of_window, 1.0)
            weights = of_window if weights is None else weights * of_window
            changed |= layers
        return (torch.empty(0) if weights is None else weights), changed

    def make(
        self, prompts: tuple[PromptControls, ...], rows: int, tokens: int, halved: bool, device: torch.device
    ) -> list[_WindowWeights]:
        """The weights of every window, for groups of rows with these prompts."""
        made: dict[Window, np.ndarray] = {}
        for number, prompt in enumerate(prompts):
            own_tokens = prompt.tokens // 2 if halved else prompt.tokens
            active = [control for control in prompt.controls if not control.is_identity]
            if not active:
                continue
            last = prompt.first + max(control.positions[-1] for control in active)
            if tokens % own_tokens:
                self.say(
                    f"A prompt of {own_tokens} tokens reached attention with {tokens}; HRV controls have no "
                    "effect there."
                )
                continue
            if last >= own_tokens:
                self.say(
                    f"A control acts on token {last} of a prompt that reached attention with {own_tokens}, as happens "
                    "when prompts are joined that NegPip doubled; the controls of that prompt have no effect."
                )
                continue
            for control in active:
                weights = made.setdefault(
                    control.window, np.ones((len(prompts), tokens, self.layout.head_count), dtype=np.float32)
                )
                # The host repeats shorter prompts to a common length (comfy/conds.py, CONDCrossAttn.concat).
                for first in range(prompt.first, tokens, own_tokens):
                    weights[number, [first + position for position in control.positions]] *= control.weights
        return [
            _WindowWeights(
                window,
                torch.from_numpy(weights).to(device).repeat_interleave(rows // len(prompts), dim=0),
                frozenset(
                    layer.key
                    for layer in self.layout.layers
                    if (weights[..., self.layout.head_slice(layer.key)] != 1.0).any()
                ),
            )
            for window, weights in made.items()
        ]
