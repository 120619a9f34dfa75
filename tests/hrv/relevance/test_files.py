"""HRV files: faithful both ways, readable by others, and never more than an HRVError for bad content."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.hrv.relevance.evidence import Votes
from hrv_pack.hrv.relevance.files import load_hrv, save_hrv
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.hrv.storage.digest import content_digest
from hrv_pack.hrv.storage.tensor_files import HEADER_LIMIT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pack_import import PACK_ROOT
from safetensors.numpy import load_file, save_file

LAYOUT = HeadLayout((AttentionLayer("input", 1, 0, 2), AttentionLayer("middle", 0, 0, 3)))
COUNTS = np.array([[3, 0, 1, 4, 10], [1, 4, 1, 4, 0], [0, 4, 2, 0, 30]], dtype=np.int64)
CONCEPTS = ("Color", "Größe", "Image Style")
PROVENANCE = {"model": "mini", "prompts": ["a red vase", "ein grüner Würfel"], "cfg": 7.5, "seed": None}


@pytest.fixture(scope="module")
def full() -> HRV:
    return HRV.from_counts(COUNTS, CONCEPTS, LAYOUT, PROVENANCE)


@pytest.fixture(scope="module")
def bare(full: HRV) -> HRV:
    return HRV(full.values, CONCEPTS, LAYOUT)


@pytest.fixture(scope="module")
def saved(full: HRV, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return save_hrv(full, tmp_path_factory.mktemp("saved") / "a").read_bytes()


def content(hrv: HRV) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata without the checksum, and tensors, as docs/hrv-format.md has them."""
    metadata = {
        "hrv.format_version": "1",
        "hrv.concepts": json.dumps(list(hrv.concepts), ensure_ascii=False),
        "hrv.layout": hrv.layout.to_json(),
        "hrv.provenance": hrv.provenance_json(),
    }
    tensors: dict[str, np.ndarray] = {"hrv": np.array(hrv.values)}
    if isinstance(hrv.evidence, Votes):
        tensors["counts"] = np.array(hrv.evidence.counts)
    return metadata, tensors


