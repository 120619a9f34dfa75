"""run_on as people choose it in a graph: the real server, and a real Ray cluster on the loopback device."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree
from typing import Any

import psutil
import pytest
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.tests.support.graphs import node
from hrv_pack.tests.support.ray_cluster import RayCluster
from launcher.api_client import ApiClient, Event, InterruptedRunError, WorkflowError
from launcher.comfy_server import ComfyServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Ray's clusters of several machines are for Linux"),
]

Graph = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    found = RayCluster(cores=1)
    yield found
    found.end()


@pytest.fixture(scope="module")
def server(cluster: RayCluster, comfy_host: Path) -> Iterator[ComfyServer]:
    """A server that may talk to the cluster, on a machine without GPUs."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**cluster.environment, "CUDA_VISIBLE_DEVICES": ""}.items():
            patch.setenv(name, value)
        with ComfyServer(comfy_host) as server:
            yield server


@pytest.fixture
def client(server: ComfyServer) -> ApiClient:
    return ApiClient(server.address)


def build(run_on: str, name: str = "mine") -> Graph:
    """A build of HRV-mini with a LoRA, saved under a name."""
    return {
        "mini": node("HRV_LoadMini"),
        "lora": node(
            "LoraLoader", model=["mini", 0], clip=["mini", 1], lora_name="hrv-mini-stickers.safetensors",
            strength_model=0.5, strength_clip=1.0,
        ),
        "concepts": node("HRV_Concepts", concepts="Color: red, blue\nShape: circle, star"),
        "build": node(
            "HRV_Build", model=["lora", 0], clip=["lora", 1], concepts=["concepts", 0], prompts="a red circle",
            images=6, seed=3, steps=2, cfg=3.0, sampler_name="euler", scheduler="normal", width=32, height=32,
            batch_size=2, negative="", run_on=run_on,
        ),
        "save": node("HRV_Save", hrv=["build", 0], name=name),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("127.0.0.1:1", r"No Ray cluster answers at 127\.0\.0\.1:1 \("),
        ("all GPUs of this machine", "Ray finds no GPU on this machine. Work in this process"),
    ],
)
def test_a_place_where_nothing_can_be_done_is_said_on_the_node(client: ApiClient, place: str, sentence: str) -> None:
    with pytest.raises(WorkflowError, match=sentence) as caught:
        client.run(build(place), timeout=300)
    assert caught.value.class_type == "HRV_Build"


def test_a_build_on_a_cluster_is_cancelled_resumed_and_that_of_this_machine(
    client: ApiClient, cluster: RayCluster, server: ComfyServer
) -> None:
    at_work: list[psutil.Process] = []

    def cancel(event: Event) -> None:
        if event["type"] == "progress" and event["data"]["value"] and not at_work:
            at_work.extend(cluster.workers())
            client.interrupt()

    with pytest.raises(InterruptedRunError):
        client.run(build(cluster.address), cancel, timeout=300)
    assert at_work and not psutil.wait_procs(at_work, timeout=30)[1]

    client.run(build(cluster.address), timeout=300)
    models = server.base_directory / "models" / "hrv"
    by_cluster = load_hrv(models / "mine.safetensors")
    # Nothing of it may help the build here.
    rmtree(server.base_directory / "user" / "__hrv")
    client.run(build("this machine", "other"), timeout=300)
    assert by_cluster.same_as(load_hrv(models / "other.safetensors"))
    assert by_cluster.provenance["images"] == 6
