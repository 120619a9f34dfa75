"""Files with the state of work under way: safetensors with a checksum, of one piece of work, written atomically."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import HRVError
from .atomic_files import reason, write_atomically
from .digest import content_digest

FORMAT = "1"

Arrays = Mapping[str, npt.NDArray[Any]]

UNUSABLE = (SafetensorError, KeyError, TypeError, ValueError, IndexError)
"""What reading a damaged file, or making something of its content, raises."""


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
    path: Path, kind: str, key: str, texts: Sequence[str], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, str], dict[str, npt.NDArray[Any]]] | None:
    """The texts and arrays that :func:`write_state` wrote, with these names and shapes; None if there is no file.

    Raises HRVError for a file that cannot be read, is damaged, or belongs to other work; it is left as it is.
    """
    if not os.path.lexists(path):
        return None
    try:
        with safe_open(path, "numpy") as file:
            metadata = dict(file.metadata() or {})
            arrays = {name: np.asarray(file.get_tensor(name)) for name in shapes}
        checksum = metadata.pop(_checksum(kind))
        found = {name.removeprefix(f"hrv.{kind}."): text for name, text in metadata.items()}
        if found.keys() != {*texts, "format", "key"} or checksum != content_digest(metadata, arrays):
            raise ValueError("it does not match its checksum")
        same = (found.pop("format"), found.pop("key")) == (FORMAT, key)
        if not same or any(arrays[name].shape != shape for name, shape in shapes.items()):
            raise ValueError(f"it is of another {kind}, or of another version of the pack")
        return found, arrays
    except OSError as error:
        raise HRVError(f"Cannot read the state of the {kind} in {path}: {reason(error)}.") from error
    except UNUSABLE as error:
        raise unusable(path, kind, error) from error


def unusable(path: Path, kind: str, error: Exception) -> HRVError:
    """What to say of a state that makes no sense."""
    return HRVError(
        f"The state of the {kind} in {path} cannot be used ({error}). Move or delete that file to start again."
    )


def _checksum(kind: str) -> str:
    return f"hrv.{kind}.sha256"
