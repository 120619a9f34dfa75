"""Outlines of safetensors files: what their headers say, without the weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from ...hrv.errors import HRVError
from ...hrv.storage.atomic_files import reason

LARGEST_HEADER = 8 << 20
"""Bytes of a header: many times what the largest models have."""

LARGEST_CONTENT = 64 << 20
"""Bytes of a tensor that is read: several times what tokenizers have."""

# The endings with which the host takes a file for one of this format.
_SUFFIXES = {".safetensors", ".sft"}


class Outline(NamedTuple):
    """The tensors of a file by their names, and what the file says about itself."""

    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]


def outline(path: Path, content: Sequence[str]) -> Outline:
    """The tensors of a file as zeros of their shapes, which take no memory.

    Only those whose names end in one of ``content`` are read. Raises HRVError for a file that is no safetensors file,
    is not whole, or has a header or such a tensor beyond what models have.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise HRVError(f"{path} is no safetensors file by its name.")
    try:
        with path.open("rb") as file:
            if int.from_bytes(file.read(8), "little") > LARGEST_HEADER:
                raise HRVError(f"{path} has a header of more than {LARGEST_HEADER} bytes, so it is no model's.")
        with safe_open(path, framework="pt") as file:
            tensors = {name: _tensor(file, name, name.endswith(tuple(content))) for name in file.keys()}  # noqa: SIM118
            return Outline(tensors, file.metadata() or {})
    except OSError as error:
        raise HRVError(f"Cannot read {path}: {reason(error)}.") from error
    except SafetensorError as error:
        raise HRVError(f"{path} is no whole safetensors file: {error}.") from error


def _tensor(file: safe_open, name: str, is_read: bool) -> torch.Tensor:
    shape = file.get_slice(name).get_shape()
    if not is_read:
        return torch.zeros(()).expand(shape)
    if len(shape) != 1 or shape[0] > LARGEST_CONTENT:
        raise HRVError(f"The tensor {name} is no tokenizer's.")
    return file.get_tensor(name)
