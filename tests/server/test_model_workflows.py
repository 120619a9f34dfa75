"""Example workflows for models that are no part of the pack: valid as saved, with empty files of those names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from launcher.api_client import ApiClient, WorkflowError
from launcher.model_files import FOLDERS, model_files
from launcher.paths import PACK_ROOT
from launcher.workflow_convert import to_prompt

EXAMPLES = {
    file.stem: graph
    for file in sorted((PACK_ROOT / "example_workflows").glob("*.json"))
    if model_files(graph := json.loads(file.read_text(encoding="utf-8")))
}


def test_there_is_one_for_each_kind_of_model() -> None:
    assert [name.split("-")[1] for name in EXAMPLES] == ["anima", "z", "flux"]


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
