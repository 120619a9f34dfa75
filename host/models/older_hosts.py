"""What older ComfyUIs do otherwise than the newest."""

from __future__ import annotations

import inspect
from typing import Any

import comfy.model_management
import torch


def prepare_state(patcher: Any, sigma: torch.Tensor, options: dict[str, Any]) -> None:
    """Tell a ModelPatcher that a call at ``sigma`` [B] comes; before 0.24 it wants to know nothing else."""
    given = (sigma, options)[: len(inspect.signature(patcher.prepare_state).parameters)]
    patcher.prepare_state(*given)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a device's memory was too small; 0.16.3 knows it by its type only."""
    known = getattr(comfy.model_management, "is_oom", None)
    return known(error) if known else isinstance(error, comfy.model_management.OOM_EXCEPTION)


def without_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor, but a weight that wants a gradient as one that wants none: before 0.30 all weights want one."""
    return tensor.detach() if isinstance(tensor, torch.nn.Parameter) else tensor
