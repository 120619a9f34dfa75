"""What older ComfyUIs do otherwise than the newest."""

from __future__ import annotations

import inspect
from typing import Any

import torch


def prepare_state(patcher: Any, sigma: torch.Tensor, options: dict[str, Any]) -> None:
    """Tell a ModelPatcher that a call at ``sigma`` [B] comes; before 0.24 it wants to know nothing else."""
    given = (sigma, options)[: len(inspect.signature(patcher.prepare_state).parameters)]
    patcher.prepare_state(*given)
