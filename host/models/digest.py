"""A digest of what a MODEL or a CLIP computes: the same in every process, another for another model.

The host (comfy/model_patcher.py) keeps the originals of what it patches in place in ``backup``, ``hook_backup``,
``backup_buffers`` and ``object_patches_backup``, which clones share.
"""

from __future__ import annotations

import sys
from collections import deque
from functools import partial, singledispatchmethod
from hashlib import sha256
from itertools import chain
from pathlib import PurePath
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType
from typing import Any
from uuid import UUID

import numpy as np
import torch
from comfy.hooks import HookKeyframeGroup
from comfy.model_patcher import ModelPatcher

from .ours import is_ours

_WEIGHT_ELEMENTS = 16  # of each weight of a model and of a LoRA
_OTHER_ELEMENTS = 1 << 16  # masks, schedules and embeddings may differ in few places

_LEFT_OUT = {torch.device, UUID}
_OPAQUE = sys.stdlib_module_names | {"torch"}
_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, slice, np.generic, PurePath, torch.dtype)
# Modules of this pack whose names stand in digests that were written before they moved.
_NAMES_OF_BEFORE = {"host.mini.model.": "host.mini_model.", "host.mini.loader.": "host.mini_loader."}
_FIELDS: dict[type, tuple[str, ...]] = {
    CellType: ("cell_contents",),
    CodeType: ("co_code", "co_names", "co_consts"),
    MethodType: ("__func__", "__self__"),
    BuiltinFunctionType: ("__qualname__", "__self__"),
    partial: ("func", "args", "keywords"),
}

# What loading leaves on the modules of a model, besides names with "comfy_" (ModelPatcher.load, comfy/ops.py).
_LOAD_STATE = {"weight_function", "bias_function", "weight_lowvram_function", "bias_lowvram_function", "seed_key"}


def model_digest(patcher: ModelPatcher) -> str:
    """SHA-256 in hex of a MODEL's weights, patches of weights and objects, options, wrappers, callbacks and hooks.

    What this pack itself puts on a model is left out (:mod:`.ours`).

    Nothing is loaded, moved or changed, and it makes no difference whether the model is loaded or patched in place.

    Of every weight, also of LoRAs, at most 16 evenly spaced elements are read, of other tensors 65,536, by value: that
    a device stores them in a wider type does not count. Fine-tunes differ everywhere; a change of few elements, such
    as one row of an embedding, can go unseen. Not seen either: what functions call by a global name, attributes of
    classes, changes made past the patcher other than to weights, private attributes of modules, and what is inside
    objects of torch and the standard library other than containers, modules and tensors. Functions count by bytecode:
    where a model carries some, another version of Python or of their node pack is another digest, and so is another
    state of an object that remembers its use. An object that cannot be read counts by its class.
    """
    with patcher.use_ejected():
        carried = {
            "objects": patcher.object_patches,
            "weight_wrappers": patcher.weight_wrapper_patches,
            "options": patcher.model_options,
            "wrappers": {
                (kind, key): wrappers
                for kind, by_key in patcher.wrappers.items()
                for key, wrappers in by_key.items()
                if not is_ours(key)
            },
            "callbacks": patcher.callbacks,
            "attachments": {key: kept for key, kept in patcher.attachments.items() if not is_ours(key)},
            "injections": patcher.injections,
            # Copies of the same model for further devices stand under "multigpu".
            "models": {key: models for key, models in patcher.additional_models.items() if key != "multigpu"},
        }
        read = _Reader(_OTHER_ELEMENTS, {id(part): place for place, part in _original_modules(patcher)})
        # Unlike of(), read() raises: a digest without the weights would be worse than none.
        return _join("digest", read.read(patcher), read.of(carried)).hex()


def clip_digest(clip: Any) -> str:
    """SHA-256 in hex of a CLIP: :func:`model_digest` of its model, and what the host keeps beside it (comfy/sd.py)."""
    beside = clip.layer_idx, clip.tokenizer_options, clip.use_clip_schedule, clip.apply_hooks_to_conds
    return _Reader(_OTHER_ELEMENTS).all("clip", model_digest(clip.patcher), *beside).hex()


