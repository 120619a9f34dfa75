"""HRV files (docs/hrv-format.md): safetensors with a checked header, written atomically."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import HRVError
from ..heads.layout import UNET_FAMILY, HeadLayout
from ..storage.atomic_files import reason, write_atomically
from ..storage.digest import content_digest
from .evidence import evidence_of
from .vectors import HRV

# A file has the lowest version that knows all it holds, so that older versions of the pack read what they can.
FORMAT_VERSIONS = (1, 2, 3)
_WITH_FAMILY = 3  # the first version that knows layouts of other families than the UNet's
HEADER_LIMIT = 8 * 1024 * 1024

_VERSION, _CONCEPTS, _LAYOUT, _PROVENANCE, _CHECKSUM = _KEYS = (
    "hrv.format_version",
    "hrv.concepts",
    "hrv.layout",
    "hrv.provenance",
    "hrv.sha256",
)


class _Tensor(NamedTuple):
    """What a tensor of an HRV file is: its safetensors dtype, the same in numpy, its axes, and its first version."""

    dtype_name: str
    dtype: np.dtype[Any]
    axes: str
    version: int


_TENSORS = {
    "hrv": _Tensor("F32", np.dtype("<f4"), "[concepts, heads]", 1),
    "counts": _Tensor("I64", np.dtype("<i8"), "[concepts, heads]", 1),
    "step_counts": _Tensor("I64", np.dtype("<i8"), "[steps, concepts, heads]", 1),
    "effects": _Tensor("F32", np.dtype("<f4"), "[pairs, heads]", 2),
    "effect_norms": _Tensor("F32", np.dtype("<f4"), "[pairs]", 2),
    "effect_pairs": _Tensor("I64", np.dtype("<i8"), "[pairs, place]", 2),
}
_EXTENSION_PREFIX = "x_"
# Parts of tensor names, and what a file with such names usually is.
_FOREIGN = {
    "lora": "a LoRA",
    "model.diffusion_model.": "a checkpoint",
    "diffusion_model.": "a diffusion model",
    "text_model.": "a text encoder",
    "decoder.up": "a VAE",
    "emb_params": "a textual inversion embedding",
}

Tensors = dict[str, npt.NDArray[Any]]


def save_hrv(hrv: HRV, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Write ``hrv`` to ``path`` and return the path. Equal HRVs give byte-equal files.

    The file appears under its name complete or not at all, and a failure leaves nothing behind. Raises
    HRVError when the file exists (unless ``overwrite``), the folder is missing or read-only, or the disk is
    full.
    """
    target = Path(path)
    content = _encode(hrv)
    try:
        if target.exists() and not overwrite:
            raise HRVError(f"{target} exists already. Choose another name, or allow overwriting.")
        write_atomically(target, content)
    except OSError as error:
        raise HRVError(f"Cannot save the HRV as {target}: {reason(error)}.") from error
    return target


def load_hrv(path: str | os.PathLike[str]) -> HRV:
    """Read an HRV file; the header is checked before anything else is read.

    Raises HRVError, naming the file, when it is missing, damaged, cut off, of an unknown version, no HRV at
    all, or holds what an HRV cannot hold.
    """
    try:
        with Path(path).open("rb") as file:
            metadata, tensors = _read(file, os.fstat(file.fileno()).st_size)
        return _decode(metadata, tensors)
    except OSError as error:
        raise HRVError(f"Cannot load the HRV {os.fspath(path)}: {reason(error)}.") from error
    except HRVError as error:
        raise HRVError(f"Cannot load the HRV {os.fspath(path)}: {error}") from error


