"""Example workflows for models that are no part of the pack: valid as saved, with empty files of those names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from launcher.api_client import ApiClient, WorkflowError
from launcher.comfy_server import ComfyServer
from launcher.model_files import FOLDERS, model_files
from launcher.paths import PACK_ROOT
from launcher.workflow_convert import to_prompt

EXAMPLES = {
    file.stem: graph
    for file in sorted((PACK_ROOT / "example_workflows").glob("*.json"))
    if model_files(graph := json.loads(file.read_text(encoding="utf-8")))
}


def test_there_is_one_for_each_kind_of_model() -> None:
    assert [re.split(r"\W", name)[1] for name in EXAMPLES] == ["My", "Anima", "Z", "Flux"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_is_valid_and_fails_at_the_first_file_that_is_no_model(api: ApiClient, name: str) -> None:
    prompt = to_prompt(EXAMPLES[name], api.object_info())
    with pytest.raises(WorkflowError) as told:
        api.run(prompt)
    # Past the host's checks of the whole graph.
    assert told.value.class_type in FOLDERS and told.value.kind != "value_not_in_list"


@pytest.mark.parametrize("name", EXAMPLES)
def test_without_a_file_the_host_names_it(api: ApiClient, name: str) -> None:
    graph = json.loads(json.dumps(EXAMPLES[name]))
    (missing, *_) = (Path(file.name) for file in model_files(graph))
    text = json.dumps(graph).replace(str(missing), "gone.safetensors")
    with pytest.raises(WorkflowError, match=r"gone\.safetensors") as told:
        api.run(to_prompt(json.loads(text), api.object_info()))
    assert told.value.kind == "value_not_in_list"


def test_my_own_checkpoint_runs_with_a_model_that_is_there(api: ApiClient, comfy_server: ComfyServer) -> None:
    """With HRV-mini in place of the checkpoint, and what is switched off switched on."""
    graph = json.loads(json.dumps(EXAMPLES["02 My own checkpoint"]))
    for node in graph["nodes"]:
        node["mode"] = 0
    prompt = to_prompt(graph, api.object_info())
    light: dict[str, dict[str, Any]] = {
        "HRV_Concepts": {"concepts": "Color: red, blue\nShape: circle, square"},
        "HRV_BuildCausal": {"pairs": 1, "steps": 2, "width": 128, "height": 128},
        "HRV_TextEncode": {"text": "a red circle"},
        "HRV_ConceptStrengthen": {"words": "red", "concept": "Color"},
        "EmptyLatentImage": {"width": 128, "height": 128},
        "KSampler": {"steps": 2},
    }
    for node in prompt.values():
        changed = light.get(node["class_type"], {})
        assert node["inputs"].keys() >= changed.keys()
        node["inputs"].update(changed)
        if node["class_type"] == "CheckpointLoaderSimple":
            node.update(class_type="HRV_LoadMini", inputs={})
    result = api.run(prompt)
    heat_map, plain, steered = (
        result.images(number)
        for number, node in prompt.items()
        if node["class_type"] in ("HRV_HeatMap", "PreviewImage")
    )
    assert len(heat_map) == len(plain) == len(steered) == 1
    assert api.view(plain[0]) != api.view(steered[0])
    assert (comfy_server.base_directory / "models" / "hrv" / "my-checkpoint-causal.safetensors").is_file()
