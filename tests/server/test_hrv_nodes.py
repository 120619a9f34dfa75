"""Nodes that work on HRVs alone, on the real server: published ones, imports, arithmetic, and their refusals."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pytest
from hrv_pack.hrv.heads.families import FAMILIES
from hrv_pack.hrv.relevance.arithmetic import clamp, mean, merge, pick
from hrv_pack.hrv.relevance.files import load_hrv, save_hrv
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.tests.support.graphs import node
from launcher.api_client import ApiClient, RunResult, WorkflowError
from launcher.comfy_server import ComfyServer
from launcher.paths import PACK_ROOT
from PIL import Image

PUBLISHED = PACK_ROOT.parent / "shared" / "data" / "published"
CATALOG = json.loads((PACK_ROOT / "hrv_presets" / "catalog.json").read_text(encoding="utf-8"))

LAYOUT = FAMILIES[0].layout()
CONCEPTS = ("Color", "Shape", "Size")

Graph = dict[str, dict[str, Any]]


def made(seed: int, concepts: tuple[str, ...] = CONCEPTS) -> HRV:
    counts = np.random.default_rng(seed).integers(1, 1000, (len(concepts), 128))
    return HRV.from_counts(counts, concepts, LAYOUT, {"model": "SD15", "seed": seed, "images": 4})


@pytest.fixture
def folder(comfy_server: ComfyServer) -> Path:
    """The server's models/hrv, with an HRV a.safetensors, another b of the same concepts, and c of other ones."""
    folder = comfy_server.base_directory / "models" / "hrv"
    folder.mkdir(parents=True, exist_ok=True)
    for name, hrv in (("a", made(1)), ("b", made(2)), ("c", made(3, ("Mood", "Weather")))):
        save_hrv(hrv, folder / f"{name}.safetensors", overwrite=True)
    return folder


def run(api: ApiClient, name: str, **nodes: dict[str, Any]) -> RunResult:
    """Run nodes on the HRVs a, b and c; what "made" gives is saved as ``name`` of models/hrv."""
    graph = {file: node("HRV_Load", file=f"{file}.safetensors") for file in "abc"}
    if "made" in nodes:
        graph["save"] = node("HRV_Save", hrv=["made", 0], name=name)
    return api.run({**graph, **nodes}, timeout=300)


@pytest.mark.parametrize(
    ("name", "made_by", "expected"),
    [
        (
            "merged",
            node("HRV_Merge", **{"hrvs.hrv0": ["a", 0], "hrvs.hrv1": ["b", 0], "hrvs.hrv2": ["c", 0]}),
            lambda: merge([made(1), made(2), made(3, ("Mood", "Weather"))]),
        ),
        (
            "added",
            node("HRV_Merge", **{"hrvs.hrv0": ["b", 0], "hrvs.hrv1": ["a", 0]}),
            lambda: merge([made(1), made(2)]),
        ),
        ("mean", node("HRV_Mean", **{"hrvs.hrv0": ["a", 0], "hrvs.hrv1": ["b", 0]}), lambda: mean([made(1), made(2)])),
        (
            "picked",
            node("HRV_PickConcepts", hrv=["a", 0], concepts="size, Color"),
            lambda: pick(made(1), ["Size", "Color"]),
        ),
        ("clamped", node("HRV_Clamp", hrv=["a", 0], limit=1.5), lambda: clamp(made(1), 1.5)),
    ],
)
def test_arithmetic(api: ApiClient, folder: Path, name: str, made_by: dict[str, Any], expected: Any) -> None:
    run(api, f"arithmetic/{name}", made=made_by)
    assert load_hrv(folder / "arithmetic" / f"{name}.safetensors").same_as(expected())


@pytest.mark.parametrize(
    ("made_by", "sentence"),
    [
        (node("HRV_Merge", **{"hrvs.hrv0": ["a", 0], "hrvs.hrv1": ["a", 0]}), r"count the same images \(seed 1\)"),
        (
            node("HRV_Mean", **{"hrvs.hrv0": ["a", 0], "hrvs.hrv1": ["c", 0]}),
            "not all of these have Color, Shape, Size",
        ),
        (node("HRV_PickConcepts", hrv=["a", 0], concepts=" , "), "No concept was picked"),
        (node("HRV_Clamp", hrv=["a", 0], limit=0.0), "smaller than min"),
    ],
)
def test_refusals_are_sentences(api: ApiClient, folder: Path, made_by: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WorkflowError, match=sentence) as caught:
        run(api, "never", made=made_by)
    assert caught.value.class_type == made_by["class_type"]


def test_a_ranking_is_text_and_json(api: ApiClient, folder: Path) -> None:
    rank = node("HRV_Rank", hrv=["a", 0], concepts="Shape", top_k=2)
    result = run(api, "", rank=rank, show=node("PreviewAny", source=["rank", 1]))
    first, second = made(1).ranking("Shape")[:2].tolist()
    (text,) = result.outputs["rank"]["text"]
    assert text.splitlines()[0] == "Shape" and len(text.splitlines()) == 3
    ranked = json.loads(result.outputs["show"]["text"][0])
    assert [head["head_position"] for head in ranked["Shape"]] == [first, second]


