"""Gradients through the host's denoisers, which it runs and often loads under inference mode.

The user's model is never changed: what a graph cannot keep is exchanged on its way into each operation.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import comfy.ldm.modules.attention
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from comfy.quant_ops import QuantizedTensor
from torch.autograd.graph import allow_mutation_on_saved_tensors
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from ..hrv.errors import HRVError

# Layers whose second argument is a weight, which the host may have put into a buffer that it fills again for the next.
_WITH_WEIGHTS = frozenset(
    {
        torch.nn.functional.linear,
        torch.nn.functional.conv2d,
        torch.conv2d,
        torch.nn.functional.group_norm,
        torch.nn.functional.layer_norm,
    }
)


@contextmanager
def gradients() -> Iterator[None]:
    """Inside, operations on a tensor that requires a gradient build a graph, whatever mode the caller is in.

    The host and other nodes change activations in place (``h += control``); what the graph needs is copied then.
    """
    with torch.inference_mode(False), torch.enable_grad(), allow_mutation_on_saved_tensors(), _OrdinaryTensors():
        yield


class _OrdinaryTensors(TorchFunctionMode):
    """Gives every operation ordinary tensors: autograd cannot keep those made under inference mode.

    Weights are seen through a second tensor on the same memory, so they cost nothing. Other tensors are copied,
    because the host may fill their memory again before the backward pass.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args = tuple(map(_ordinary, args))
        if func in _WITH_WEIGHTS:
            args = (args[0], *map(_own_memory, args[1:]))
        return func(*args, **{name: _ordinary(value) for name, value in (kwargs or {}).items()})


def _ordinary(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(map(_ordinary, value))
    if type(value) not in (torch.Tensor, torch.nn.Parameter) or not value.is_inference():
        return value
    if not isinstance(value, torch.nn.Parameter):
        return value.clone()
    alias = torch.empty(0, dtype=value.dtype, device=value.device)
    return alias.set_(value.untyped_storage(), value.storage_offset(), value.shape, value.stride())


def _own_memory(value: Any) -> Any:
    """A weight that is a piece of a larger memory, but of no parameter, as a copy."""
    if type(value) is torch.Tensor and value._is_view() and not value.requires_grad:
        return value if isinstance(value._base, torch.nn.Parameter) else value.clone()
    return value


def require_differentiable(model: Any) -> None:
    """Raise HRVError for a MODEL with weights in a format whose layers have no gradient."""
    for name, weight in model.get_model_object("diffusion_model").named_parameters():
        if isinstance(weight, QuantizedTensor):
            raise HRVError(
                f"This model's weights are quantised ({name}: {weight._layout_cls}), and no gradient goes through such "
                "layers, which Attend and Excite needs. Load the checkpoint in half precision, or as plain fp8."
            )


def differentiable_attention(options: dict[str, Any]) -> dict[str, Any]:
    """A copy of transformer options with PyTorch's own attention: others the user may have chosen have no gradient."""

    def attend(_: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return comfy.ldm.modules.attention.attention_pytorch(*args, **kwargs)

    return {**options, "optimized_attention_override": attend}


def checkpointed(model: torch.nn.Module) -> Any:
    """A view of the host's BaseModel whose blocks keep nothing but their inputs for the backward pass.

    It shares all weights; the model itself stays as it is.
    """
    view = copy.copy(model)
    view._modules = {**model._modules, "diffusion_model": _checkpointed(model.diffusion_model)}
    return view


def _checkpointed(module: Any) -> Any:
    view = copy.copy(module)
    if isinstance(module, (ResBlock, SpatialTransformer)):
        view.forward = functools.partial(_forward_twice, module.forward)
    else:
        view._modules = {name: _checkpointed(part) for name, part in module._modules.items()}
    return view


def _forward_twice(forward: Callable[..., torch.Tensor], *args: Any) -> torch.Tensor:
    # The host writes the number of the block into its options as it goes: the second time needs those of the first.
    own = [dict(arg) if isinstance(arg, dict) else arg for arg in args]
    # On a GPU the second time is another thread's.
    contexts = lambda: (nullcontext(), _OrdinaryTensors())  # noqa: E731
    return checkpoint(forward, *own, use_reentrant=False, context_fn=contexts)
