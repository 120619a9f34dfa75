"""Gradients through the host's denoisers, which it runs and often loads under inference mode.

The user's model is never changed: what a graph cannot keep is exchanged on its way into each operation.
"""

from __future__ import annotations

import copy
import functools
import importlib
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import WeakSet

import comfy.ldm.modules.attention
import comfy.model_patcher
import torch
from comfy.patcher_extension import WrappersMP
from comfy.quant_ops import QuantizedTensor
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from ...hrv.errors import HRVError
from ..models.older_hosts import without_gradient

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

# Scales of a loss in float16, tried from the left until all of its gradient is finite.
_HALF_SCALES = (2.0**12, 2.0**4, 1.0)


class KeptTensor:
    """A tensor as it was when it was kept."""

    def __init__(self, tensor: torch.Tensor):
        self.tensor = tensor


class NoRoomError(Exception):
    """A graph would keep more than it may."""


class KeptTensors(TorchDispatchMode):
    """Copies what is kept before anything changes it in place, through whatever view.

    What is kept may take ``room`` bytes in all, beside the memory of ``weights``: :meth:`keep` raises NoRoomError then.

    PyTorch's own ``allow_mutation_on_saved_tensors`` goes by addresses and ids: it misses changes through views that
    begin elsewhere, and takes a new tensor in the place of one that changed for that one.
    """

    def __init__(self, room: float = math.inf, weights: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self._left, self._weights = room, {_memory(weight) for weight in weights}
        # By the memory that they are in, which cannot be another's as long as one of them is alive.
        self._by_memory: dict[int, WeakSet[KeptTensor]] = {}

    def keep(self, tensor: torch.Tensor) -> KeptTensor:
        # Not what made it: a graph that keeps its own results would never be freed.
        kept, memory = KeptTensor(tensor.detach()), _memory(tensor)
        if memory not in self._weights and not self._by_memory.get(memory):
            self._take(tensor)
        self._by_memory.setdefault(memory, WeakSet()).add(kept)
        return kept

    def _take(self, tensor: torch.Tensor) -> None:
        self._left -= tensor.untyped_storage().nbytes()
        if self._left < 0:
            raise NoRoomError

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for place, name in _changed_by(func):
            changed = args[place] if place < len(args) else kwargs.get(name)
            for tensor in changed if isinstance(changed, (list, tuple)) else [changed]:
                # Several operations keep the same activations: one copy is enough for them.
                copies: dict[Any, torch.Tensor] = {}
                for kept in self._by_memory.pop(_memory(tensor), ()):
                    old = kept.tensor
                    view = (old.dtype, old.storage_offset(), old.shape, old.stride())
                    kept.tensor = copies[view] if view in copies else copies.setdefault(view, old.clone())
        return func(*args, **kwargs)


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


@functools.cache
def _changed_by(func: Any) -> list[tuple[int, str]]:
    """The places and names of the arguments that an operation writes to."""
    return [
        (place, argument.name)
        for place, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


@contextmanager
def gradients(room: float = math.inf, weights: Iterable[torch.Tensor] = ()) -> Iterator[KeptTensors]:
    """Inside, operations on a tensor that requires a gradient build a graph, whatever mode the caller is in.

    The host and other nodes change activations in place (``h += control``); what the graph needs is copied then, and
    what else :meth:`KeptTensors.keep` was given. Raises NoRoomError once all of that takes more than ``room`` bytes,
    not counting what is in the memory of ``weights``.
    """
    kept = KeptTensors(room, weights)
    hooks = saved_tensors_hooks(kept.keep, lambda saved: saved.tensor)
    with torch.inference_mode(False), torch.enable_grad(), hooks, kept, _OrdinaryTensors():
        yield kept


class _OrdinaryTensors(TorchFunctionMode):
    """Gives every operation ordinary tensors: autograd cannot keep those made under inference mode.

    Weights are seen through a second tensor on the same memory, so they cost nothing. Other tensors are copied,
    because the host may fill their memory again before the backward pass.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args = tuple(map(_ordinary, args))
        if func in _WITH_WEIGHTS:
            args = (args[0], *map(_own_memory, args[1:]))
        return _with_gradient(func)(*args, **{name: _ordinary(value) for name, value in (kwargs or {}).items()})


class _SecondTime(_OrdinaryTensors):
    """The same for a block that is run again and changes some of what it gets in place (``img += ...`` in Flux).

    What its graph keeps has to stay as it is, so that operations get copies of :attr:`changing`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changing: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.changing and not getattr(func, "__name__", "").endswith("_"):
            memory = {_memory(tensor) for tensor in self.changing}
            args = tuple(
                arg.clone() if isinstance(arg, torch.Tensor) and _memory(arg) in memory else arg for arg in args
            )
        return super().__torch_function__(func, types, args, kwargs)


def _with_gradient(func: Any) -> Any:
    """An operation, but one of the host's fused ones, which have no gradient, as it is written out.

    ``comfy_kitchen.apply_rope`` and the like: the rotation of queries and keys in transformers.
    """
    library, _, name = str(func).partition(".") if type(func).__module__ == "torch._ops" else ("", "", "")
    if library != "comfy_kitchen":
        return func
    return getattr(importlib.import_module("comfy_kitchen.backends.eager"), name.partition(".")[0], func)


def _ordinary(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(map(_ordinary, value))
    if type(value) not in (torch.Tensor, torch.nn.Parameter):
        return value
    if not value.is_inference():
        return without_gradient(value)
    if not isinstance(value, torch.nn.Parameter):
        return value.clone()
    alias = torch.empty(0, dtype=value.dtype, device=value.device)
    return alias.set_(value.untyped_storage(), value.storage_offset(), value.shape, value.stride())


def _own_memory(value: Any) -> Any:
    """A weight that is a piece of a larger memory, but of no parameter, as a copy."""
    if type(value) is torch.Tensor and value._is_view() and not value.requires_grad:
        return value if isinstance(value._base, torch.nn.Parameter) else value.clone()
    return value


def require_differentiable(model: Any, needed_by: str) -> None:
    """Raise HRVError for a MODEL with weights in a format whose layers have no gradient, which ``needed_by`` needs."""
    for name, weight in model.get_model_object("diffusion_model").named_parameters():
        if isinstance(weight, QuantizedTensor):
            raise HRVError(
                f"This model's weights are quantised ({name}: {weight._layout_cls}), and no gradient can pass through "
                f"such layers, but {needed_by} needs one. Load the checkpoint in half precision, or as plain fp8."
            )


def options_for_gradients(options: dict[str, Any]) -> dict[str, Any]:
    """A copy of model options for passes with a gradient.

    A graph for the backward pass runs once: neither compiled, nor on several devices. Attention is PyTorch's own:
    others that the user may have chosen have no gradient.
    """

    def attend(_: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return comfy.ldm.modules.attention.attention_pytorch(*args, **kwargs)

    own = comfy.model_patcher.create_model_options_clone(options)
    own.pop("multigpu_clones", None)
    transformer_options = own.setdefault("transformer_options", {})
    transformer_options["optimized_attention_override"] = attend
    transformer_options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {}).pop(COMPILE_KEY, None)
    return own


def scaled_gradient(loss: torch.Tensor, at: torch.Tensor, half: bool) -> torch.Tensor:
    """The derivative of a number by ``at``, of a network that computes in float16 if ``half``.

    float16 loses gradients smaller than its smallest number: there the loss is scaled up for the backward pass as far
    as the gradient stays finite.
    """
    gradient = at
    scales = _HALF_SCALES if half else (1.0,)
    for scale in scales:
        (gradient,) = torch.autograd.grad(loss * scale, at, retain_graph=scale != scales[-1])
        gradient = gradient / scale
        if gradient.isfinite().all():
            break
    return gradient


def checkpointed(model: torch.nn.Module, blocks: tuple[type[torch.nn.Module], ...], kept: KeptTensors) -> Any:
    """A view of the host's BaseModel whose ``blocks`` keep nothing but their inputs for the backward pass.

    It shares all weights; the model itself stays as it is. ``kept`` is what :func:`gradients` gave.
    """
    view = copy.copy(model)
    view._modules = {**model._modules, "diffusion_model": _checkpointed(model.diffusion_model, blocks, kept)}
    return view


def _checkpointed(module: Any, blocks: tuple[type[torch.nn.Module], ...], kept: KeptTensors) -> Any:
    view = copy.copy(module)
    if isinstance(module, blocks):
        view.forward = functools.partial(_forward_twice, module.forward, kept)
    else:
        view._modules = {name: _checkpointed(part, blocks, kept) for name, part in module._modules.items()}
    return view


def _forward_twice(forward: Callable[..., Any], kept: KeptTensors, *args: Any, **kwargs: Any) -> Any:
    args, names = (*args, *kwargs.values()), tuple(kwargs)
    # The host writes the number of the block into its options as it goes: the second time needs those of the first.
    own = [dict(arg) if isinstance(arg, dict) else arg for arg in args]
    # It also adds to what blocks got, such as a ControlNet's to the skip connections.
    before = [(kept.keep(arg), arg.requires_grad) if isinstance(arg, torch.Tensor) else None for arg in own]
    versions = [arg._version if isinstance(arg, torch.Tensor) and not arg.is_inference() else 0 for arg in own]
    changes: list[bool] | None = None
    second = _SecondTime()

    def run(*given: Any) -> Any:
        nonlocal changes
        positional = len(given) - len(names)
        if changes is not None:
            given = tuple(
                arg if held is None else held[0].tensor.detach().requires_grad_(held[1])
                for arg, held in zip(given, before, strict=True)
            )
            given = tuple(arg.clone() if changed else arg for arg, changed in zip(given, changes, strict=True))
            second.changing = [arg for arg, changed in zip(given, changes, strict=True) if changed]
        try:
            made = forward(*given[:positional], **dict(zip(names, given[positional:], strict=True)))
        finally:
            second.changing = []
        if changes is None:
            changes = [
                isinstance(arg, torch.Tensor) and not arg.is_inference() and arg._version != version
                for arg, version in zip(given, versions, strict=True)
            ]
        return made

    # On a GPU the second time is another thread's.
    contexts = lambda: (nullcontext(), second)  # noqa: E731
    return checkpoint(run, *own, use_reentrant=False, context_fn=contexts)
