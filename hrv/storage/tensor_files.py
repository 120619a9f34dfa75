"""Reading safetensors files so that sizes come before bytes: nothing is read before its header is checked.

Errors are sentences that begin with "it", for a caller who says which file it is.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import HRVError
from .strict_json import parse_json

HEADER_LIMIT = 8 * 1024 * 1024
"""Bytes of the longest header that is read."""

# Far above any file; a number from one cannot grow beyond what an error message can print.
_LARGEST = 1 << 53

DTYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "U8": "u1"}
"""What the pack's own files hold, as safetensors and as numpy name it."""


class Tensor(NamedTuple):
    """What a header says of a tensor: its safetensors dtype, its shape, and where it lies in the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """The header of a file: its metadata, and the entries of its tensors, not yet checked.

    ``start`` is where the data begins, ``size`` how many bytes of it there are.
    """

    metadata: Mapping[str, str]
    entries: Mapping[str, Any]
    start: int
    size: int

    def tensors(self) -> dict[str, Tensor]:
        """What the header says of each tensor, or HRVError unless they fill the data without gap or overlap."""
        found: dict[str, Tensor] = {}
        for name, entry in self.entries.items():
            if not (
                isinstance(entry, dict)
                and isinstance(entry.get("dtype"), str)
                and _are_sizes(entry.get("shape"))
                and _are_sizes(entry.get("data_offsets"))
                and len(entry["data_offsets"]) == 2
            ):
                raise HRVError(f"the header's entry for {name[:40]!r} lacks the type, shape or place of its data.")
            found[name] = Tensor(entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"])
        reached = 0
        for tensor in sorted(found.values(), key=lambda one: (one.begin, one.end)):
            if tensor.begin != reached or tensor.end < tensor.begin:
                raise HRVError("its tensors overlap or leave gaps.")
            reached = tensor.end
        if reached != self.size:
            raise HRVError(f"its header promises {reached} bytes of data, but there are {self.size}.")
        return found


def read_header(file: BinaryIO, size: int) -> Header:
    """The header of an open file of ``size`` bytes, which stands at its beginning.

    Raises HRVError for another kind of file, one that is cut off, and a header longer than :data:`HEADER_LIMIT`.
    """
    prefix = file.read(8)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    if length < 2 or length > size - 8:
        raise HRVError("it is not a safetensors file, or is incomplete.")
    if length > HEADER_LIMIT:
        raise HRVError(f"its header has {length} bytes; an HRV file has at most {HEADER_LIMIT}.")
    header = parse_json(file.read(length), "header")
    if not isinstance(header, dict):
        raise HRVError("its header is not a JSON object.")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise HRVError("the metadata in its header is not a JSON object of texts.")
    return Header(metadata, header, 8 + length, size - 8 - length)


def require_bytes(name: str, tensor: Tensor, dtype: str) -> None:
    """Raise HRVError unless a tensor has this safetensors dtype and the bytes that its shape needs."""
    if tensor.dtype != dtype:
        raise HRVError(f"its tensor {name!r} must be {dtype}, not {tensor.dtype[:20]!r}.")
    if math.prod(tensor.shape) * np.dtype(DTYPES[dtype]).itemsize != tensor.end - tensor.begin:
        raise HRVError(f"its tensor {name!r} has a shape that does not fit its {tensor.end - tensor.begin} bytes.")


def read_tensor(file: BinaryIO, header: Header, tensor: Tensor) -> npt.NDArray[Any]:
    """The array of a tensor that was checked (:func:`require_bytes`), read-only."""
    file.seek(header.start + tensor.begin)
    return np.frombuffer(file.read(tensor.end - tensor.begin), dtype=DTYPES[tensor.dtype]).reshape(tensor.shape)


def _are_sizes(value: Any) -> bool:
    """Whether a JSON value is a list of whole numbers that a size can be."""
    return isinstance(value, list) and all(type(size) is int and 0 <= size <= _LARGEST for size in value)