def _encode(hrv: HRV) -> bytes:
    """The whole file: header length, header padded to 8 bytes, tensors."""
    tensors: Tensors = {"hrv": hrv.values}
    if hrv.evidence is not None:
        tensors.update(hrv.evidence.arrays())
    version = max(_TENSORS[name].version for name in tensors)
    metadata = {
        _VERSION: str(version if hrv.layout.family == UNET_FAMILY else max(version, _WITH_FAMILY)),
        _CONCEPTS: json.dumps(hrv.concepts),
        _LAYOUT: hrv.layout.to_json(),
        _PROVENANCE: hrv.provenance_json(),
    }
    metadata[_CHECKSUM] = content_digest(metadata, tensors)
    header: dict[str, Any] = {"__metadata__": metadata}
    parts: list[bytes] = []
    offset = 0
    # Readers map tensors straight into memory: the wider type goes first, so that each is aligned.
    for name, array in sorted(tensors.items(), key=lambda item: -item[1].itemsize):
        kind = _TENSORS[name]
        data = array.astype(kind.dtype, copy=False).tobytes()
        header[name] = {
            "dtype": kind.dtype_name,
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        parts.append(data)
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    if len(text) > HEADER_LIMIT:
        raise HRVError(
            f"The names and the provenance of this HRV take {len(text)} bytes; a file holds at most "
            f"{HEADER_LIMIT}. Shorten the provenance."
        )
    return b"".join((struct.pack("<Q", len(text)), text, *parts))


def _read(file: BinaryIO, size: int) -> tuple[Mapping[str, str], Tensors]:
    """Metadata and known tensors of an open file of ``size`` bytes, as far as the container goes."""
    prefix = file.read(8)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    if length < 2 or length > size - 8:
        raise HRVError("it is not a safetensors file, or is incomplete.")
    if length > HEADER_LIMIT:
        raise HRVError(f"its header has {length} bytes; an HRV file has at most {HEADER_LIMIT}.")
    header = _parse_json(file.read(length), "header")
    if not isinstance(header, dict):
        raise HRVError("its header is not a JSON object.")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise HRVError("the metadata in its header is not a JSON object of texts.")
    if _VERSION not in metadata:
        raise HRVError(_describe_foreign(header))
    if metadata[_VERSION] not in map(str, FORMAT_VERSIONS):
        raise HRVError(
            f"it has format version {metadata[_VERSION][:20]!r}; this version of the pack knows "
            f"{FORMAT_VERSIONS[0]} to {FORMAT_VERSIONS[-1]}. A newer version of the pack may read it."
        )
    known = {name for name, kind in _TENSORS.items() if kind.version <= int(metadata[_VERSION])}
    spans = _checked_spans(header, known, size - 8 - length)
    tensors: Tensors = {}
    for name, (begin, end) in spans.items():
        if name in known:
            dtype_name, dtype, axes, _ = _TENSORS[name]
            found, shape = header[name]["dtype"], header[name]["shape"]
            if found != dtype_name:
                raise HRVError(f"its tensor {name!r} must be {dtype_name}, not {found[:20]!r}.")
            if len(shape) != axes.count(",") + 1:
                raise HRVError(f"its tensor {name!r} must have the axes {axes}.")
            if math.prod(shape) * dtype.itemsize != end - begin:
                raise HRVError(f"its tensor {name!r} has a shape that does not fit its {end - begin} bytes.")
            file.seek(8 + length + begin)
            tensors[name] = np.frombuffer(file.read(end - begin), dtype=dtype).reshape(shape)
    return metadata, tensors


def _checked_spans(header: Mapping[str, Any], known: Collection[str], data_size: int) -> dict[str, tuple[int, int]]:
    """Where each tensor lies in the data, or HRVError unless they fill it without gap or overlap."""
    spans: dict[str, tuple[int, int]] = {}
    for name, entry in header.items():
        if name not in known and not name.startswith(_EXTENSION_PREFIX):
            raise HRVError(
                f"an HRV has no tensor {name[:40]!r}. Names of additions must begin with {_EXTENSION_PREFIX!r}."
            )
        if not (
            isinstance(entry, dict)
            and isinstance(entry.get("dtype"), str)
            and _are_sizes(entry.get("shape"))
            and _are_sizes(entry.get("data_offsets"))
            and len(entry["data_offsets"]) == 2
        ):
            raise HRVError(f"the header's entry for {name[:40]!r} lacks the type, shape or place of its data.")
        begin, end = entry["data_offsets"]
        spans[name] = begin, end
    reached = 0
    for begin, end in sorted(spans.values()):
        if begin != reached or end < begin:
            raise HRVError("its tensors overlap or leave gaps.")
        reached = end
    if reached != data_size:
        raise HRVError(f"its header promises {reached} bytes of data, but there are {data_size}.")
    return spans


def _decode(metadata: Mapping[str, str], tensors: Tensors) -> HRV:
    """The HRV that checked metadata and tensors hold."""
    for key in _KEYS:
        if key not in metadata:
            raise HRVError(f"its metadata has no {key!r}.")
    for key in metadata:
        if key.startswith("hrv.") and key not in _KEYS:
            raise HRVError(f"its metadata has the unknown key {key[:40]!r}.")
    if "hrv" not in tensors:
        raise HRVError("it has no tensor 'hrv'.")
    concepts = _parse_json(metadata[_CONCEPTS], "list of concepts")
    if not isinstance(concepts, list):
        raise HRVError("its list of concepts is not a JSON list.")
    provenance = _parse_json(metadata[_PROVENANCE], "provenance")
    evidence = evidence_of(tensors)
    layout = HeadLayout.from_json(metadata[_LAYOUT])
    if layout.family != UNET_FAMILY and int(metadata[_VERSION]) < _WITH_FAMILY:
        raise HRVError(f"its layout is of another family than the UNet's, which format version {_WITH_FAMILY} has.")
    hrv = HRV(tensors["hrv"], tuple(concepts), layout, evidence, provenance)
    _check_step_counts(tensors)
    texts = {key: metadata[key] for key in _KEYS if key != _CHECKSUM}
    if metadata[_CHECKSUM] != content_digest(texts, tensors):
        raise HRVError("its content does not match its checksum; it is damaged or was edited.")
    return hrv


def _check_step_counts(tensors: Tensors) -> None:
    if "step_counts" not in tensors:
        return
    steps = tensors["step_counts"]
    if "counts" not in tensors or steps.shape[1:] != tensors["counts"].shape:
        raise HRVError("its tensor 'step_counts' needs a tensor 'counts' of the same concepts and heads.")
    if (steps < 0).any() or (steps.sum(axis=0) != tensors["counts"]).any():
        raise HRVError("its tensor 'step_counts' does not add up to its counts.")


def _parse_json(text: str | bytes, what: str) -> Any:
    try:
        # JSON can spell half a character, which is no UTF-8 and has no checksum.
        data = text.encode() if isinstance(text, str) else text
        return json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise HRVError(f"its {what} is not valid JSON ({error}).") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it has the same key twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _are_sizes(value: Any) -> bool:
    """Whether a JSON value is a list of whole numbers of at least 0."""
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _describe_foreign(header: Mapping[str, Any]) -> str:
    """A sentence that says what a safetensors file without our metadata seems to be."""
    names = list(header)
    kind = next((kind for part, kind in _FOREIGN.items() if any(part in name for name in names)), None)
    listed = ", ".join(name[:40] for name in names[:3]) + (", ..." if len(names) > 3 else "")
    looks = f"It looks like {kind}" if kind else f"It contains {listed or 'nothing'}"
    return f"it is a safetensors file, but not an HRV (docs/hrv-format.md). {looks}."
