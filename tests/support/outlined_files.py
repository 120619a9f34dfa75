"""safetensors files as large as published ones that take no room: holes in place of weights.

Imported as ``hrv_pack.tests.support.outlined_files``.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_outline(path: Path, shapes: Mapping[str, Sequence[int]], content: Mapping[str, bytes] | None = None) -> None:
    """A file of half-precision tensors of these shapes, and of bytes that are really there."""
    given = content or {}
    header: dict[str, object] = {}
    end = 0
    for name, data in given.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [end, end := end + len(data)]}
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end := end + size]}
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(given.values()))
        file.truncate(8 + len(text) + end)
