"""The weights of a run's controls: one a row, token and head position, made once for as long as nothing changes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from ...hrv.controls.control import Control
from ...hrv.heads.layout import HeadLayout, LayerKey
from ...hrv.progress import Window
from ..page.texts import SaidOnce
from ..runs.windows import WindowEnds


class Ask(NamedTuple):
    """What a prompt asks for: its controls, and the tokens of its own context before any repetition."""

    controls: tuple[Control, ...]
    tokens: int


class _Weights(NamedTuple):
    """Products of the controls of one window: float32 [B, T, H], and the layers where any of them is not 1."""

    window: Window
    product: torch.Tensor
    layers: frozenset[LayerKey]


class ControlWeights:
    """The weights of one sampling run's controls."""

    def __init__(self, layout: HeadLayout, windows: WindowEnds, say: SaidOnce):
        self.layout, self.windows, self.say = layout, windows, say
        self.made: dict[tuple[Any, ...], list[_Weights]] = {}

    def product(
        self,
        sigma: torch.Tensor,
        asks: tuple[Ask, ...],
        rows: int,
        tokens: int,
        halved: bool,
        device: torch.device,
        heads: slice = slice(None),
    ) -> tuple[torch.Tensor, frozenset[LayerKey]]:
        """The product of all controls at a sigma, [rows, tokens, heads], and all layers that they touch."""
        key = (asks, rows, tokens, halved, device)
        if key not in self.made:
            self.made[key] = self.make(asks, rows, tokens, halved, device)
        product: torch.Tensor | None = None
        touched: frozenset[LayerKey] = frozenset()
        for window, of_all_heads, layers in self.made[key]:
            weights = of_all_heads[..., heads]
            if not window.is_whole:
                start, end = self.windows.of(window)
                # On the device: asking for the sigma here would wait for it at every call.
                weights = torch.where((sigma <= start) & (sigma > end), weights, 1.0)
            product = weights if product is None else product * weights
            touched |= layers
        return (torch.empty(0) if product is None else product), touched

    def make(self, asks: tuple[Ask, ...], rows: int, tokens: int, halved: bool, device: torch.device) -> list[_Weights]:
        """Products of the controls of every window, for groups of rows that ask for ``asks``."""
        products: dict[Window, np.ndarray] = {}
        for number, ask in enumerate(asks):
            own_tokens = ask.tokens // 2 if halved else ask.tokens
            active = [control for control in ask.controls if not control.is_identity]
            if not active:
                continue
            last = max(control.positions[-1] for control in active)
            if tokens % own_tokens:
                self.say(f"A prompt of {own_tokens} tokens reached attention with {tokens}; HRV controls are left out.")
                continue
            if last >= own_tokens:
                self.say(
                    f"A control acts on token {last} of a prompt that reached attention with {own_tokens}, as happens "
                    "when prompts are joined that NegPip doubled; the controls of that prompt are left out."
                )
                continue
            for control in active:
                product = products.setdefault(
                    control.window, np.ones((len(asks), tokens, self.layout.head_count), dtype=np.float32)
                )
                # The host repeats shorter prompts to a common length (comfy/conds.py, CONDCrossAttn.concat).
                for first in range(0, tokens, own_tokens):
                    product[number, [first + position for position in control.positions]] *= control.weights
        return [
            _Weights(
                window,
                torch.from_numpy(product).to(device).repeat_interleave(rows // len(asks), dim=0),
                frozenset(
                    layer.key
                    for layer in self.layout.layers
                    if (product[..., self.layout.head_slice(layer.key)] != 1.0).any()
                ),
            )
            for window, product in products.items()
        ]
