"""safetensors files of random weights that never lie in memory, and what the host says of them.

Imported as ``hrv_pack.tests.support.random_files``.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

_NAMES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float8_e4m3fn: "F8_E4M3"}
# Of the numbers that are repeated. No width of a model divides a prime, so rows of a matrix differ; neither do matrices
# of one shape begin with the same of them.
_NOISE = 1_000_003
_STEP = 314_159


def write_random(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """A file of tensors, written one by one: of those on the meta device the shape and type, and noise as numbers.

    Matrices of noise keep the size of what they get, norms and biases are near 1 and 0.
    """
    header: dict[str, Any] = {}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": tuple(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    noise = torch.randn(_NOISE, generator=torch.Generator().manual_seed(0))
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for number, (name, tensor) in enumerate(tensors.items()):
            if not tensor.is_meta:
                file.write(_bytes(tensor))
                continue
            matrix = tensor.ndim > 1
            near = 0.0 if matrix else float(name.endswith(("weight", "scale")))
            size = math.prod(tensor.shape[1:]) ** -0.5 if matrix else 0.02
            data = _bytes((noise.roll(number * _STEP) * size + near).to(tensor.dtype))
            left = tensor.nbytes
            while left:
                left -= file.write(data[:left])


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def assert_complete(messages: Sequence[str]) -> None:
    """By the messages of its loader, the host found every tensor that it looked for, and none too many."""
    assert not [text for text in messages if "missing" in text or "unexpected" in text or "left over" in text]
