"""One digest over named texts and arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


def content_digest(texts: Mapping[str, str], arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 in hex over named texts and arrays, whatever their order (docs/hrv-format.md, "Checksum").

    For every text, sorted by name: ``name=text`` and a line feed. Then for every array, sorted by name:
    ``name:shape`` (sizes separated by commas), a line feed, and its elements in row-major order,
    little-endian. Names and texts are UTF-8.
    """
    digest = hashlib.sha256()
    for name, text in sorted(texts.items()):
        digest.update(f"{name}={text}\n".encode())
    for name, array in sorted(arrays.items()):
        shape = ",".join(str(size) for size in array.shape)
        digest.update(f"{name}:{shape}\n".encode())
        data = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        # As bytes in place: arrays may be large.
        digest.update(data.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
