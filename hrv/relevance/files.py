"""HRV files (docs/hrv-format.md): safetensors with a checked header, written atomically."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy.typing as npt

from ..errors import HRVError
from ..heads.layout import UNET_FAMILY, HeadLayout
from ..storage.atomic_files import reason, write_atomically
from ..storage.digest import content_digest
from ..storage.strict_json import parse_json
from ..storage.tensor_files import DTYPES, HEADER_LIMIT, Header, Tensor, read_header, read_tensor, require_bytes
from .evidence import evidence_of
from .vectors import HRV

# A file has the lowest version that knows all it holds, so that older versions of the pack read what they can.
FORMAT_VERSIONS = (1, 2, 3)
_WITH_FAMILY = 3  # the first version that knows layouts of other families than the UNet's

SIZE_LIMIT = 256 * 1024 * 1024
"""Bytes of the tensors of the largest HRV: 16,000 concepts of SDXL with their counts."""

_VERSION, _CONCEPTS, _LAYOUT, _PROVENANCE, _CHECKSUM = _KEYS = (
    "hrv.format_version",
    "hrv.concepts",
    "hrv.layout",
    "hrv.provenance",
    "hrv.sha256",
)


class _Kind(NamedTuple):
    """What a tensor of an HRV file has to be: its safetensors dtype, its axes, and its first version."""

    dtype: str
    axes: tuple[str, ...]
    version: int


_TENSORS = {
    "hrv": _Kind("F32", ("concepts", "heads"), 1),
    "counts": _Kind("I64", ("concepts", "heads"), 1),
    "step_counts": _Kind("I64", ("steps", "concepts", "heads"), 1),
    "effects": _Kind("F32", ("pairs", "heads"), 2),
    "effect_norms": _Kind("F32", ("pairs",), 2),
    "effect_pairs": _Kind("I64", ("pairs", "places"), 2),
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
    content = encode_hrv(hrv)
    try:
        if target.exists() and not overwrite:
            raise HRVError(f"{target} exists already. Choose another name, or allow overwriting.")
        write_atomically(target, content)
    except OSError as error:
        raise HRVError(f"Cannot save the HRV as {target}: {reason(error)}.") from error
    return target


def require_savable(size: int, instead: str) -> None:
    """Raise HRVError if an HRV that is to be made with ``size`` bytes of numbers cannot be saved.

    ``instead`` says what makes it smaller, such as "fewer concepts".
    """
    if size > SIZE_LIMIT:
        raise HRVError(
            f"This HRV would have {size / 1e6:.0f} MB of numbers; a file holds at most {SIZE_LIMIT / 1e6:.0f} MB. "
            f"Take {instead}."
        )


def load_hrv(path: str | os.PathLike[str]) -> HRV:
    """Read an HRV file; its header, with the shapes of all tensors, is checked before anything else is read.

    Raises HRVError, naming the file, when it is missing, damaged, cut off, of an unknown version, no HRV at
    all, or holds what an HRV cannot hold.
    """
    try:
        with Path(path).open("rb") as file:
            return _read(file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise HRVError(f"Cannot load the HRV {os.fspath(path)}: {reason(error)}.") from error
    except HRVError as error:
        raise HRVError(f"Cannot load the HRV {os.fspath(path)}: {error}") from error


def decode_hrv(content: bytes) -> HRV:
    """The HRV of a whole file's content; raises HRVError as :func:`load_hrv` does, without a file's name."""
    return _read(BytesIO(content), len(content))


def encode_hrv(hrv: HRV) -> bytes:
    """A whole file: header length, header padded to 8 bytes, tensors. HRVError for more text than a header holds."""
    tensors: Tensors = {"hrv": hrv.values}
    if hrv.evidence is not None:
        tensors.update(hrv.evidence.arrays())
    require_savable(sum(array.nbytes for array in tensors.values()), "fewer concepts or pairs")
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
        data = array.astype(DTYPES[kind.dtype], copy=False).tobytes()
        header[name] = {
            "dtype": kind.dtype,
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


def _read(file: BinaryIO, size: int) -> HRV:
    """The HRV in an open file of ``size`` bytes."""
    header = read_header(file, size)
    metadata = header.metadata
    if _VERSION not in metadata:
        raise HRVError(_describe_foreign(header.entries))
    if metadata[_VERSION] not in map(str, FORMAT_VERSIONS):
        raise HRVError(
            f"it has format version {metadata[_VERSION][:20]!r}; this version of the pack knows "
            f"{FORMAT_VERSIONS[0]} to {FORMAT_VERSIONS[-1]}. A newer version of the pack may read it."
        )
    known = _known_tensors(header, int(metadata[_VERSION]))
    for key in _KEYS:
        if key not in metadata:
            raise HRVError(f"its metadata has no {key!r}.")
    for key in metadata:
        if key.startswith("hrv.") and key not in _KEYS:
            raise HRVError(f"its metadata has the unknown key {key[:40]!r}.")
    if "hrv" not in known:
        raise HRVError("it has no tensor 'hrv'.")
    concepts = parse_json(metadata[_CONCEPTS], "list of concepts")
    if not isinstance(concepts, list):
        raise HRVError("its list of concepts is not a JSON list.")
    layout, provenance = HeadLayout.from_json(metadata[_LAYOUT]), parse_json(metadata[_PROVENANCE], "provenance")
    if layout.family != UNET_FAMILY and int(metadata[_VERSION]) < _WITH_FAMILY:
        raise HRVError(f"its layout is of another family than the UNet's, which format version {_WITH_FAMILY} has.")
    _check_sizes(known, len(concepts), layout.head_count)
    tensors = {name: read_tensor(file, header, tensor) for name, tensor in known.items()}
    _check_step_counts(tensors)
    texts = {key: metadata[key] for key in _KEYS if key != _CHECKSUM}
    if metadata[_CHECKSUM] != content_digest(texts, tensors):
        raise HRVError("its content does not match its checksum; it is damaged or was edited.")
    return HRV(tensors["hrv"], tuple(concepts), layout, evidence_of(tensors), provenance)


def _known_tensors(header: Header, version: int) -> dict[str, Tensor]:
    """The tensors of this version by name; HRVError for others that are no additions, and other types or axes."""
    tensors = header.tensors()
    found = {}
    for name, tensor in tensors.items():
        kind = _TENSORS.get(name)
        if kind is None or kind.version > version:
            if not name.startswith(_EXTENSION_PREFIX):
                raise HRVError(
                    f"an HRV has no tensor {name[:40]!r}. Names of additions must begin with {_EXTENSION_PREFIX!r}."
                )
            continue
        if len(tensor.shape) != len(kind.axes):
            raise HRVError(f"its tensor {name!r} must have the axes [{', '.join(kind.axes)}].")
        require_bytes(name, tensor, kind.dtype)
        found[name] = tensor
    return found


def _check_sizes(tensors: Mapping[str, Tensor], concepts: int, heads: int) -> None:
    """Raise HRVError unless the shapes fit the concepts, the heads and each other, and all is small enough to read."""
    sizes = {"concepts": concepts, "heads": heads, "places": 3}
    for name, tensor in tensors.items():
        axes = _TENSORS[name].axes
        for axis, size in zip(axes, tensor.shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                wanted = " x ".join(f"{sizes.get(axis, 'any')} {axis}" for axis in axes)
                raise HRVError(
                    f"its tensor {name!r} should be {wanted}, but it is {' x '.join(map(str, tensor.shape))}."
                )
    size = sum(tensor.end - tensor.begin for tensor in tensors.values())
    if size > SIZE_LIMIT:
        raise HRVError(f"it has {size} bytes of numbers; an HRV file has at most {SIZE_LIMIT}.")


def _check_step_counts(tensors: Tensors) -> None:
    if "step_counts" not in tensors:
        return
    steps, counts = tensors["step_counts"], tensors.get("counts")
    if counts is None:
        raise HRVError("its tensor 'step_counts' needs a tensor 'counts'.")
    if (steps < 0).any() or (steps.sum(axis=0) != counts).any():
        raise HRVError("its tensor 'step_counts' does not add up to its counts.")


def _describe_foreign(header: Mapping[str, Any]) -> str:
    """A sentence that says what a safetensors file without our metadata seems to be."""
    names = list(header)
    kind = next((kind for part, kind in _FOREIGN.items() if any(part in name for name in names)), None)
    listed = ", ".join(name[:40] for name in names[:3]) + (", ..." if len(names) > 3 else "")
    looks = f"It looks like {kind}" if kind else f"It contains {listed or 'nothing'}"
    return f"it is a safetensors file, but not an HRV (docs/hrv-format.md). {looks}."
