"""The pack's nodes on the real server: the main job, every bad input in a sentence, and a host that stays alive."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.hrv.relevance.evidence import Votes
from hrv_pack.hrv.relevance.files import load_hrv, save_hrv
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.tests.support.graphs import node
from launcher.api_client import ApiClient, Event, InterruptedRunError, WorkflowError
from launcher.comfy_server import ComfyServer
from PIL import Image

Graph = dict[str, dict[str, Any]]

CONCEPTS = "Color: red, blue\nShape: circle, star\nScene: night, checkered snow"


def build_graph(name: str, **changes: Any) -> Graph:
    """Build an HRV of HRV-mini with few images, save it and draw it."""
    settings: dict[str, Any] = {
        "prompts": "a red circle\na blue star, night",
        "images": 3,
        "seed": 5,
        "steps": 2,
        "cfg": 4.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "width": 128,
        "height": 128,
        "batch_size": 2,
        "negative": "",
    }
    concepts = changes.pop("concepts", CONCEPTS)
    return {
        "mini": node("HRV_LoadMini"),
        "concepts": node("HRV_Concepts", concepts=concepts),
        "build": node(
            "HRV_Build", model=["mini", 0], clip=["mini", 1], concepts=["concepts", 0], **(settings | changes)
        ),
        "save": node("HRV_Save", hrv=["build", 0], name=name),
        "map": node("HRV_HeatMap", hrv=["build", 0], concepts=""),
    }


def steer_graph(file: str, control: dict[str, Any], text: str = "a red circle, night") -> Graph:
    """Sample one image with a control and one without, from the same noise."""
    graph: Graph = {
        "mini": node("HRV_LoadMini"),
        "load": node("HRV_Load", file=file),
        "positive": node("HRV_TextEncode", clip=["mini", 1], text=text),
        "negative": node("CLIPTextEncode", clip=["mini", 1], text=""),
        "latent": node("EmptyLatentImage", width=128, height=128, batch_size=1),
        "control": {
            "class_type": control["class_type"],
            "inputs": {"model": ["mini", 0], "conditioning": ["positive", 0], "hrv": ["load", 0], **control["inputs"]},
        },
    }
    for name, model, positive in (("plain", "mini", ["positive", 0]), ("steered", "control", ["control", 1])):
        graph[f"sample {name}"] = node(
            "KSampler",
            model=[model, 0],
            positive=positive,
            negative=["negative", 0],
            latent_image=["latent", 0],
            seed=3,
            steps=3,
            cfg=4.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        )
        graph[f"decode {name}"] = node("VAEDecode", samples=[f"sample {name}", 0], vae=["mini", 2])
        graph[name] = node("PreviewImage", images=[f"decode {name}", 0])
    return graph


def strengthen(**changes: Any) -> dict[str, Any]:
    inputs = {"words": "red", "concept": "Color", "strength": 1.0, "start": 0.0, "end": 1.0, "clamp": 0.0}
    return node("HRV_ConceptStrengthen", **(inputs | changes))


def adjust(**changes: Any) -> dict[str, Any]:
    inputs = {
        "words": "circle",
        "desired": "Shape",
        "undesired": "Scene",
        "strength": 1.0,
        "start": 0.0,
        "end": 1.0,
        "clamp": 9.0,
        "desired_weight": 2.0,
        "undesired_weight": -1.0,
    }
    return node("HRV_ConceptAdjust", **(inputs | changes))


def picture(api: ApiClient, result: Any, name: str) -> np.ndarray:
    (record,) = result.images(name)
    return np.asarray(Image.open(io.BytesIO(api.view(record))).convert("RGB"))


@pytest.fixture
def folder(comfy_server: ComfyServer) -> Path:
    """The server's models/hrv."""
    return comfy_server.base_directory / "models" / "hrv"


@pytest.fixture(scope="session")
def built(comfy_server: ComfyServer) -> str:
    """The file name of an HRV that the server has built."""
    ApiClient(comfy_server.address).run(build_graph("built"), timeout=300)
    return "built.safetensors"


def test_a_control_that_leads_nowhere_is_said(api: ApiClient, comfy_server: ComfyServer, built: str) -> None:
    graph = steer_graph(built, strengthen(strength=0.45))
    api.run(graph, timeout=300)
    complaint = "Apply Concept Strengthen: Nothing samples with the MODEL of an HRV control"
    assert complaint not in comfy_server.log_path.read_text(encoding="utf-8")
    graph["sample steered"]["inputs"]["model"] = ["mini", 0]
    graph["control"]["inputs"]["strength"] = 0.55
    result = api.run(graph, timeout=300)
    assert (picture(api, result, "steered") == picture(api, result, "plain")).all()
    assert complaint in comfy_server.log_path.read_text(encoding="utf-8")


def test_building_leaves_a_file_and_a_heat_map(api: ApiClient, built: str, folder: Path) -> None:
    hrv = load_hrv(folder / built)
    assert hrv.concepts == ("Color", "Shape", "Scene")
    assert hrv.layout.head_count == 128
    assert isinstance(hrv.evidence, Votes)
    assert (hrv.evidence.counts.sum(0) == 3 * 2).all()
    np.testing.assert_allclose(hrv.values.sum(1), 128, rtol=1e-5)
    assert hrv.provenance["images"] == 3
    result = api.run(build_graph("built"), timeout=300)
    width, height = Image.open(io.BytesIO(api.view(result.images("map")[0]))).size
    assert width > 200 and height > 200


