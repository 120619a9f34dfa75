"""Files with the state of work under way: safetensors with a checksum, of one piece of work, written atomically.

A checksum tells what was damaged, not what was never right: whoever reads a state also checks that the work can have
come to it. Errors about a file's content are HRVErrors that begin with "it", for a caller who says which file it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from ..errors import HRVError
from .atomic_files import reason, write_atomically
from .digest import content_digest
from .tensor_files import DTYPES, read_header, read_tensor, require_bytes

FORMAT = "1"

Arrays = Mapping[str, npt.NDArray[Any]]

_DTYPE_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


def write_state(path: Path, kind: str, key: str, texts: Mapping[str, str], arrays: Arrays) -> None:
    """Write the state of a ``kind`` of work ("build") whose inputs are told by ``key``.

    Raises HRVError if the file cannot be written.
    """
    metadata = {f"hrv.{kind}.{name}": text for name, text in {**texts, "format": FORMAT, "key": key}.items()}
    content = save(dict(arrays), {**metadata, _checksum(kind): content_digest(metadata, arrays)})
    try:
        write_atomically(path, content)
    except OSError as error:
        raise HRVError(
            f"Cannot save the state of the {kind} as {path}: {reason(error)}. What was saved before is still there, "
            f"and the same {kind} will resume from it."
        ) from error


def read_state(
    path: Path, kind: str, key: str, texts: Sequence[str], beginning: Arrays
) -> tuple[dict[str, str], dict[str, npt.NDArray[Any]]] | None:
    """The texts and arrays that :func:`write_state` wrote; None if there is no file.

    The arrays have the names, the shapes and the dtypes of those at the ``beginning`` of the work. Raises OSError for
    a file that cannot be read, and HRVError for one that is damaged or belongs to other work; it is left as it is.
    """
    if not os.path.lexists(path):
        return None
    with path.open("rb") as file:
        header = read_header(file, os.fstat(file.fileno()).st_size)
        found = {name.removeprefix(f"hrv.{kind}."): text for name, text in header.metadata.items()}
        checksum = found.pop("sha256", None)
        if found.keys() != {*texts, "format", "key"}:
            raise HRVError(f"it isn't a saved {kind}.")
        if (found["format"], found["key"]) != (FORMAT, key):
            raise HRVError(f"it is of another {kind}, or of another version of the pack.")
        tensors = header.tensors()
        if tensors.keys() != beginning.keys() or any(
            tensors[name].shape != array.shape for name, array in beginning.items()
        ):
            raise HRVError(f"it is of another {kind}: its arrays have other shapes.")
        for name, array in beginning.items():
            require_bytes(name, tensors[name], _DTYPE_NAMES[array.dtype])
        # Copies, since work goes on in them.
        arrays = {name: read_tensor(file, header, tensors[name]).copy() for name in beginning}
    metadata = {name: text for name, text in header.metadata.items() if name != _checksum(kind)}
    if checksum != content_digest(metadata, arrays):
        raise HRVError("it does not match its checksum; it is damaged.")
    return {name: found[name] for name in texts}, arrays


def require(possible: bool, sentence: str) -> None:
    """Raise HRVError unless what a state has is ``possible``; the sentence says what is not: "its counts are ..."."""
    if not possible:
        raise HRVError(sentence)


def whole_number(text: str, what: str) -> int:
    """A whole number from 0 that was written as text; HRVError, which says ``what`` it is, for any other text."""
    require(text.isascii() and text.isdigit() and len(text) <= 15, f"{what} isn't a whole number.")
    return int(text)


def _checksum(kind: str) -> str:
    return f"hrv.{kind}.sha256"
