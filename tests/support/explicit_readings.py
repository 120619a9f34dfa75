"""Readings as their definition says: maps of both prompts in float64, mixed head by head.

It knows nothing of how readings travel: rows are recognised by their context, windows by the timestep. Imported as
``hrv_pack.tests.support.explicit_readings``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...host.models.architectures import unet_of
from .small_host import explicit_maps


@dataclass(frozen=True)
class ExplicitReading:
    """Rows that begin with ``context`` [T, C] read ``other`` [T', C] with gates [H].

    ``weights`` [T', H] multiply the columns of the other prompt's maps, ``own_weights`` [T, H] those of the rows' own.
    """

    context: torch.Tensor
    other: torch.Tensor
    gates: np.ndarray
    window: tuple[float, float] = (0.0, 1.0)
    weights: np.ndarray | None = None
    own_weights: np.ndarray | None = None

    def is_open(self, progress: float) -> bool:
        start, end = self.window
        return start <= progress < end or start < progress == end == 1.0


def with_explicit_readings(model: Any, readings: Sequence[ExplicitReading]) -> Any:
    """A clone of a MODEL some of whose rows read other prompts, a later reading over the earlier ones."""
    architecture = unet_of(model)
    layout, modules = architecture.layout, architecture.cross_attention
    clone = model.clone()

    def note(executor: Any, x: Any, timesteps: Any, context: Any, y: Any, control: Any, options: Any) -> Any:
        asked = [
            [
                one
                for one in readings
                if torch.equal(context[row, : len(one.context)], one.context)
                and one.is_open(1.0 - float(timesteps[row]) / 999)
            ]
            for row in range(len(context))
        ]
        return executor(x, timesteps, context, y, control, {**options, "explicit_readings": asked})

    def weighed(
        q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, weights: np.ndarray | None, heads: slice
    ) -> torch.Tensor:
        """[heads, P, d] of one row."""
        count = heads.stop - heads.start
        maps = explicit_maps(q[None], k[None], count)[0]
        if weights is not None:
            maps = maps * torch.from_numpy(weights[:, heads].T.copy()).double()[:, None]
        return maps @ v.double().unflatten(-1, (count, -1)).transpose(0, 1)

    def replacer(key: Any) -> Callable[..., torch.Tensor]:
        heads = layout.head_slice(key)

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
            rows = []
            for row, asked in enumerate(extra["explicit_readings"]):
                own = next((one.own_weights for one in asked), None)
                out = weighed(q[row], k[row], v[row], own, heads)
                for one in asked:
                    gates = torch.from_numpy(one.gates[heads]).double()[:, None, None]
                    to_k, to_v = modules[key].to_k, modules[key].to_v
                    found = weighed(q[row], to_k(one.other), to_v(one.other), one.weights, heads)
                    out = (1 - gates) * out + gates * found
                rows.append(out.transpose(0, 1).flatten(1))
            return torch.stack(rows).to(q.dtype)

        return attend

    clone.add_wrapper_with_key("diffusion_model", "explicit readings", note)
    for layer in layout.layers:
        clone.set_model_attn2_replace(replacer(layer.key), *layer.key)
    return clone