def test_saving_the_same_again_writes_nothing_and_another_gets_a_number(
    api: ApiClient, built: str, folder: Path
) -> None:
    before = (folder / built).stat().st_mtime_ns
    api.free_memory()
    api.run(build_graph("built"), timeout=300)
    assert (folder / built).stat().st_mtime_ns == before
    api.run(build_graph("built", seed=6), timeout=300)
    assert (folder / "built-2.safetensors").is_file()
    assert not load_hrv(folder / "built-2.safetensors").same_as(load_hrv(folder / built))


def test_a_steered_image_differs_and_strength_zero_does_not(api: ApiClient, built: str) -> None:
    for control in (strengthen(strength=1.5), adjust()):
        result = api.run(steer_graph(built, control), timeout=300)
        assert (picture(api, result, "plain") != picture(api, result, "steered")).any()
    for control in (strengthen(strength=0.0), strengthen(words=""), strengthen(start=0.0, end=0.0)):
        result = api.run(steer_graph(built, control), timeout=300)
        np.testing.assert_array_equal(picture(api, result, "plain"), picture(api, result, "steered"))


def foreign_layout(folder: Path) -> str:
    layout = HeadLayout((AttentionLayer("input", 1, 0, 5), AttentionLayer("middle", 0, 0, 20)))
    values = np.ones((2, 25), dtype=np.float32)
    save_hrv(HRV(values, ("Color", "Shape"), layout), folder / "foreign-layout.safetensors", overwrite=True)
    return "foreign-layout.safetensors"


def broken(folder: Path) -> str:
    (folder / "broken.safetensors").write_bytes(b"\x00\x01 nothing that anyone could read")
    return "broken.safetensors"


def lora(folder: Path) -> str:
    header = json.dumps({"lora_up.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(4)
    (folder / "somebody-elses.safetensors").write_bytes(content)
    return "somebody-elses.safetensors"


@pytest.mark.parametrize(
    ("control", "text", "sentence"),
    [
        (strengthen(concept="Taste"), "a red circle", "Color"),
        (strengthen(words="green"), "a red circle", '"red"'),
        (adjust(desired="Scene"), "a red circle", "choose two"),
        (adjust(undesired="Smell"), "a red circle", "Smell"),
        (strengthen(start=0.8, end=0.2), "a red circle", "between 0 and 1"),
        (strengthen(), "", "no words"),
    ],
)
def test_bad_controls_are_said_in_a_sentence(
    api: ApiClient, built: str, control: dict[str, Any], text: str, sentence: str
) -> None:
    with pytest.raises(WorkflowError, match=sentence) as caught:
        api.run(steer_graph(built, control, text), timeout=300)
    assert caught.value.class_type == control["class_type"]
    assert api.run(steer_graph(built, strengthen()), timeout=300).images("steered")


@pytest.mark.parametrize(
    ("make", "class_type", "sentence"),
    [
        (foreign_layout, "HRV_ConceptStrengthen", "25 heads"),
        (broken, "HRV_Load", "broken.safetensors"),
        (lora, "HRV_Load", "somebody-elses.safetensors"),
    ],
)
def test_bad_files_are_said_in_a_sentence(
    api: ApiClient, built: str, folder: Path, make: Any, class_type: str, sentence: str
) -> None:
    file = make(folder)
    with pytest.raises(WorkflowError, match=sentence) as caught:
        api.run(steer_graph(file, strengthen()), timeout=300)
    assert caught.value.class_type == class_type
    assert api.run(steer_graph(built, strengthen()), timeout=300).images("steered")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"concepts": ""}, "empty"),
        ({"concepts": "Color: red, blue"}, "two"),
        ({"concepts": "Color: red, Red\nShape: star"}, "(?i)red"),
        ({"concepts": "Color: red\ncolor: blue"}, "(?i)color"),
        ({"concepts": "Color red blue"}, "Line 1"),
        ({"prompts": " \n \n"}, "no prompts"),
    ],
)
def test_bad_builds_are_said_in_a_sentence(api: ApiClient, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WorkflowError, match=sentence):
        api.run(build_graph("never", **changes), timeout=300)


@pytest.mark.parametrize("name", ["../outside", "", "   ", "/"])
def test_names_that_lead_nowhere_are_refused(api: ApiClient, built: str, folder: Path, name: str) -> None:
    with pytest.raises(WorkflowError, match="a valid name for an HRV"):
        api.run(build_graph(name), timeout=300)
    assert not (folder.parent / "outside.safetensors").exists()


def test_a_cancelled_build_leaves_nothing_and_the_next_is_as_if_it_had_not_been(
    api: ApiClient, built: str, folder: Path
) -> None:
    def cancel(event: Event) -> None:
        states = event["data"].get("nodes", {}) if event["type"] == "progress_state" else {}
        if states.get("build", {}).get("value", 0) >= 4:
            api.interrupt()

    with pytest.raises(InterruptedRunError):
        api.run(build_graph("cancelled", images=64), cancel, timeout=300)
    assert not (folder / "cancelled.safetensors").exists()
    api.free_memory()
    api.run(build_graph("after-cancel"), timeout=300)
    assert load_hrv(folder / "after-cancel.safetensors").same_as(load_hrv(folder / built))
