"""HRVs as the paper's authors publish them: two .npy files, vectors and head names, read without pickles.

``category_vectors`` is float [N, H]; ``head_index`` has H texts "down, layer: 0, head: 0" (github.com/SNU-DRL/HRV,
``final_result``). The names of the concepts are in neither: they are those of the word list, in its order.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import HRVError
from ..heads.families import layout_of_names
from .files import SIZE_LIMIT
from .vectors import HRV

VECTORS_LIMIT = SIZE_LIMIT
NAMES_LIMIT = 1024 * 1024
"""Bytes of the largest files that are read, far above any: 5,000 concepts of SDXL are 26 MB, its names 0.14 MB."""

# NumPy writes 64 to 128 bytes for such arrays, and itself reads no longer ones than this.
_HEADER_LIMIT = 10_000

_MAGIC = b"\x93NUMPY"
_HEADER = re.compile(
    r"\{'descr': '(?P<descr>[^']{1,20})', 'fortran_order': (?P<fortran>True|False), "
    r"'shape': \((?P<shape>(?:\d{1,10}(?:, ?|(?=\)))){0,32})\),? ?\} *\n?"
)


def hrv_from_npy(
    vectors: bytes, head_index: bytes, concepts: Sequence[str], provenance: Mapping[str, Any] | None = None
) -> HRV:
    """The HRV of two .npy files' contents, its concepts named in the order of the rows.

    The layout is that of the known model family with these head names. Raises HRVError for files that are no such
    arrays, a number of rows other than that of the names, unknown head names, and everything that an HRV refuses.
    """
    for what, data, limit in (("vectors", vectors, VECTORS_LIMIT), ("head_index", head_index, NAMES_LIMIT)):
        if len(data) > limit:
            raise HRVError(f"The {what} file has {len(data)} bytes; at most {limit} are read.")
    values = _read_npy(vectors, "vectors", r"[<>]f[248]", "numbers", axes=2)
    names = _read_npy(head_index, "head_index", r"[<>]U[1-9]\d{0,3}", "texts", axes=1)
    if len(values) != len(concepts):
        raise HRVError(
            f"The vectors have {len(values)} rows, but there are names for {len(concepts)} concepts. Connect the "
            "concepts that the vectors were made with: one for each row, in the same order."
        )
    # NumPy fails with an error of the interpreter itself on numbers that are no characters.
    if (names.view(np.dtype("u4").newbyteorder(names.dtype.byteorder)) > 127).any():
        raise HRVError("The head_index file has characters that don't occur in names of heads; it is damaged.")
    layout = layout_of_names(names.tolist())
    return HRV(values, tuple(concepts), layout, provenance=provenance or {})


def _read_npy(data: bytes, what: str, dtype_pattern: str, kind: str, *, axes: int) -> npt.NDArray[Any]:
    """The array of an .npy file (numpy.lib.format, versions 1 to 3) of an exactly known kind.

    Read by hand because NumPy evaluates the header as Python and reserves what it claims before it looks whether
    there is as much.
    """
    if not data.startswith(_MAGIC) or len(data) < 12:
        raise HRVError(f"The {what} file is not an .npy file, or is incomplete.")
    major = data[6]
    start, field = (10, "<H") if major == 1 else (12, "<I")
    length = struct.unpack_from(field, data, 8)[0]
    if length > _HEADER_LIMIT:
        raise HRVError(f"The {what} file has a header of {length} bytes; that of a plain array has at most 128.")
    header = _HEADER.fullmatch(data[start : start + length].decode("latin-1"))
    if major not in (1, 2, 3) or header is None:
        raise HRVError(f"The {what} file doesn't have the header of a plain array, or is incomplete.")
    descr = header["descr"]
    if "O" in descr:
        raise HRVError(
            f"The {what} file holds Python objects (a pickle), which could run code when read, so it was "
            "not read. Save it as a plain array."
        )
    shape = tuple(int(size) for size in header["shape"].split(",") if size.strip())
    if not re.fullmatch(dtype_pattern, descr) or len(shape) != axes or 0 in shape:
        raise HRVError(
            f"The {what} file should hold {kind} on {'one axis' if axes == 1 else f'{axes} axes'}, but it has type "
            f"{descr} and shape {list(shape)}. The two files may be swapped."
        )
    begin = start + length
    body = max(0, len(data) - begin)
    dtype = np.dtype(descr)
    if math.prod(shape) * dtype.itemsize != body:
        raise HRVError(
            f"The {what} file should have {math.prod(shape) * dtype.itemsize} bytes of data, but it has {body}; "
            "it is incomplete or damaged."
        )
    return np.frombuffer(data, dtype, offset=begin).reshape(shape, order="F" if header["fortran"] == "True" else "C")
