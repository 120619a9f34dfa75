"""Memory of passes with a gradient, counted: the shapes of all tensors without their numbers.

Needs neither a GPU nor time. What operations take inside, such as a convolution's workspace, is not counted.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import comfy.model_patcher
import comfy.samplers
import torch
from hrv_pack.host.attend_and_excite.run import ExcitementRun
from hrv_pack.host.building.attribution import Pairs
from hrv_pack.host.building.one_level import OTHER, AtOneLevel, Level
from hrv_pack.host.models.architectures import architecture_of
from hrv_pack.host.prompts.carried import EXCITEMENT_KEY
from hrv_pack.hrv_kernels.weighted_maps import resizing_matrix
from hrv_pack.tests.support.full_size_unets import FULL_SIZE
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

_SIGMA = 14.0

_OF_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
# The attention of CPUs, which the counter doesn't know.
_ATTENTION = {
    _OF_CPU: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: (
        sdpa_backward_flop_count(grad, q, k, v)
    ),
}


class Counted(NamedTuple):
    """Bytes beside the weights: what is alive when the backward pass begins, at most, and in the end."""

    kept: int
    peak: int
    left: int


class CountedMemory(TorchDispatchMode):
    """Counts the memory that operations make, while any tensor uses it. Views and changes in place make none."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.kept: int | None = None
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.kept is None and torch._C._current_graph_task_id() != -1:
            self.kept = self.live
        given = {_memory(tensor)._cdata for tensor in _tensors((args, kwargs))}
        made = func(*args, **(kwargs or {}))
        # Where shapes alone are computed a weight's first view is in other memory than the weight.
        if any(result.alias_info is not None for result in func._schema.returns):
            return made
        for tensor in _tensors(made):
            memory = _memory(tensor)
            if memory._cdata in given or memory._cdata in self._sizes:
                continue
            self._sizes[memory._cdata] = memory.nbytes()
            self.live += memory.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(memory, self._gone, memory._cdata)
        return made

    def _gone(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def _memory(tensor: torch.Tensor) -> Any:
    return tensor.untyped_storage()


def _counted(run: Callable[[torch.Tensor, torch.Tensor], None], numbers: bool, x: Any, sigma: Any) -> Counted:
    """What ``run`` takes, which has one backward pass, given latents and their sigmas; ``numbers``: really computed."""
    memory = CountedMemory()
    if numbers:
        with memory:
            run(x, sigma)
    else:
        shapes = FakeTensorMode(allow_non_fake_inputs=True)
        # Matrices without numbers must not be left for others.
        resizing_matrix.cache_clear()
        # When the gradient is there it is asked whether it is finite.
        with shapes, memory, suppress(DataDependentOutputException):
            run(*(shapes.from_tensor(tensor) for tensor in (x, sigma)))
        resizing_matrix.cache_clear()
    if memory.kept is None:
        raise RuntimeError("The run ended before its backward pass.")
    return Counted(memory.kept, memory.peak, memory.live)


def count_update(model: Any, positive: Any, negative: Any, latent: torch.Tensor, numbers: bool = False) -> Counted:
    """What one update of latents [B, C, h, w] takes, with subjects on the positive conditioning.

    With ``numbers`` it is really computed.
    """
    found: list[Counted] = []

    def call(model_k: Any, noise: Any, sigmas: Any, extra_args: Any, callback: Any, disable: Any) -> torch.Tensor:
        guider = model_k.inner_model
        run = ExcitementRun(guider, [cond[EXCITEMENT_KEY] for cond in guider.conds["positive"]], sigmas)

        def update(x: torch.Tensor, sigma: torch.Tensor) -> None:
            run.look(model_k, x, sigma, extra_args, with_gradient=True)

        x, sigma = torch.zeros_like(noise), sigmas[:1].expand(len(noise)).clone()
        found.append(_counted(update, numbers, x, sigma))
        return noise

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    with torch.inference_mode():
        guider.sample(latent, latent, comfy.samplers.KSAMPLER(call), torch.tensor([_SIGMA, 0.0]), disable_pbar=True)
    return found[0]


def count_effects(model: Any, pairs: Pairs, room: float, numbers: bool = False) -> Counted:
    """What the effects of all heads at one alpha take, plain passes included, where a graph may keep ``room`` bytes.

    With ``numbers`` really computed.
    """
    found: list[Counted] = []

    def measure(guider: Any, x: torch.Tensor, sigma: torch.Tensor, options: dict[str, Any]) -> None:
        def effects(x: torch.Tensor, sigma: torch.Tensor) -> None:
            Level(architecture_of(model), room, guider, pairs.names, x, sigma, options).head_effects(0.5)

        found.append(_counted(effects, numbers, x, sigma))

    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": pairs.a, OTHER: pairs.b})
    # Where shapes alone are computed inference mode's tensors cannot be told from others.
    with torch.no_grad():
        guider.sample(pairs.noise, pairs.latents, AtOneLevel(measure), torch.tensor([_SIGMA, 0.0]), disable_pbar=True)
    return found[0]


def count_work(model: Any, pairs: Pairs, room: float) -> tuple[int, int]:
    """Floating-point operations of the two plain passes of pairs at one level, and of all heads' effects at one alpha.

    A step of sampling with guidance has as many rows as the two plain passes, so it takes as much.
    """
    found: list[int] = []

    def measure(guider: Any, x: torch.Tensor, sigma: torch.Tensor, options: dict[str, Any]) -> None:
        shapes = FakeTensorMode(allow_non_fake_inputs=True)
        with shapes, FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counted:
            x, sigma = shapes.from_tensor(x), shapes.from_tensor(sigma)
            level = Level(architecture_of(model), room, guider, pairs.names, x, sigma, options)
            found.append(counted.get_total_flops())
            # When the gradient is there it is asked whether it is finite.
            with suppress(DataDependentOutputException):
                level.head_effects(0.5)
            found.append(counted.get_total_flops() - found[0])

    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": pairs.a, OTHER: pairs.b})
    with torch.no_grad():
        guider.sample(pairs.noise, pairs.latents, AtOneLevel(measure), torch.tensor([_SIGMA, 0.0]), disable_pbar=True)
    return found[0], found[1]


def unfilled_model(family: str, dtype: torch.dtype) -> Any:
    """A MODEL of full size, of a family of FULL_SIZE, whose weights are whatever memory holds."""
    kind, unet = FULL_SIZE[family]
    config = kind({**unet, "dtype": dtype})
    config.set_inference_dtype(dtype, None)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(config.get_model({}, device="cpu"), load_device=cpu, offload_device=cpu)


def weight_bytes(model: Any) -> int:
    return sum(weight.nbytes for weight in model.model.diffusion_model.parameters())