def test_a_comparison_is_a_picture(api: ApiClient, folder: Path) -> None:
    result = run(
        api,
        "",
        one=node("HRV_Compare", hrv=["a", 0], concepts=""),
        two=node("HRV_Compare", hrv=["a", 0], other=["c", 0], concepts=""),
        show=node("PreviewAny", source=["two", 1]),
    )
    for name in ("one", "two"):
        picture = Image.open(io.BytesIO(api.view(result.images(name)[0])))
        assert picture.width > 300 and picture.height > 300
    table = json.loads(result.outputs["show"]["text"][0])
    assert (table["rows"], table["columns"]) == (list(CONCEPTS), ["Mood", "Weather"])
    assert np.array(table["cosines"]).shape == (3, 2)


@pytest.fixture
def place(folder: Path) -> Iterator[Path]:
    """The folder of published HRVs, which does not exist. Other tests of this server find none there afterwards."""
    place = folder / "published"
    yield place
    rmtree(place, ignore_errors=True)


def test_published_hrvs_are_left_alone_until_asked_for_and_taken_from_the_folder(
    api: ApiClient, folder: Path, place: Path
) -> None:
    entry = CATALOG[0]
    published = node("HRV_Published", name=entry["name"], download=False)
    with pytest.raises(WorkflowError, match="Turn on 'download'") as caught:
        run(api, "never", made=published)
    assert str(place) in str(caught.value)
    if not PUBLISHED.exists():
        return
    place.mkdir()
    for part, short in (("vectors", "category_vectors"), ("head_index", "head_index")):
        data = (PUBLISHED / f"sd_v1_4.{short}.npy").read_bytes()
        (place / entry[part]["url"].rpartition("/")[2]).write_bytes(data)
    result = run(api, "from-the-authors", made=published, show=node("PreviewAny", source=["made", 1]))
    assert "License: Apache-2.0" in result.outputs["show"]["text"][0]
    hrv = load_hrv(folder / "from-the-authors.safetensors")
    assert hrv.same_as(load_hrv(place / f"{entry['name']}.safetensors"))
    assert len(hrv.concepts) == 34 and hrv.layout == LAYOUT


def test_npy_files_and_word_lists_are_imported(api: ApiClient, folder: Path, comfy_server: ComfyServer) -> None:
    inputs = comfy_server.base_directory / "input"
    inputs.mkdir(exist_ok=True)
    values = made(1).values
    np.save(folder / "mine.npy", values)
    np.save(inputs / "names.npy", np.array(LAYOUT.head_names()))
    (inputs / "words.csv").write_bytes(
        "\ufeffColor\r\n\r\n1. red\r\n\r\nShape\r\n1. star\r\nSize\r\n1. big\r\n".encode()
    )
    nodes = {
        "words": node("HRV_ImportConcepts", file="words.csv"),
        "show": node("PreviewAny", source=["words", 1]),
        "made": node("HRV_ImportNpy", vectors="mine.npy", head_index="names.npy", concepts=["words", 0]),
    }
    result = run(api, "imported", **nodes)
    assert result.outputs["show"]["text"] == ["Color: red\nShape: star\nSize: big\n"]
    imported = load_hrv(folder / "imported.safetensors")
    np.testing.assert_array_equal(imported.values, values)
    assert (imported.concepts, imported.layout) == (CONCEPTS, LAYOUT)
    assert imported.provenance["vocabulary"] == "Color: red\nShape: star\nSize: big\n"

    nodes["made"]["inputs"].pop("concepts")
    with pytest.raises(WorkflowError, match="3 rows, but there are names for 34 concepts"):
        run(api, "never", made=nodes["made"])


@pytest.mark.parametrize("name", ["../secret.npy", "/etc/hostname", "absent.npy", "", ".", "\0.npy", "x" * 300])
@pytest.mark.parametrize("field", ["vectors", "head_index"])
def test_only_files_of_the_users_folders_are_read(api: ApiClient, folder: Path, field: str, name: str) -> None:
    np.save(folder / "any.npy", made(1).values)
    np.save(folder.parent / "secret.npy", made(1).values)
    files = {"vectors": "any.npy", "head_index": "any.npy", field: name}
    with pytest.raises(WorkflowError, match="There is no file"):
        run(api, "never", made=node("HRV_ImportNpy", **files))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("Color\n1. r\xe9d".encode("latin-1"), "not UTF-8"),
        (b"", "empty"),
        (b"1. red", "before the name"),
        (b"Color", "no words"),
    ],
)
def test_bad_word_lists_are_sentences(api: ApiClient, folder: Path, content: bytes, sentence: str) -> None:
    (folder / "bad.csv").write_bytes(content)
    with pytest.raises(WorkflowError, match=sentence):
        api.run(
            {
                "words": node("HRV_ImportConcepts", file="bad.csv"),
                "show": node("PreviewAny", source=["words", 1]),
            },
            timeout=60,
        )
