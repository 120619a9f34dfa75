"""Torch Compile with a backend that needs no compiler on the machine: it counts graphs and runs them as they are.

Tracing takes time for every layer, so models for it are shallow. Imported as ``hrv_pack.tests.support.compiling``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper


@dataclass
class Count:
    """How many graphs were compiled."""

    graphs: int = 0


def compiled_and_counted(model: Any, part: str = "diffusion_model") -> tuple[Any, Count]:
    """A clone of a MODEL behind Torch Compile, of which nothing is compiled yet, and what is from now on.

    ``part`` is the module that is compiled: all of the denoiser, or a block or an attention, which is traced faster.
    """
    count, clone = Count(), model.clone()

    def run_as_it_is(module: Any, inputs: Any) -> Callable[..., Any]:
        count.graphs += 1
        run: Callable[..., Any] = module.forward
        return run

    torch.compiler.reset()
    set_torch_compile_wrapper(clone, run_as_it_is, keys=[part])
    return clone, count
