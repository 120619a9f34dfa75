"""Many runs with changing controls in one server: nothing piles up, and the last run is as good as the first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hrv_pack.tests.support.graphs import node
from launcher.api_client import ApiClient
from launcher.comfy_server import PACK_NAME, ComfyServer
from launcher.paths import PACK_ROOT

PROBE_PACK = Path(__file__).with_name("probe_pack")
RUNS = 50
SETTLED = 10
ALLOWED = 1.01


WINDOW = {"start": 0.0, "end": 0.75}
CONTROLS = {
    "strengthen": node(
        "HRV_ConceptStrengthen", hrv=["hrv", 0], words="green", concept="Color", strength=0.5, clamp=0.0, **WINDOW
    ),
    "adjust": node(
        "HRV_ConceptAdjust", hrv=["hrv", 0], words="star, night", desired="Shape", undesired="Color", strength=0.2,
        clamp=2.0, desired_weight=2.0, undesired_weight=-1.0, **WINDOW,
    ),
    "weaken": node(
        "HRV_WeakenHeads", hrv=["hrv", 0], words="*", concept="Shape", order="random", heads=20, factor=-2.0,
        strength=1.0, seed=3, **WINDOW,
    ),
    "scale": node("HRV_ScaleHeads", words="green", heads="up !up3", factor=0.2, strength=1.0, **WINDOW),
}  # fmt: skip


def graph(number: int) -> dict[str, dict[str, Any]]:
    """The run of this number: none to three controls, each run with a seed of its own."""
    kinds = list(CONTROLS)
    chosen = [kinds[(number + place) % len(kinds)] for place in range(number % 4)]
    prompt = {
        "mini": node("HRV_LoadMini"),
        "hrv": node("HRV_Load", file="hrv-mini.safetensors"),
        "positive": node("HRV_TextEncode", clip=["mini", 1], text=f"a small green star, night {number % 7}"),
        "negative": node("CLIPTextEncode", clip=["mini", 1], text=""),
        "latent": node("EmptyLatentImage", width=128, height=128, batch_size=1),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["mini", 2]),
        "save": node("PreviewImage", images=["decode", 0]),
        "state": node("ProbeState", model=["mini", 0], after=["decode", 0]),
    }
    model, positive = ["mini", 0], ["positive", 0]
    for kind in chosen:
        control = CONTROLS[kind]
        prompt[kind] = {**control, "inputs": {**control["inputs"], "model": model, "conditioning": positive}}
        model, positive = [kind, 0], [kind, 1]
    prompt["sample"] = node(
        "KSampler", model=model, positive=positive, negative=["negative", 0], latent_image=["latent", 0], seed=number,
        steps=2, cfg=4.0, sampler_name="euler", scheduler="normal", denoise=1.0,
    )  # fmt: skip
    return prompt


def run(api: ApiClient, number: int) -> tuple[bytes, dict[str, Any]]:
    """The picture of a run, and what the probe saw behind it."""
    result = api.run(graph(number), timeout=300)
    assert "sample" in result.executed
    return api.view(result.images("save")[0]), json.loads(result.outputs["state"]["text"][0])


@pytest.mark.slow
def test_memory_stays_flat_and_nothing_stays_on_the_model(comfy_host: Path) -> None:
    packs = {PACK_NAME: PACK_ROOT, "probe_pack": PROBE_PACK}
    last = range(RUNS - 4, RUNS)
    with ComfyServer(comfy_host, packs=packs) as server:
        api = ApiClient(server.address)
        fresh = [run(api, number)[0] for number in reversed(last)]
        pictures, states = zip(*(run(api, number) for number in range(RUNS)), strict=True)
    carried = [state["carried"] for state in states]
    assert all(each == carried[0] for each in carried)
    used = [state["bytes"] for state in states]
    assert max(used[SETTLED:]) <= ALLOWED * max(used[:SETTLED])
    assert fresh == [pictures[number] for number in reversed(last)]
    assert len(set(pictures)) == RUNS
