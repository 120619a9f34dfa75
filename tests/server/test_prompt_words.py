"""Words of prompts before a run, by the loader of their text encoder, on the real server."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hrv_pack.tests.support.outlined_files import write_outline
from hrv_pack.tests.support.sentence_piece import write_gemma
from launcher.api_client import ApiClient, RefusedError
from launcher.comfy_server import ComfyServer

TEXT = "a rose-colored (red:1.3) skyscraper"
WORDS = ["a", "rose", "colored", "red", "skyscraper"]

Loader = dict[str, Any]
Shapes = dict[str, Sequence[int]]

# By what the host knows text encoders (comfy/sd.py, detect_te_model), in the published shapes.
T5: Shapes = {
    "encoder.block.23.layer.1.DenseReluDense.wi_1.weight": (10240, 4096),
    "encoder.final_layer_norm.weight": (4096,),
}
CLIP_L: Shapes = {
    "text_model.embeddings.position_embedding.weight": (77, 768),
    "text_model.encoder.layers.0.mlp.fc1.weight": (3072, 768),
    "text_model.encoder.layers.1.mlp.fc1.weight": (3072, 768),
}
CLIP_G: Shapes = {
    "text_model.embeddings.position_embedding.weight": (77, 1280),
    "text_model.encoder.layers.30.mlp.fc1.weight": (5120, 1280),
}
QWEN_4B: Shapes = {
    "model.layers.0.post_attention_layernorm.weight": (2560,),
    "model.layers.0.self_attn.q_norm.weight": (128,),
}
GEMMA: Shapes = {"model.layers.0.post_feedforward_layernorm.weight": (2304,)}


def loader(node: str, *files: str, kind: str | None = None) -> Loader:
    names = ["clip_name"] if len(files) == 1 else [f"clip_name{number}" for number in range(1, len(files) + 1)]
    widgets = {name: f"words/{file}.safetensors" for name, file in zip(names, files, strict=True)}
    return {"node": node, "widgets": widgets | ({} if kind is None else {"type": kind, "device": "default"})}


CHROMA = loader("CLIPLoader", "t5", kind="chroma")
FLUX = loader("DualCLIPLoader", "clip_l", "t5", kind="flux")
Z_IMAGE = loader("CLIPLoader", "qwen", kind="lumina2")
LUMINA_2 = loader("CLIPLoader", "gemma", kind="lumina2")
SD_1 = loader("CLIPLoader", "clip_l", kind="stable_diffusion")
SDXL = loader("DualCLIPLoader", "clip_l", "clip_g", kind="sdxl")
SD_3 = loader("TripleCLIPLoader", "clip_l", "clip_l", "t5")


def mini(**widgets: str) -> Loader:
    return {"node": "HRV_LoadMini", "widgets": widgets}


@pytest.fixture(scope="module", autouse=True)
def files(comfy_server: ComfyServer) -> Path:
    folder = comfy_server.base_directory / "models" / "text_encoders"
    for name, shapes in {"t5": T5, "clip_l": CLIP_L, "clip_g": CLIP_G, "qwen": QWEN_4B}.items():
        write_outline(folder / "words" / f"{name}.safetensors", shapes)
    write_gemma(folder / "words" / "gemma.safetensors")
    write_outline(folder / "words" / "gemma-without-pieces.safetensors", GEMMA)
    write_outline(folder.parent.parent / "outside.safetensors", T5)
    (folder / "words" / "empty.safetensors").touch()
    (folder / "words" / "t5.pt").symlink_to(folder / "words" / "t5.safetensors")
    return folder


@pytest.mark.parametrize(
    ("loader", "words", "first", "groups", "length"),
    [
        (CHROMA, WORDS, 0, ["template"], None),
        (FLUX, WORDS, 0, ["padding", "template"], 256),
        # They have no weights, so a prompt has the signs.
        (Z_IMAGE, ["a", "rose", "colored", "(", "red", ":", "1", ".", "3", ")", "skyscraper"], 3, ["template"], None),
        (LUMINA_2, WORDS, 1, ["template"], None),
    ],
    ids=["Chroma", "Flux.1", "Z-Image", "Lumina 2"],
)
def test_words_are_those_of_the_loader(
    api: ApiClient, loader: Loader, words: list[str], first: int, groups: list[str], length: int | None
) -> None:
    found = api.post("/hrv/tokens", {"text": TEXT, "loader": loader})
    assert [word["text"] for word in found["words"] if word["text"] != "-"] == words
    assert found["words"][0]["positions"][0] == first
    assert sorted(found["groups"]) == groups
    assert found["chunk"] == found["length"]
    assert length is None or found["length"] == length
    beside = sum(found["groups"].values())
    assert beside + sum(len(word["positions"]) for word in found["words"]) <= found["length"]


@pytest.mark.parametrize(
    ("loader", "chunk"),
    [
        (SD_1, 77),
        (SDXL, 77),
        (mini(), 77),
        (mini(weights="HRV-mini"), 77),
        (mini(weights="HRV-mini-T (transformer)"), 16),
    ],
)
def test_clip_has_its_chunks_and_weights(api: ApiClient, loader: Loader, chunk: int) -> None:
    found = api.post("/hrv/tokens", {"text": TEXT, "loader": loader})
    assert [word["text"] for word in found["words"]] == ["a", "rose", "-", "colored", "red", "skyscraper"]
    assert [word["weight"] for word in found["words"]] == [1, 1, 1, 1, 1.3, 1]
    assert (found["chunk"], found["length"], "groups" in found) == (chunk, chunk, False)
    long = api.post("/hrv/tokens", {"text": "red " * 20, "loader": loader})
    assert long["length"] == (77 if chunk == 77 else 32)


@pytest.mark.parametrize(
    "loader",
    [
        loader("CLIPLoader", "gone", kind="chroma"),
        loader("CLIPLoader", "empty", kind="chroma"),
        loader("CLIPLoader", "gemma-without-pieces", kind="lumina2"),
        {"node": "CLIPLoader", "widgets": {"clip_name": "words/t5.pt", "type": "chroma"}},
        {"node": "CLIPLoader", "widgets": {"clip_name": "../../outside.safetensors", "type": "chroma"}},
        {"node": "CLIPLoader", "widgets": {"clip_name": "words/../../../outside.safetensors", "type": "chroma"}},
        {"node": "CLIPLoader", "widgets": {"clip_name": "/etc/passwd", "type": "chroma"}},
        {"node": "CLIPLoader", "widgets": {"clip_name": "a\0.safetensors", "type": "chroma"}},
        {"node": "CLIPLoader", "widgets": {"clip_name": "x" * 5000 + ".safetensors", "type": "chroma"}},
        {"node": "CheckpointLoaderSimple", "widgets": {"ckpt_name": "gone.safetensors"}},
        {"node": "CheckpointLoaderSimple", "widgets": {"ckpt_name": "../text_encoders/words/t5.safetensors"}},
        {"node": "CLIPLoaderGGUF", "widgets": {"clip_name": "words/t5.gguf", "type": "chroma"}},
        mini(weights="HRV-mini-XL"),
        {"node": "", "widgets": {}},
    ],
)
def test_where_a_loader_does_not_tell_words_are_known_after_a_run(api: ApiClient, loader: Loader) -> None:
    assert api.post("/hrv/tokens", {"text": TEXT, "loader": loader}) == {"words": None}


@pytest.mark.parametrize(
    "loader",
    [
        None,
        [],
        {},
        {"node": "CLIPLoader"},
        {"node": 3, "widgets": {}},
        {"node": "CLIPLoader", "widgets": {"type": "chroma"}},
        {"node": "CLIPLoader", "widgets": {"clip_name": ["words/t5.safetensors"], "type": "chroma"}},
        {"node": "CLIPLoader", "widgets": {"clip_name": "words/t5.safetensors", "type": 5}},
    ],
)
def test_what_is_no_loader_is_refused_in_a_sentence(api: ApiClient, loader: Any) -> None:
    with pytest.raises(RefusedError, match="A request needs '"):
        api.post("/hrv/tokens", {"text": TEXT, "loader": loader})


def test_a_text_encoder_whose_words_no_run_finds_is_refused_as_there(api: ApiClient) -> None:
    with pytest.raises(RefusedError, match=r"Words cannot be found in the tokens of this text encoder \(.*t5xxl"):
        api.post("/hrv/tokens", {"text": TEXT, "loader": SD_3})


def test_many_pages_may_ask_at_once(api: ApiClient) -> None:
    asked = [{"text": f"{TEXT} {number}", "loader": one} for number in range(4) for one in (CHROMA, Z_IMAGE, LUMINA_2)]
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(lambda request: api.post("/hrv/tokens", request), asked))
    assert all(one["words"][-1]["text"] == str(number // 3) for number, one in enumerate(found))
