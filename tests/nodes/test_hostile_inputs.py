"""Every node with inputs that aren't what its schema says, and with texts that break parsers: it works or says why."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import folder_paths
import numpy as np
import pytest
import torch
from comfy_api.latest import io
from hrv_pack.host.files.folders import FOLDER, register_folder
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.work.executor import Here
from hrv_pack.hrv.attend_and_excite.report import ReportLog
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
from hrv_pack.hrv.scoring.experiments import parse_experiment
from hrv_pack.mini.truth_scorer import MiniScorer
from hrv_pack.nodes import NODES, published
from hrv_pack.nodes.experiments import ExperimentNode
from hrv_pack.nodes.files import LoadHRV, SaveHRV
from hrv_pack.nodes.published import ImportConcepts, ImportNpy
from hrv_pack.nodes.scorers import ScorerTransformers
from hrv_pack.tests.support.fuzzing import TEXTS, assert_for_people, fuzz
from hrv_pack.tests.support.small_host import encoded
from hypothesis import given
from hypothesis import strategies as st

every_node = pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)

# As little work as possible where all inputs happen to be right.
SMALL = {
    "images": 1, "pairs": 1, "seeds": 1, "prompts": 1, "steps": 1, "width": 64, "height": 64, "random_orders": 0,
    "head_counts": "50%", "factors": "-2", "iterations": 1,
}  # fmt: skip


def far_enough(*_: Any, **__: Any) -> Any:
    raise HRVError("All inputs are right.")


@pytest.fixture(autouse=True)
def no_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is downloaded, no job begins, and what is saved lies in a folder of the test."""
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, ([], set()))
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    register_folder()
    monkeypatch.setattr(published, "obtain", far_enough)
    monkeypatch.setattr(Here, "run", far_enough)


class Carried(dict[str, Any]):
    """A value by socket; reports of failures have no room for them."""

    def __repr__(self) -> str:
        return "something right for every socket"


@pytest.fixture(scope="module")
def carried(model: Any, clip: Any, hrv: Any) -> Carried:
    """Something right for every socket."""
    return Carried(
        {
            "MODEL": model,
            "CLIP": clip,
            "VAE": load_mini()[2],
            "CLIP_VISION": SimpleNamespace(encode_image=far_enough),
            "CONDITIONING": encoded(clip, "a red car"),
            "LATENT": {"samples": torch.zeros(1, 4, 8, 8)},
            "IMAGE": torch.zeros(1, 128, 128, 3),
            "HRV": hrv,
            "HRV_CONCEPTS": parse_vocabulary("Color: red, blue\nShape: round, flat"),
            "HRV_EXPERIMENT": parse_experiment("[Color]\na <red | blue> circle"),
            "HRV_SCORER": MiniScorer(),
            "HRV_EXCITEMENT_REPORT": ReportLog(),
        }
    )


def right_inputs(node: type[io.ComfyNode], carried: Carried) -> dict[str, Any]:
    """Inputs that a node can work with."""
    inputs: dict[str, Any] = {}
    for one in node.GET_SCHEMA().inputs:
        if isinstance(one, io.Autogrow.Input):
            inputs[one.id] = {"hrv0": carried["HRV"], "hrv1": carried["HRV"]}
        elif one.get_io_type() in carried:
            inputs[one.id] = carried[one.get_io_type()]
        elif one.get_io_type() == "COMBO":
            inputs[one.id] = one.default or one.options[0]
        else:
            default = SMALL.get(one.id, one.default)
            inputs[one.id] = default if isinstance(default, type(one.default)) or one.default is None else ""
    if "frames" in inputs:
        inputs.pop("experiment", None)
    return inputs


def only_a_sentence_comes_out(node: type[io.ComfyNode], inputs: dict[str, Any]) -> None:
    try:
        node.execute(**inputs)
    except HRVError as error:
        assert_for_people(error)


WRONG: list[Any] = [
    None, True, -1, 0, 10**30, 10**5000, -1e9, math.nan, math.inf, 1e308, Fraction(1, 3), 2j, "", "mid", "\ud800", "\0",
    "x" * 2000, b"red", [], {}, (), [[]], [[None, {}]], {"samples": None}, {"samples": torch.zeros(3)}, range(3),
    object, object(), np.zeros(3), np.int64(2), np.float32("nan"), torch.zeros(1, 4, 8, 8), torch.tensor(1.0),
    SimpleNamespace(), [[torch.zeros(1, 77, 16), {}]], [[torch.zeros(1, 5, 3), {}], [torch.zeros(2, 9, 3), {}]],
    {"samples": torch.zeros(2, 16, 1, 8, 8)},
]  # fmt: skip


@every_node
@fuzz(examples=15)
@given(data=st.data())
def test_a_socket_that_carries_something_else_is_said(
    node: type[io.ComfyNode], data: st.DataObject, carried: Carried
) -> None:
    inputs = right_inputs(node, carried)
    if not inputs:
        return
    for name in data.draw(st.lists(st.sampled_from(sorted(inputs)), min_size=1, max_size=2, unique=True)):
        inputs[name] = data.draw(st.sampled_from(WRONG) | st.sampled_from(list(carried.values())))
    only_a_sentence_comes_out(node, inputs)


@every_node
@fuzz(examples=15)
@given(data=st.data())
def test_any_text_in_any_field_is_taken_or_refused_in_a_sentence(
    node: type[io.ComfyNode], data: st.DataObject, carried: Carried
) -> None:
    inputs = right_inputs(node, carried)
    fields = [given.id for given in node.GET_SCHEMA().inputs if isinstance(given, io.String.Input)]
    if not fields:
        return
    inputs[data.draw(st.sampled_from(fields))] = data.draw(TEXTS)
    only_a_sentence_comes_out(node, inputs)


@pytest.mark.parametrize(
    ("node", "field"),
    [
        (SaveHRV, "name"), (LoadHRV, "file"), (ImportNpy, "vectors"), (ImportConcepts, "file"),
        (ExperimentNode, "file"), (ScorerTransformers, "folder"),
    ],
)  # fmt: skip
def test_names_of_two_thousand_letters_leave_messages_whole(
    node: type[io.ComfyNode], field: str, carried: Carried
) -> None:
    with pytest.raises(HRVError) as caught:
        node.execute(**{**right_inputs(node, carried), field: "x" * 2000})
    assert_for_people(caught.value)