def _original_modules(patcher: ModelPatcher) -> list[tuple[str, torch.nn.Module]]:
    """The modules of a model by place, those that object patches have taken out of it included, theirs not."""
    replaced = patcher.object_patches_backup
    found = [
        (place, part)
        for place, part in patcher.model.named_modules()
        if not any(f"{place}.".startswith(f"{other}.") for other in replaced)
    ]
    for place, part in replaced.items():
        if isinstance(part, torch.nn.Module):
            found.extend(part.named_modules(prefix=place))
    return found


def _original_model(patcher: ModelPatcher) -> bytes:
    """The hash of a model as it was before its patcher got anything: architecture, noise schedule and weights."""
    model = patcher.model
    kept = {name: held[0] for name, held in chain(patcher.hook_backup.items(), patcher.backup.items())}
    kept.update(patcher.backup_buffers)
    live = dict(model.named_modules())
    weights = {
        name: kept.get(name, tensor) if live.get(place) is part else tensor
        for place, part in _original_modules(patcher)
        for name, tensor in chain(part.named_parameters(place, recurse=False), part.named_buffers(place, recurse=False))
    }
    read = _Reader(_WEIGHT_ELEMENTS)
    tensors = [read.of(name) + read.read(tensor) for name, tensor in sorted(weights.items())]
    config = getattr(getattr(model, "model_config", None), "unet_config", {})
    settings = {
        "config": {name: value for name, value in config.items() if name != "dtype"},
        "sampling": patcher.object_patches_backup.get("model_sampling", getattr(model, "model_sampling", None)),
        "latents": patcher.object_patches_backup.get("latent_format", getattr(model, "latent_format", None)),
    }
    return _join("model", read.all("settings", type(model), settings), *tensors)


def _forced_hooks(patcher: ModelPatcher) -> list[Any]:
    """The hooks that always act (Set CLIP Hooks): their patches and schedules."""
    return [
        (type(hook), patcher.hook_patches.get(hook.hook_ref), hook.hook_keyframe)
        for hook in (patcher.forced_hooks.hooks if patcher.forced_hooks else ())
    ]


def _elements(tensor: torch.Tensor, limit: int) -> bytes:
    """The hash of a tensor's shape and of at most ``limit`` evenly spaced elements as float64."""
    shape = _join(str(tuple(tensor.shape)))
    if tensor.is_meta:
        return shape
    plain = tensor.detach().as_subclass(torch.Tensor)
    if plain.is_complex():
        plain = torch.view_as_real(plain)
    if plain.numel() > limit:
        numbers = torch.arange(limit) * (plain.numel() - 1) // (limit - 1)
        plain = plain[torch.unravel_index(numbers, plain.shape)]  # whatever the strides, without a copy of the whole
    return _join("tensor", shape, plain.cpu().double().contiguous().numpy().tobytes())


def _join(kind: str, *parts: bytes) -> bytes:
    return sha256(kind.encode() + b"\0" + b"".join(parts)).digest()


def _name(of: Any) -> str:
    """Module and name of a class or function, without the folder that the host puts before those of node packs."""
    name = f"{of.__module__}.{of.__qualname__}".replace("\\", "/").rpartition("/")[-1]
    for now, before in _NAMES_OF_BEFORE.items():
        name = name.replace(now, before)
    return name


def _is_opaque(of: Any) -> bool:
    return str(of.__module__).partition(".")[0] in _OPAQUE