def write(path: Path, metadata: dict[str, str], tensors: dict[str, np.ndarray]) -> Path:
    """Write a file with the safetensors library and a checksum computed from the specification alone."""
    digest = hashlib.sha256()
    for key in sorted(key for key in metadata if key.startswith("hrv.") and key != "hrv.sha256"):
        digest.update(f"{key}={metadata[key]}\n".encode())
    for name in sorted(name for name in tensors if not name.startswith("x_")):
        digest.update(f"{name}:{','.join(map(str, tensors[name].shape))}\n".encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    save_file(tensors, path, {"hrv.sha256": digest.hexdigest(), **metadata})
    return path


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def raw(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def refused(path: Path, message: str) -> None:
    with pytest.raises(HRVError, match=message) as caught:
        load_hrv(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", ["full", "bare"])
def test_saved_and_loaded_are_the_same(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    hrv: HRV = request.getfixturevalue(kind)
    path = save_hrv(hrv, tmp_path / "a.safetensors")
    assert path == tmp_path / "a.safetensors"
    loaded = load_hrv(path)
    assert loaded.same_as(hrv)
    assert loaded.concepts == hrv.concepts and loaded.layout == hrv.layout and loaded.provenance == hrv.provenance
    assert loaded.values.tobytes() == hrv.values.tobytes()
    assert (loaded.evidence is None) == (hrv.evidence is None)
    assert names(tmp_path) == ["a.safetensors"]


def test_equal_hrvs_give_equal_bytes(full: HRV, tmp_path: Path) -> None:
    again = HRV(
        full.values,
        full.concepts,
        full.layout,
        full.evidence,
        dict(sorted(full.provenance.items(), reverse=True)),
    )
    one, two = save_hrv(full, tmp_path / "1"), save_hrv(again, str(tmp_path / "2"))
    assert one.read_bytes() == two.read_bytes()


def test_the_safetensors_library_reads_our_files(full: HRV, tmp_path: Path) -> None:
    path = save_hrv(full, tmp_path / "a.safetensors")
    tensors = load_file(path)
    assert tensors["hrv"].dtype == np.float32 and np.array_equal(tensors["hrv"], full.values)
    assert tensors["counts"].dtype == np.int64 and np.array_equal(tensors["counts"], COUNTS)
    with safetensors.safe_open(path, framework="np") as file:
        metadata = file.metadata()
    assert json.loads(metadata["hrv.concepts"]) == list(CONCEPTS)
    assert json.loads(metadata["hrv.provenance"]) == PROVENANCE
    assert json.loads(metadata["hrv.layout"]) == [["input", 1, 0, 2], ["middle", 0, 0, 3]]
    assert metadata["hrv.format_version"] == "1"


def test_files_written_by_others_are_read(full: HRV, bare: HRV, tmp_path: Path) -> None:
    for number, hrv in enumerate((full, bare)):
        assert load_hrv(write(tmp_path / str(number), *content(hrv))).same_as(hrv)


def test_additions_are_passed_over(full: HRV, tmp_path: Path) -> None:
    metadata, tensors = content(full)
    tensors["x_histogram"] = np.arange(7, dtype=np.uint8)
    metadata["format"] = "pt"
    assert load_hrv(write(tmp_path / "a", metadata, tensors)).same_as(full)


def test_step_counts_are_understood_and_have_to_add_up(full: HRV, tmp_path: Path) -> None:
    metadata, tensors = content(full)
    steps = np.stack([COUNTS // 2, COUNTS - COUNTS // 2])
    assert load_hrv(write(tmp_path / "a", metadata, {**tensors, "step_counts": steps})).same_as(full)
    refused(write(tmp_path / "b", metadata, {**tensors, "step_counts": steps[:1]}), "does not add up")
    refused(write(tmp_path / "c", metadata, {**tensors, "step_counts": steps[:, :2]}), "should be 2 steps x 3 concepts")
    refused(
        write(tmp_path / "d", metadata, {**tensors, "step_counts": steps[0]}),
        re.escape("[steps, concepts, heads]"),
    )
    refused(
        write(tmp_path / "e", metadata, {"hrv": tensors["hrv"], "step_counts": steps}),
        "needs a tensor .counts.",
    )


def test_existing_files_are_kept_unless_overwriting_is_allowed(full: HRV, bare: HRV, tmp_path: Path) -> None:
    path = save_hrv(full, tmp_path / "a")
    with pytest.raises(HRVError, match="exists already"):
        save_hrv(bare, path)
    assert load_hrv(path).same_as(full)
    save_hrv(bare, path, overwrite=True)
    assert load_hrv(path).same_as(bare)
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "read-only"), (errno.EIO, os.strerror(errno.EIO))],
)
@pytest.mark.parametrize(("owner", "call"), [(os, "fsync"), (Path, "replace")])
def test_failed_writes_leave_nothing_behind(
    owner: object,
    call: str,
    number: int,
    message: str,
    full: HRV,
    bare: HRV,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = save_hrv(full, tmp_path / "a")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(owner, call, fail)
    with pytest.raises(HRVError, match=message) as caught:
        save_hrv(bare, path, overwrite=True)
    assert str(path) in str(caught.value)
    assert names(tmp_path) == ["a"]
    assert load_hrv(path).same_as(full)


def test_an_interrupted_write_leaves_nothing_behind(full: HRV, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_hrv(full, tmp_path / "a")
    assert names(tmp_path) == []


def test_places_where_nothing_can_be_written(full: HRV, tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "a", tmp_path / ("n" * 300)):
        with pytest.raises(HRVError, match="Cannot save the HRV as"):
            save_hrv(full, path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(HRVError, match="Cannot save the HRV as"):
        save_hrv(full, tmp_path / "folder", overwrite=True)
    assert names(tmp_path) == ["folder"]


def test_a_header_too_long_to_be_read_is_not_written(bare: HRV, tmp_path: Path) -> None:
    talkative = HRV(bare.values, CONCEPTS, LAYOUT, None, {"prompts": "a" * HEADER_LIMIT})
    with pytest.raises(HRVError, match="Shorten the provenance"):
        save_hrv(talkative, tmp_path / "a")
    assert names(tmp_path) == []


def test_missing_files_and_folders(tmp_path: Path) -> None:
    refused(tmp_path / "missing.safetensors", "no such file")
    refused(tmp_path, "Cannot load")


@pytest.mark.parametrize("data", [b"", b"1234567", b"\x93NUMPY\x01\x00v\x00{'descr'", b"PK\x03\x04" * 9, bytes(64)])
def test_files_that_are_no_safetensors(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(data)
    refused(path, "not a safetensors file, or is incomplete")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", "looks like a checkpoint"),
        ("lora_unet_down_blocks_0.lora_up.weight", "looks like a LoRA"),
        ("some.weight", "contains some.weight"),
    ],
)
def test_foreign_safetensors_are_told_apart(tensor: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_file({tensor: np.ones(3, dtype=np.float32)}, path, {"format": "pt"})
    refused(path, f"not an HRV.*{message}")
    save_file({tensor: np.ones(3, dtype=np.float32)}, path)
    refused(path, message)


def test_huge_headers_are_not_even_read(tmp_path: Path) -> None:
    path = raw(tmp_path / "a", b"{}".ljust(HEADER_LIMIT + 1))
    refused(path, f"header has {HEADER_LIMIT + 1} bytes; an HRV file has at most {HEADER_LIMIT}")


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


VERSION = {"__metadata__": {"hrv.format_version": "1"}}
ENTRY = {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{]", "header is not valid JSON"),
        (b"\xff\xfe", "header is not valid JSON"),
        (b"[" * 100_000, "header is not valid JSON"),
        (b"[]", "not a JSON object"),
        (b'{"a":1,"a":2}', "it has the same key twice"),
        ({"__metadata__": {"hrv.format_version": 1}}, "not a JSON object of texts"),
        ({"__metadata__": []}, "not a JSON object of texts"),
        ({**VERSION, "hrv": 3}, "lacks the type, shape or place"),
        ({**VERSION, "hrv": {**ENTRY, "data_offsets": [0, True]}}, "lacks the type, shape or place"),
        ({**VERSION, "hrv": {**ENTRY, "data_offsets": [0, -8]}}, "lacks the type, shape or place"),
        ({**VERSION, "hrv": {**ENTRY, "data_offsets": [0]}}, "lacks the type, shape or place"),
        ({**VERSION, "hrv": {**ENTRY, "shape": nested(600)}}, "lacks the type|not valid JSON"),
        ({**VERSION, "hrv": {**ENTRY, "dtype": nested(600)}}, "lacks the type|not valid JSON"),
        ({**VERSION, "hrv": ENTRY}, "8 bytes of data, but there are 12"),
        ({**VERSION, "hrv": {**ENTRY, "shape": [1, 3], "data_offsets": [0, 12]}}, "has no 'hrv.concepts'"),
        ({**VERSION, "hrv": {**ENTRY, "data_offsets": [0, 12]}}, "shape that does not fit its 12 bytes"),
        (
            {**VERSION, "hrv": ENTRY, "x_a": {"dtype": "U8", "shape": [8], "data_offsets": [4, 12]}},
            "overlap or leave gaps",
        ),
    ],
)
def test_broken_headers(header: Any, message: str, tmp_path: Path) -> None:
    refused(raw(tmp_path / "a", header, bytes(12)), message)


Change = Callable[[dict[str, str], dict[str, np.ndarray]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m, t: m.update({"hrv.format_version": "4"}),
            "format version '4'; this version of the pack knows 1 to 3",
        ),
        (lambda m, t: m.pop("hrv.layout"), "has no 'hrv.layout'"),
        (lambda m, t: m.update({"hrv.extra": "1"}), "unknown key 'hrv.extra'"),
        (lambda m, t: m.update({"hrv.concepts": '{"a":1}'}), "not a JSON list"),
        (lambda m, t: m.update({"hrv.concepts": "[1,2,3]"}), "list of names"),
        (lambda m, t: m.update({"hrv.concepts": '["Color","Size","color"]'}), "color is there twice"),
        (
            lambda m, t: m.update({"hrv.concepts": '["Color","Size"]'}),
            "2 concepts x 5 heads, but it is 3 x 5",
        ),
        (
            lambda m, t: m.update({"hrv.layout": '[["input",1,0,4]]'}),
            "3 concepts x 4 heads, but it is 3 x 5",
        ),
        (lambda m, t: m.update({"hrv.layout": '[["down",1,0,5]]'}), "block must be one of"),
        (
            lambda m, t: m.update({"hrv.layout": f'[["input",{nested(600)},0,5]]'}),
            "layer's id|not valid JSON",
        ),
        (lambda m, t: m.update({"hrv.layout": f'[["input",0,0,{"9" * 4000}]]'}), "heads must be a whole number"),
        (lambda m, t: m.update({"hrv.provenance": "[]"}), "JSON object"),
        (lambda m, t: m.update({"hrv.provenance": '{"a":NaN}'}), "NaN is not a JSON number"),
        (lambda m, t: m.update({"hrv.provenance": '{"a":1e999}'}), "cannot be written as JSON"),
        (lambda m, t: m.update({"hrv.provenance": '{"a":' * 500 + "1" + "}" * 500}), "more than 32 levels"),
        (lambda m, t: m.update({"hrv.sha256": "0" * 64}), "does not match its checksum"),
        (lambda m, t: t.pop("hrv"), "no tensor 'hrv'"),
        (lambda m, t: t.update(hrv=t["hrv"].astype(np.float64)), "'hrv' must be F32, not 'F64'"),
        (lambda m, t: t.update(counts=t["counts"].astype(np.int32)), "'counts' must be I64, not 'I32'"),
        (
            lambda m, t: t.update(hrv=t["hrv"][0]),
            r"must have the axes \[concepts, heads\]",
        ),
        (lambda m, t: t.update(hrv=t["hrv"] * np.float32(np.nan)), "NaN or infinity"),
        (lambda m, t: t.update(hrv=-t["hrv"]), "not be negative"),
        (lambda m, t: t.update(counts=t["counts"] * 0), "never recorded"),
        (
            lambda m, t: t.update(counts=t["counts"][:2].copy()),
            "tensor 'counts' should be 3 concepts x 5 heads, but it is 2 x 5",
        ),
        (lambda m, t: t.update(weights=t["hrv"]), "an HRV has no tensor 'weights'"),
    ],
)
def test_what_is_no_hrv_is_refused_in_a_file_too(change: Change, message: str, full: HRV, tmp_path: Path) -> None:
    metadata, tensors = content(full)
    change(metadata, tensors)
    refused(write(tmp_path / "a.safetensors", metadata, tensors), message)


def test_half_a_character_is_refused(full: HRV, saved: bytes, tmp_path: Path) -> None:
    broken = saved.replace(b"mini", rb"\ud8")
    assert len(broken) == len(saved)
    (tmp_path / "a").write_bytes(broken)
    refused(tmp_path / "a", "not valid JSON")
    metadata, tensors = content(full)
    entry = {"dtype": "F32", "shape": [3, 5], "data_offsets": [0, 60]}
    for key in ("hrv.concepts", "hrv.provenance", "hrv.layout"):
        text = json.dumps({"__metadata__": {**metadata, "hrv.sha256": "", key: '"\ud800"'}, "hrv": entry})
        refused(raw(tmp_path / "b", text.encode(), tensors["hrv"].tobytes()), "not valid JSON|not a list")


def test_a_saved_checksum_is_the_documented_one(full: HRV, tmp_path: Path) -> None:
    with safetensors.safe_open(save_hrv(full, tmp_path / "a"), framework="np") as file:
        metadata = file.metadata()
    checksum = metadata.pop("hrv.sha256")
    assert checksum == content_digest(metadata, {"hrv": full.values, "counts": COUNTS})
    write(tmp_path / "b", metadata, {"hrv": np.array(full.values), "counts": COUNTS})
    with safetensors.safe_open(tmp_path / "b", framework="np") as file:
        assert file.metadata()["hrv.sha256"] == checksum


def test_the_documented_writer_writes_hrv_files(tmp_path: Path) -> None:
    text = (PACK_ROOT / "docs" / "hrv-format.md").read_text(encoding="utf-8")
    example = text.partition("## Writing one without this pack")[2].partition("\n## ")[0]
    code = textwrap.dedent("\n".join(line for line in example.splitlines() if line.startswith("    ")))
    # The example leaves the values to its reader.
    code = code.replace("tensors =", "values = np.ones((2, 16))\ntensors =", 1)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    loaded = load_hrv(tmp_path / "mine.safetensors")
    assert loaded.concepts == ("Color", "Shape") and loaded.layout.head_count == 16 and loaded.evidence is None


# Function-scoped fixtures are shared by all examples of one test, which each write the whole file anew.
fuzzed = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def loads_the_same_or_is_refused(path: Path, hrv: HRV) -> None:
    try:
        loaded = load_hrv(path)
    except HRVError:
        return
    assert loaded.same_as(hrv)


@fuzzed
@given(data=st.data())
def test_corrupted_bytes_load_the_same_or_are_refused(
    data: st.DataObject, saved: bytes, full: HRV, tmp_path: Path
) -> None:
    broken = bytearray(saved)
    places = st.tuples(st.integers(0, len(saved) - 1), st.integers(0, 255))
    for place, value in data.draw(st.lists(places, min_size=1, max_size=4)):
        broken[place] = value
    (tmp_path / "a").write_bytes(broken)
    loads_the_same_or_is_refused(tmp_path / "a", full)


@fuzzed
@given(data=st.data())
def test_cut_or_lengthened_files_are_refused(data: st.DataObject, saved: bytes, full: HRV, tmp_path: Path) -> None:
    length = data.draw(st.integers(0, len(saved) - 1))
    extra = data.draw(st.binary(min_size=1, max_size=16))
    for changed in (saved[:length], saved + extra, saved[:length] + extra + saved[length:]):
        (tmp_path / "a").write_bytes(changed)
        loads_the_same_or_is_refused(tmp_path / "a", full)
    (tmp_path / "a").write_bytes(saved[:length])
    refused(tmp_path / "a", "Cannot load the HRV")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["1", "[]", "{}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@fuzzed
@given(data=st.data())
def test_any_change_of_the_header_loads_the_same_or_is_refused(
    data: st.DataObject, saved: bytes, full: HRV, tmp_path: Path
) -> None:
    length = struct.unpack("<Q", saved[:8])[0]
    header = json.loads(saved[8 : 8 + length])
    parent = data.draw(st.sampled_from([header, header["__metadata__"], header["hrv"], header["counts"]]))
    key = data.draw(st.sampled_from(sorted(parent)) | st.text(max_size=5))
    parent[key] = data.draw(JSON)
    if data.draw(st.booleans()) and parent is header["__metadata__"]:
        parent[key] = json.dumps(parent[key])
    raw(tmp_path / "a", header, saved[8 + length :])
    loads_the_same_or_is_refused(tmp_path / "a", full)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(data)
    refused(tmp_path / "a", "Cannot load the HRV")


@pytest.mark.parametrize("file", ["hrv_presets/hrvs/hrv-mini.safetensors", "tests/support/old_files/hrv.safetensors"])
def test_files_of_earlier_versions_load_and_save_bit_for_bit(file: str, tmp_path: Path) -> None:
    """Against another reader of the file: every number and every text is there, and goes back to the same bytes."""
    path = PACK_ROOT / file
    hrv = load_hrv(path)
    tensors = load_file(path)
    assert tensors.keys() == {"hrv", "counts"} and isinstance(hrv.evidence, Votes)
    assert hrv.values.tobytes() == tensors["hrv"].tobytes() and hrv.values.shape == tensors["hrv"].shape
    assert np.array_equal(hrv.evidence.counts, tensors["counts"])
    with safetensors.safe_open(path, "numpy") as opened:
        metadata = opened.metadata()
    assert list(hrv.concepts) == json.loads(metadata["hrv.concepts"])
    assert hrv.layout.to_json() == metadata["hrv.layout"]
    assert hrv.provenance_json() == metadata["hrv.provenance"]
    assert save_hrv(hrv, tmp_path / "again").read_bytes() == path.read_bytes()


def of_a_transformer(full: HRV) -> HRV:
    layers = tuple(AttentionLayer("block", number, 0, 1) for number in range(full.layout.head_count))
    return HRV(full.values, full.concepts, HeadLayout(layers, "anima"), full.evidence, full.provenance)


def test_an_hrv_of_a_transformer_has_version_3_and_its_family(full: HRV, tmp_path: Path) -> None:
    hrv = of_a_transformer(full)
    path = save_hrv(hrv, tmp_path / "a")
    with safetensors.safe_open(path, "numpy") as opened:
        assert opened.metadata()["hrv.format_version"] == "3"
        assert json.loads(opened.metadata()["hrv.layout"])["family"] == "anima"
    assert load_hrv(path).layout == hrv.layout
    assert save_hrv(load_hrv(path), tmp_path / "b").read_bytes() == path.read_bytes()


def test_a_family_in_a_file_of_an_older_version_is_refused(full: HRV, tmp_path: Path) -> None:
    metadata, tensors = content(full)
    metadata["hrv.layout"] = of_a_transformer(full).layout.to_json()
    refused(write(tmp_path / "a", metadata, tensors), "which format version 3 has")
