"""The routes of the page on the real server: what they give, and what they refuse."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hrv_pack.hrv.controls.reading import SMALLEST_GATE
from hrv_pack.hrv.heads.families import FAMILIES
from hrv_pack.hrv.heads.sets import parse_heads, spell_heads
from hrv_pack.hrv.relevance.arithmetic import clamp, mean, merge, pick
from hrv_pack.hrv.relevance.files import load_hrv, save_hrv
from hrv_pack.hrv.relevance.orders import head_order
from hrv_pack.hrv.relevance.vectors import HRV
from launcher.api_client import ApiClient, RefusedError
from launcher.comfy_server import ComfyServer
from launcher.paths import PACK_ROOT

LAYOUT = FAMILIES[0].layout()
ROWS = json.loads(LAYOUT.to_json())
MINI = "hrv-mini.safetensors"

Recipe = dict[str, Any]


def made(seed: int, *concepts: str) -> HRV:
    counts = np.random.default_rng(seed).integers(1, 1000, (len(concepts), LAYOUT.head_count))
    return HRV.from_counts(counts, concepts, LAYOUT, {"seed": seed})


A, B = made(1, "Color", "Shape"), made(2, "Mood")
A_FILE: Recipe = {"from": "file", "name": "routes/a.safetensors"}
B_FILE: Recipe = {"from": "file", "name": "routes/b.safetensors"}


@pytest.fixture(autouse=True)
def files(comfy_server: ComfyServer) -> Path:
    folder = comfy_server.base_directory / "models" / "hrv"
    (folder / "routes").mkdir(parents=True, exist_ok=True)
    for name, hrv in (("a", A), ("b", B)):
        save_hrv(hrv, folder / "routes" / f"{name}.safetensors", overwrite=True)
    return folder


def refusal(api: ApiClient, path: str, request: Any) -> str:
    """The sentence with which the server refuses a request."""
    with pytest.raises(RefusedError) as caught:
        api.post(path, request)
    assert caught.value.status == 400
    return str(caught.value.answer["error"])


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({"from": "file", "name": MINI}, lambda: load_hrv(PACK_ROOT / "hrv_presets" / "hrvs" / MINI)),
        (A_FILE, lambda: A),
        ({"from": "pick", "hrv": A_FILE, "concepts": ["shape"]}, lambda: pick(A, ["Shape"])),
        ({"from": "clamp", "hrv": A_FILE, "limit": 1.5}, lambda: clamp(A, 1.5)),
        ({"from": "merge", "hrvs": [A_FILE, B_FILE]}, lambda: merge([A, B])),
        ({"from": "mean", "hrvs": [A_FILE, A_FILE]}, lambda: mean([A, A])),
    ],
    ids=lambda value: value["from"] if isinstance(value, dict) else None,
)
def test_hrvs(api: ApiClient, recipe: Recipe, expected: Callable[[], HRV]) -> None:
    found, hrv = api.post("/hrv/hrv", recipe), expected()
    values = np.frombuffer(base64.b64decode(found["values"]), "<f4").reshape(len(hrv.concepts), -1)
    assert np.array_equal(values, hrv.values)
    assert found["concepts"] == list(hrv.concepts)
    assert found["digest"] == hrv.digest
    assert found["layout"] == json.loads(hrv.layout.to_json())
    assert found["names"] == [layer.name for layer in hrv.layout.layers]
    assert api.post("/hrv/concepts", recipe) == {"concepts": list(hrv.concepts)}


def test_concepts_are_known_before_there_are_values(api: ApiClient) -> None:
    published = {"from": "published", "name": "stable-diffusion-v1-4"}
    vocabulary = {"from": "vocabulary", "text": "# comment\nColor: red\nGood Mood: happy, glad\n"}

    def concepts(recipe: Recipe) -> list[str]:
        names: list[str] = api.post("/hrv/concepts", recipe)["concepts"]
        return names

    assert len(concepts(published)) == 34
    assert concepts(vocabulary) == ["Color", "Good Mood"]
    assert concepts({"from": "mini"}) == list(load_hrv(PACK_ROOT / "hrv_presets" / "hrvs" / MINI).concepts)
    assert concepts({"from": "pick", "hrv": vocabulary, "concepts": [" good  MOOD"]}) == ["Good Mood"]
    assert concepts({"from": "clamp", "hrv": vocabulary, "limit": 1}) == ["Color", "Good Mood"]
    assert concepts({"from": "mean", "hrvs": [vocabulary, A_FILE]}) == ["Color", "Good Mood"]
    assert concepts({"from": "merge", "hrvs": [A_FILE, vocabulary]}) == ["Color", "Shape", "Good Mood"]
    assert "only known after a run" in refusal(api, "/hrv/hrv", vocabulary)
    assert "not on this machine" in refusal(api, "/hrv/hrv", published)


def test_imports(api: ApiClient, comfy_server: ComfyServer) -> None:
    folder = comfy_server.base_directory / "input"
    np.save(folder / "vectors.npy", A.values)
    np.save(folder / "index.npy", np.array(LAYOUT.head_names()))
    (folder / "words.csv").write_text("Color\n1. red\n2. blue\nMood\n1. happy\n", encoding="utf-8")
    vocabulary = {"from": "vocabulary", "text": "One: a\nTwo: b"}
    npy = {"from": "npy", "vectors": "vectors.npy", "head_index": "index.npy", "vocabulary": vocabulary}
    assert api.post("/hrv/concepts", npy) == {"concepts": ["One", "Two"]}
    del npy["vocabulary"]
    assert "34" in refusal(api, "/hrv/concepts", npy)
    assert api.post("/hrv/concepts", {"from": "words", "file": "words.csv"}) == {"concepts": ["Color", "Mood"]}


@pytest.mark.parametrize(
    "recipe",
    [
        {"from": "file", "name": "../secret.safetensors"},
        {"from": "file", "name": "/etc/passwd"},
        {"from": "file", "name": "gone.safetensors"},
        {"from": "npy", "vectors": "../secret.npy", "head_index": "/etc/passwd"},
        {"from": "words", "file": "../models/hrv/../../secret.csv"},
        {"from": "published", "name": "../../secret"},
        {"from": "run", "digest": "0" * 64},
        {"from": "pick", "hrv": A_FILE, "concepts": ["Colour"]},
        {"from": "pick", "hrv": A_FILE},
        {"from": "pick", "hrv": "a", "concepts": []},
        {"from": "clamp", "hrv": A_FILE, "limit": "9"},
        {"from": "clamp", "hrv": A_FILE, "limit": -1},
        {"from": "merge", "hrvs": A_FILE},
        {"from": "merge", "hrvs": [A_FILE, 3]},
        {"from": "mean", "hrvs": []},
        {"from": "vocabulary", "text": "no colon"},
        {"from": "eval"},
        {"from": 3},
        {},
    ],
)
def test_what_no_node_would_accept_is_refused_in_a_sentence(
    api: ApiClient, comfy_server: ComfyServer, recipe: Recipe
) -> None:
    for name in ("secret.safetensors", "secret.npy", "secret.csv"):
        (comfy_server.base_directory / name).write_bytes((PACK_ROOT / "hrv_presets" / "hrvs" / MINI).read_bytes())
    # A limit, however wrong, changes no names.
    for path in ["/hrv/hrv"] if "limit" in recipe else ["/hrv/hrv", "/hrv/concepts"]:
        assert refusal(api, path, recipe).endswith((".", "more"))


def test_requests_have_limits(api: ApiClient) -> None:
    deep: Recipe = A_FILE
    for _ in range(20):
        deep = {"from": "clamp", "hrv": deep, "limit": 2}
    assert "in a row" in refusal(api, "/hrv/hrv", deep)
    wide = A_FILE
    for _ in range(3):
        wide = {"from": "mean", "hrvs": [wide] * 8}
    assert "steps" in refusal(api, "/hrv/hrv", wide)
    assert "bytes" in refusal(api, "/hrv/concepts", {"from": "vocabulary", "text": "x" * (2 << 20)})
    assert "characters" in refusal(api, "/hrv/tokens", {"text": "x" * 200_000})
    assert "JSON object" in refusal(api, "/hrv/tokens", [1])


def test_texts_that_no_prompt_can_have_are_refused_as_nodes_refuse_them(api: ApiClient) -> None:
    """Half a character, and thousands of brackets inside each other."""
    assert "The text of 'text' has half a character ('\\ud800') at place 3" in refusal(
        api, "/hrv/tokens", {"text": "a \ud800"}
    )
    assert "half a character" in refusal(api, "/hrv/concepts", {"from": "vocabulary", "text": "Color: \udfff"})
    assert "brackets inside each other" in refusal(api, "/hrv/tokens", {"text": "(" * 3000 + "a" + ")" * 3000})


def test_written_heads(api: ApiClient) -> None:
    positions = list(parse_heads(LAYOUT, "mid up3"))
    asked = {"layout": ROWS, "text": "mid  up3"}
    assert api.post("/hrv/heads", asked) == {"text": "mid  up3", "positions": positions}
    for toggled in (positions[0], 0):
        changed = api.post("/hrv/heads", {**asked, "toggle": toggled})
        assert changed["positions"] == sorted(set(positions) ^ {toggled})
        assert changed["text"] == spell_heads(LAYOUT, changed["positions"])
    flux = {"family": "flux", "layers": [["double", 0, 0, 24], ["single", 0, 0, 24]]}
    assert api.post("/hrv/heads", {"layout": flux, "text": "", "toggle": 25}) == {
        "text": "single:1",
        "positions": [25],
    }
    assert refusal(api, "/hrv/heads", {**asked, "layout": {"family": "flux"}})
    assert "isn't a set of heads" in refusal(api, "/hrv/heads", {**asked, "text": "front"})
    assert "0 to 127" in refusal(api, "/hrv/heads", {**asked, "toggle": 128})
    assert refusal(api, "/hrv/heads", {**asked, "toggle": -1})
    assert refusal(api, "/hrv/heads", {**asked, "layout": [["input", 1, 0, 8], ["input", 1, 0, 8]]})


def test_touched_heads(api: ApiClient) -> None:
    def touched(node: str, **values: Any) -> list[int]:
        positions: list[int] = api.post("/hrv/touched", {"hrv": A_FILE, "node": node, **values})["positions"]
        return positions

    weaken = {"concept": "Color", "order": "most relevant first", "heads": 5, "unit": "heads", "seed": 0}
    ranking = A.ranking("Color").tolist()
    assert touched("HRV_WeakenHeads", **weaken) == ranking[:5]
    assert touched("HRV_WeakenHeads", **{**weaken, "unit": "percent"}) == ranking[:6]
    assert touched("HRV_WeakenHeads", **{**weaken, "order": "least relevant first"}) == ranking[::-1][:5]
    for seed in (7, 2**64 - 1):
        drawn = head_order(A, "Color", "random", seed).tolist()
        assert touched("HRV_WeakenHeads", **{**weaken, "order": "random", "seed": seed, "heads": 1000}) == drawn
    assert touched("HRV_ReadByConcept", concept="Shape", heads=0, gates="top heads") == sorted(A.ranking("Shape")[:8])
    row = A.row("Shape")
    assert touched("HRV_ReadByConcept", concept="Shape", heads=1, gates="by relevance") == [
        head for head, value in enumerate(row) if value >= SMALLEST_GATE * row.max()
    ]
    assert touched("HRV_ScaleHeads", heads="mid:0") == list(parse_heads(LAYOUT, "mid:0"))
    assert touched("HRV_ConceptStrengthen", concept="Color") == []


def test_tokens(api: ApiClient) -> None:
    found = api.post("/hrv/tokens", {"text": r"a (rose-colored:1.3) skyscraper, \(dusk\)"})
    words = found["words"]
    assert [word["text"] for word in words] == ["a", "rose", "-", "colored", "skyscraper", ",", "(", "dusk", ")"]
    assert [word["weight"] for word in words] == [1.0, 1.3, 1.3, 1.3, 1.0, 1.0, 1.0, 1.0, 1.0]
    places = [position for word in words for position in word["positions"]]
    assert places == list(range(1, len(places) + 1))
    assert (found["length"], found["chunk"]) == (77, 77)
    assert api.post("/hrv/tokens", {"text": ""}) == {"words": [], "length": 77, "chunk": 77}
    long = api.post("/hrv/tokens", {"text": "red " * 80})
    assert long["length"] == 154
    assert long["words"][79]["positions"][0] > 77