class _Reader:
    """Hashes of values, of tensors by ``elements``. ``parts``: ids of the read model's own modules to their places."""

    def __init__(self, elements: int, parts: dict[int, str] | None = None):
        self.elements, self.parts = elements, parts or {}
        self.models: dict[int, bytes] = {}
        self.known: dict[int, tuple[Any, bytes]] = {}  # holds the values too, so that no other gets their ids

    def of(self, value: Any) -> bytes:
        """The hash of any value; where it contains itself, it counts by its class."""
        if id(value) not in self.known:
            kind = _name(type(value)).encode()
            self.known[id(value)] = value, _join("again", kind)
            try:
                found = self.read(value)
            except Exception:  # noqa: BLE001 - objects of other nodes may raise anything when they are looked at
                found = _join("unreadable", kind)
            self.known[id(value)] = value, found
        return self.known[id(value)][1]

    def all(self, kind: str, *values: Any) -> bytes:
        """The hash of several values in order."""
        return _join(kind, *map(self.of, values))

    @singledispatchmethod
    def read(self, value: Any) -> bytes:
        """The hash of a value not met before."""
        kind = type(value)
        if isinstance(value, _PLAIN):
            return _join("plain", repr(value).encode())
        if kind in _FIELDS:
            return self.all("fields", kind, *(getattr(value, name) for name in _FIELDS[kind]))
        if _is_opaque(kind):
            return self.all("object", kind)
        slots = [vars(base).get("__slots__", ()) for base in kind.__mro__]
        names = chain.from_iterable([found] if isinstance(found, str) else found for found in slots)
        slotted = {name: getattr(value, name) for name in names if hasattr(value, name)}
        return self.all("object", kind, slotted | getattr(value, "__dict__", {}))

    @read.register
    def _(self, value: dict) -> bytes:
        kept = [item for item in value.items() if not any(type(part) in _LEFT_OUT for part in item)]
        # Values are read in the order of keys too, so that a cycle is entered where it always is.
        pairs = sorted(((self.of(key), item) for key, item in kept), key=lambda pair: pair[0])
        return _join("dict", *(key + self.of(item) for key, item in pairs))

    @read.register(list)
    @read.register(tuple)
    @read.register(deque)
    def _(self, value: Any) -> bytes:
        return self.all("sequence", type(value), *value)

    @read.register(set)
    @read.register(frozenset)
    def _(self, value: Any) -> bytes:
        return _join("set", *sorted(map(self.of, value)))

    @read.register
    def _(self, value: type) -> bytes:
        return _join("class", *(_join(_name(base)) for base in value.__mro__))

    @read.register
    def _(self, value: FunctionType) -> bytes:
        if _is_opaque(value):
            return _join("function", _name(value).encode())
        closure = value.__closure__
        return self.all("function", _name(value), value.__code__, value.__defaults__, value.__kwdefaults__, closure)

    @read.register(torch.Tensor)
    @read.register(np.ndarray)
    def _(self, value: Any) -> bytes:
        if not hasattr(value, "__tensor_flatten__"):
            return _elements(torch.as_tensor(value), self.elements)
        names, meaning = value.__tensor_flatten__()  # quantised: the stored tensors, and how they are understood
        return self.all("tensors", meaning, {name: getattr(value, name) for name in names})

    @read.register
    def _(self, value: torch.nn.Module) -> bytes:
        if id(value) in self.parts:
            return _join("part", self.parts[id(value)].encode())
        tensors = dict(chain(value.named_parameters(recurse=False), value.named_buffers(recurse=False)))
        settings = {
            name: item
            for name, item in vars(value).items()
            if not name.startswith("_") and "comfy_" not in name and name not in _LOAD_STATE
        }
        return self.all("module", type(value), tensors, dict(value.named_children()), settings)

    @read.register
    def _(self, value: HookKeyframeGroup) -> bytes:
        """The schedule of a hook, without where a run stands in it."""
        keys = [(key.strength, key.start_percent, key.guarantee_steps) for key in value.keyframes]
        return self.all("schedule", keys)

    @read.register
    def _(self, value: ModelPatcher) -> bytes:
        """Weights and what patches them alone: options may lead back to whoever holds the patcher."""
        if id(value.model) not in self.models:
            self.models[id(value.model)] = _original_model(value)
        patches = _Reader(_WEIGHT_ELEMENTS).all("patches", value.patches, _forced_hooks(value))
        return _join("patched", self.models[id(value.model)], patches)
