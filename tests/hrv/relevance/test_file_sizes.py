"""No file makes the process grow by more than four times the size of the largest HRV: sizes come before bytes."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.families import FAMILIES
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.hrv.relevance.evidence import Effects
from hrv_pack.hrv.relevance.files import SIZE_LIMIT, load_hrv, save_hrv
from hrv_pack.hrv.relevance.published import NAMES_LIMIT, VECTORS_LIMIT, hrv_from_npy
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.hrv.storage.tensor_files import HEADER_LIMIT
from hrv_pack.tests.support.fuzzing import fuzz
from hrv_pack.tests.support.growth import growth_of, sparse
from hypothesis import given
from hypothesis import strategies as st

ALLOWED = 4 * SIZE_LIMIT
SDXL = FAMILIES[2].layout()
ONE_HEAD = HeadLayout((AttentionLayer("middle", 0, 0, 1),))
SIZES = {"F32": 4, "I64": 8, "U8": 1}

Tensors = dict[str, tuple[str, tuple[int, ...]]]


def zeros(
    path: Path, tensors: Tensors, concepts: int = 1, layout: HeadLayout = SDXL, provenance: str = "{}", version: int = 1
) -> Path:
    """An HRV file, right in all but what is told, whose numbers are zeros that need no disk."""
    names = [f"c{number}" for number in range(concepts)]
    metadata = {
        "hrv.format_version": str(version),
        "hrv.concepts": json.dumps(names, separators=(",", ":")),
        "hrv.layout": layout.to_json(),
        "hrv.provenance": provenance,
    }
    digest = hashlib.sha256("".join(f"{key}={text}\n" for key, text in sorted(metadata.items())).encode())
    entries: dict[str, Any] = {}
    offset = 0
    for name, (dtype, shape) in sorted(tensors.items()):
        size = int(np.prod(shape, dtype=object)) * SIZES[dtype]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
        # What is larger is refused before anybody looks at the checksum.
        if size <= SIZE_LIMIT and not name.startswith("x_"):
            digest.update(f"{name}:{','.join(map(str, shape))}\n".encode() + bytes(size))
    header = json.dumps({"__metadata__": {**metadata, "hrv.sha256": digest.hexdigest()}, **entries}).encode()
    return sparse(path, struct.pack("<Q", len(header)) + header, 8 + len(header) + offset)


def values(concepts: int, heads: int = SDXL.head_count) -> Tensors:
    return {"hrv": ("F32", (concepts, heads))}


def raw(path: Path, header: bytes) -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


MOST = SIZE_LIMIT // (4 * SDXL.head_count)
"""Concepts of the largest HRV of SDXL without evidence."""


@pytest.mark.slow
def test_the_largest_hrv_is_read_within_four_times_its_size(tmp_path: Path) -> None:
    bombs = ",".join(["{}"] * 1_500_000)
    growth = growth_of("hrv", zeros(tmp_path / "a", values(MOST), MOST, provenance=f'{{"a":[{bombs}]}}'))
    assert growth.said == "" and SIZE_LIMIT < growth.bytes <= ALLOWED


def test_the_largest_evidence_is_read_within_four_times_its_size(tmp_path: Path) -> None:
    pairs = SIZE_LIMIT // 32 - 16
    tensors: Tensors = {
        "hrv": ("F32", (1, 1)),
        "effects": ("F32", (pairs, 1)),
        "effect_norms": ("F32", (pairs,)),
        "effect_pairs": ("I64", (pairs, 3)),
    }
    growth = growth_of("hrv", zeros(tmp_path / "a", tensors, layout=ONE_HEAD, version=2))
    assert "the same pair twice" in growth.said and growth.bytes <= ALLOWED


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        # The file that was found: three gigabytes of which no byte is anybody's.
        (values(600_000), "its tensor 'hrv' should be 1 concepts x 1300 heads"),
        ({"hrv": ("F32", (1, 1300)), "counts": ("I64", (300_000, 1300))}, "its tensor 'counts' should be 1 concepts"),
        ({**values(1), "counts": ("I64", (1, 1300)), "step_counts": ("I64", (300_000, 1, 1300))}, "bytes of numbers"),
        ({**values(1), "x_more": ("U8", (3_000_000_000,))}, ""),
    ],
    ids=["values", "counts", "step counts", "additions"],
)
def test_large_files_are_refused_or_passed_over_without_reading_them(
    tensors: Tensors, message: str, tmp_path: Path
) -> None:
    path = zeros(tmp_path / "a", tensors)
    assert path.stat().st_size > 3_000_000_000
    growth = growth_of("hrv", path)
    assert bool(message) == bool(growth.said) and message in growth.said and growth.bytes < 100_000_000


@pytest.mark.parametrize(
    "header",
    [
        b"[" + b",".join([b"{}"] * 2_700_000) + b"]",
        b'{"__metadata__":{' + b",".join(b'"%x":""' % number for number in range(690_000)) + b"}}",
        b'{"__metadata__":{"hrv.format_version":"1"},' + b",".join(b'"x_%x":{}' % n for n in range(560_000)) + b"}",
        b'{"__metadata__":{"hrv.format_version":"1"},"hrv":{"dtype":"F32","shape":['
        + b",".join([b"9"] * 4_000_000)
        + b'],"data_offsets":[0,0]}}',
    ],
    ids=["objects", "metadata", "tensors", "axes"],
)
def test_headers_of_little_things_grow_within_bounds(header: bytes, tmp_path: Path) -> None:
    assert len(header) <= HEADER_LIMIT
    growth = growth_of("hrv", raw(tmp_path / "a", header))
    assert growth.said and len(growth.said) < 500 and growth.bytes <= ALLOWED


def test_an_hrv_too_large_to_be_read_is_not_written(tmp_path: Path) -> None:
    pairs = SIZE_LIMIT // 32 + 1
    numbers = np.zeros((pairs, 3), dtype=np.int64)
    numbers[:, 1] = np.arange(pairs)
    evidence = Effects(np.ones((pairs, 1), np.float32), np.ones(pairs, np.float32), numbers)
    large = HRV(np.ones((1, 1), np.float32), ("Color",), ONE_HEAD, evidence)
    with pytest.raises(HRVError, match=r"a file holds at most 268 MB\. Take fewer concepts"):
        save_hrv(large, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def npy(descr: str, shape: str, length: int | None = None, body: bytes = b"") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header = header.ljust(length or 118)
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + body


NAMES = npy("<U1", "(1,)", body=bytes(4))


@pytest.mark.parametrize(
    ("vectors", "names", "message"),
    [
        # The file that was found: a header of twenty megabytes, in which every place was tried.
        (npy("<f4", "(" + "1, " * 7_000_000 + ")"), NAMES, "has a header of 2100"),
        (npy("<f4", "(1, 1)", 20_000_000), NAMES, "has a header of 20000000 bytes"),
        (npy("<f4", "(" + "1, " * 3_000 + ")"), NAMES, "doesn't have the header of a plain array"),
        (npy("<f4", "(1, 1)", body=bytes(4)), npy("<U1", "(999999999,)"), "should have 3999999996 bytes"),
        (npy("<f4", "(1, 1)", body=bytes(4)), npy("<U1", "(262000,)", body=bytes(1_048_000)), "fit no known model"),
        (npy("<f4", "(1, 1)", body=bytes(4)), bytes(NAMES_LIMIT + 1), f"at most {NAMES_LIMIT} are read"),
    ],
    ids=["long header", "padded header", "many axes", "promises", "many names", "large names"],
)
def test_npy_headers_and_names_have_limits(vectors: bytes, names: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(HRVError, match=message) as caught:
        hrv_from_npy(vectors, names, ["Color"])
    assert len(str(caught.value)) < 600
    (tmp_path / "vectors").write_bytes(vectors)
    (tmp_path / "names").write_bytes(names)
    growth = growth_of("npy", tmp_path / "vectors", tmp_path / "names", 1)
    assert growth.said == str(caught.value) and growth.bytes <= 100_000_000


def test_the_largest_vectors_are_read_within_four_times_their_size(tmp_path: Path) -> None:
    head = npy("<f8", "(25810, 1300)")
    path = sparse(tmp_path / "vectors", head, len(head) + 25810 * 1300 * 8)
    assert path.stat().st_size <= VECTORS_LIMIT < path.stat().st_size + 100_000
    text = npy("<U30", "(1300,)", body=np.array(SDXL.head_names(), dtype="<U30").tobytes())
    (tmp_path / "names").write_bytes(text)
    growth = growth_of("npy", path, tmp_path / "names", 25810)
    assert growth.said == "" and VECTORS_LIMIT < growth.bytes <= ALLOWED


SMALL = st.integers(0, 40)
SIZE = SMALL | st.integers(0, 2**70)


@fuzz(examples=150)
@given(data=st.data())
def test_any_shapes_and_places_are_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    """Whatever a header promises, only what is there is read."""
    path = zeros(tmp_path / "a", values(1))
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    for name in data.draw(st.sets(st.sampled_from(["hrv", "counts", "step_counts", "effects", "x_a"]), min_size=1)):
        shape = data.draw(st.lists(SIZE, max_size=3))
        begin = data.draw(st.just(0) | SIZE)
        exact = begin + int(np.prod(shape, dtype=object)) * 4
        end = data.draw(st.just(exact) | st.just(5200) | SIZE)
        dtype = data.draw(st.sampled_from(["F32", "I64", "F64"]))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    try:
        load_hrv(path)
    except HRVError as error:
        assert len(str(error)) < 500
