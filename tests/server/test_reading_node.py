"""Read by Concept on the real server: two concepts from two other prompts, shown, sampled, and what it refuses."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from launcher.api_client import ApiClient, WorkflowError
from PIL import Image

Graph = dict[str, dict[str, Any]]


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def graph() -> Graph:
    made: Graph = {
        "mini": node("HRV_LoadMini"),
        "load": node("HRV_Load", file="hrv-mini.safetensors"),
        "prompt": node("HRV_TextEncode", clip=["mini", 1], text="a large red circle, night"),
        "first": node("HRV_TextEncode", clip=["mini", 1], text="a small blue star"),
        "second": node("CLIPTextEncode", clip=["mini", 1], text="a green square, snow"),
        "negative": node("CLIPTextEncode", clip=["mini", 1], text=""),
        "latent": node("EmptyLatentImage", width=128, height=128, batch_size=1),
    }
    before = {"model": ["mini", 0], "conditioning": ["prompt", 0]}
    for name, other, concept, heads, strength in (
        ("shape", "first", "Shape", 0, 1.0),
        ("scene", "second", "Scene", 12, 0.5),
    ):
        made[name] = node(
            "HRV_ReadByConcept",
            **before,
            other=[other, 0],
            hrv=["load", 0],
            concept=concept,
            heads=heads,
            strength=strength,
            start=0.0,
            end=0.9,
        )
        before = {"model": [name, 0], "conditioning": [name, 1]}
    made["tokens"] = node("HRV_Tokens", conditioning=["scene", 1])
    for name, model, positive in (
        ("plain image", ["mini", 0], ["prompt", 0]),
        ("mixed image", ["scene", 0], ["scene", 1]),
    ):
        made[f"sample {name}"] = node(
            "KSampler",
            model=model,
            positive=positive,
            negative=["negative", 0],
            latent_image=["latent", 0],
            seed=3,
            steps=2,
            cfg=4.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        )
        made[f"decode {name}"] = node("VAEDecode", samples=[f"sample {name}", 0], vae=["mini", 2])
        made[name] = node("PreviewImage", images=[f"decode {name}", 0])
    return made


def test_two_concepts_are_taken_from_two_prompts(api: ApiClient) -> None:
    result = api.run(graph(), timeout=300)
    (text,) = result.outputs["tokens"]["text"]
    assert text.splitlines()[-2:] == [
        'read Shape (8 heads) from "a small blue star"; strength 1; progress 0 to 0.9',
        "read Scene (12 heads) from another prompt; strength 0.5; progress 0 to 0.9",
    ]
    plain, mixed = (
        np.asarray(Image.open(io.BytesIO(api.view(result.images(name)[0])))) for name in ("plain image", "mixed image")
    )
    assert np.abs(plain.astype(int) - mixed).mean() > 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"heads": 129}, "Of 128 heads in 16 .* 0 to 128 can read another prompt, not 129"),
        ({"concept": "Weather"}, "Weather"),
        ({"start": 0.95}, "from a start to an end between 0 and 1"),
    ],
)
def test_refusals_are_sentences(api: ApiClient, changes: dict[str, Any], sentence: str) -> None:
    made = graph()
    made["shape"]["inputs"].update(changes)
    with pytest.raises(WorkflowError, match=sentence):
        api.run(made, timeout=300)
