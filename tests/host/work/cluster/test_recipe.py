"""How a graph makes a node's inputs, and that the same nodes make the same inputs again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.models.digest import clip_digest, model_digest
from hrv_pack.host.work.cluster.recipe import Prompt, Recipe, checkpoint_recipe, mini_recipe, recipe_of
from hrv_pack.host.work.cluster.session import Session, input_digest
from hrv_pack.host.work.cluster.setup import setup
from hrv_pack.hrv.errors import HRVError

import nodes as host_nodes

GRAPH: Prompt = {
    "1": {"class_type": "HRV_LoadMini", "inputs": {}},
    "2": {
        "class_type": "LoraLoader",
        "inputs": {
            "model": ["1", 0],
            "clip": ["1", 1],
            "lora_name": "hrv-mini-stickers.safetensors",
            "strength_model": 0.5,
            "strength_clip": 1.0,
        },
    },
    "3": {"class_type": "CLIPSetLastLayer", "inputs": {"clip": ["2", 1], "stop_at_clip_layer": -1}},
    "4": {"class_type": "FreeU", "inputs": {"model": ["2", 0], "b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.2}},
    "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 0]}},
    "9": {"class_type": "HRV_Build", "inputs": {"model": ["4", 0], "clip": ["3", 0], "images": 4}},
}


@pytest.fixture
def own_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host knows the pack's nodes and its own, as in a server."""
    from comfy_extras import nodes_freelunch
    from hrv_pack.nodes import NODES

    for node in NODES:
        monkeypatch.setitem(host_nodes.NODE_CLASS_MAPPINGS, node.GET_SCHEMA().node_id, node)
    free_u = getattr(nodes_freelunch, "NODE_CLASS_MAPPINGS", {}).get("FreeU", nodes_freelunch.FreeU)
    monkeypatch.setitem(host_nodes.NODE_CLASS_MAPPINGS, "FreeU", free_u)


@pytest.mark.usefixtures("own_nodes")
def test_the_nodes_that_make_the_inputs_and_no_others() -> None:
    recipe = recipe_of(GRAPH, "9", ("model", "clip"))
    assert {name: module for name, (_, _, module) in recipe.nodes.items()} == {
        "1": "", "2": "nodes", "3": "nodes", "4": "comfy_extras.nodes_freelunch",
    }  # fmt: skip
    assert recipe.made == {"model": ("4", 0), "clip": ("3", 0)}


@pytest.mark.usefixtures("own_nodes")
def test_a_lora_and_patches_are_made_again_by_name_and_strength() -> None:
    recipe = recipe_of(GRAPH, "9", ("model", "clip"))
    made, again = recipe.results(), recipe.results()
    assert made["model"] is not again["model"]
    assert model_digest(made["model"]) == model_digest(again["model"])
    assert clip_digest(made["clip"]) == clip_digest(again["clip"])
    plain = mini_recipe().results()
    assert model_digest(plain["model"]) == model_digest(load_mini()[0]) != model_digest(made["model"])


@pytest.mark.usefixtures("own_nodes")
def test_nodes_of_other_packs_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sharpen:
        """Of some other pack."""

    Sharpen.__module__ = "/path/to/custom_nodes/sharp.nodes"
    monkeypatch.setitem(host_nodes.NODE_CLASS_MAPPINGS, "FreeU", Sharpen)
    with pytest.raises(HRVError, match="The node FreeU is of another node pack"):
        recipe_of(GRAPH, "9", ("model", "clip"))
    recipe_of(GRAPH, "9", ("clip",))


@pytest.mark.parametrize("graph", [None, {}, GRAPH])
def test_a_graph_that_does_not_tell(graph: Prompt | None) -> None:
    with pytest.raises(HRVError, match="the graph does not tell"):
        recipe_of(graph, "12", ("model",))


def test_a_checkpoint_that_is_not_there_is_named() -> None:
    with pytest.raises(HRVError, match=r"the node CheckpointLoaderSimple failed: .*nowhere\.safetensors"):
        checkpoint_recipe("nowhere.safetensors").results()


def test_code_outside_the_host_is_not_run() -> None:
    with pytest.raises(HRVError, match="are not the host's"):
        Recipe({"1": ("Popen", {}, "subprocess")}, {"model": ("1", 0)}).results()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"host_version": "0.0.1"}, r"its ComfyUI is version .*, and here it is 0\.0\.1"),
        ({"code": "0" * 64}, r"its code of this node pack differs \(digest [0-9a-f]{12}, here 000000000000\)"),
    ],
)
def test_workers_of_other_versions_are_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HRVError, match=sentence):
        Session({**setup(), **change})


def described(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """A build of HRV-mini as workers get it, but for a change."""
    recipe = mini_recipe()
    digests = {name: input_digest(name, value) for name, value in recipe.results().items()}
    job = {
        "job": "building.build:described",
        "parameters": {
            "vocabulary": [("Color", ("red", "blue")), ("Shape", ("circle", "star"))],
            "prompts": ["a red circle"],
            "settings": {
                "images": 1, "seed": 0, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal",
                "width": 16, "height": 16,
            },
        },
        "key": "",
        "recipe": (dict(recipe.nodes), dict(recipe.made)),
        "digests": digests,
    }  # fmt: skip
    change(job)
    return job


def test_another_model_is_refused_with_both_digests() -> None:
    wanted = "ab" * 32
    job = described(lambda job: job["digests"].update(model=wanted))
    with pytest.raises(HRVError, match=r"its model is another one than here, by digest [0-9a-f]{16} instead of abab"):
        Session(setup()).prepare(job)


def test_work_of_another_key_is_refused() -> None:
    with pytest.raises(HRVError, match="the same work has another key there"):
        Session(setup()).prepare(described(lambda job: None))
