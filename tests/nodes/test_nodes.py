"""The nodes in the host's own process: schemas, files, and wiring that no server is needed for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.samplers
import folder_paths
import hrv_pack
import numpy as np
import pytest
from comfy_api.latest import io
from hrv_pack.host.files.folders import FOLDER, SHIPPED_LORAS, hrv_files, keep_hrv, register_folder
from hrv_pack.host.files.results import output_place
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.nodes import NODES
from hrv_pack.nodes.arithmetic import Mean
from hrv_pack.nodes.concepts import Concepts
from hrv_pack.nodes.controls import ConceptAdjust, ConceptStrengthen
from hrv_pack.nodes.files import LoadHRV, SaveHRV
from hrv_pack.nodes.heat_map import HeatMap
from hrv_pack.nodes.published import Published
from hrv_pack.nodes.text_encode import TextEncode
from hrv_pack.tests.support.fuzzing import assert_for_people
from hrv_pack.tests.support.small_host import random_hrv

from nodes import CLIPTextEncode


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_schemas_are_complete(node: type[io.ComfyNode]) -> None:
    schema = node.GET_SCHEMA()
    assert schema.node_id.startswith("HRV_")
    assert schema.category.split("/")[0] == "HRV"
    assert schema.display_name and schema.description and schema.description.endswith(".")
    assert len(schema.search_aliases) >= 2
    assert schema.outputs
    shown = [given.template.input if isinstance(given, io.Autogrow.Input) else given for given in schema.inputs]
    for socket in (*shown, *schema.outputs):
        assert socket.tooltip and socket.tooltip.endswith((".", "'")), socket.id
    # What the host asks of a class when a graph is checked and shown.
    assert node.INPUT_TYPES()["required"].keys() <= {given.id for given in schema.inputs}
    assert callable(getattr(node, node.FUNCTION))


def test_ids_are_different_and_the_extension_lists_every_node() -> None:
    ids = [node.GET_SCHEMA().node_id for node in NODES]
    names = [node.GET_SCHEMA().display_name for node in NODES]
    assert len(set(ids)) == len(set(names)) == len(NODES)
    extension = asyncio.run(hrv_pack.comfy_entrypoint())
    assert asyncio.run(extension.get_node_list()) == NODES


def test_build_offers_what_the_host_has() -> None:
    (build,) = [node for node in NODES if node.GET_SCHEMA().node_id == "HRV_Build"]
    inputs = {given.id: given for given in build.GET_SCHEMA().inputs}
    assert inputs["sampler_name"].options == comfy.samplers.KSampler.SAMPLERS
    assert inputs["scheduler"].options == comfy.samplers.KSampler.SCHEDULERS


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty models folder for the host, and nothing else for HRVs."""
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, ([], set()))
    register_folder()
    folder_paths.filename_list_cache.pop(FOLDER, None)
    yield tmp_path
    folder_paths.filename_list_cache.pop(FOLDER, None)


def saved(hrv: HRV, name: str) -> Path:
    return Path(SaveHRV.execute(hrv, name).result[0])


def test_what_is_saved_is_loaded(models: Path, hrv: HRV) -> None:
    path = saved(hrv, "mine")
    assert path == models / "hrv" / "mine.safetensors"
    assert "mine.safetensors" in hrv_files()
    (loaded,) = LoadHRV.execute("mine.safetensors").result
    assert loaded.same_as(hrv)


def test_the_same_hrv_is_saved_once_and_another_gets_a_number(models: Path, model: Any, hrv: HRV) -> None:
    other, third = (random_hrv(head_layout(model), seed) for seed in (1, 2))
    assert saved(hrv, "mine").name == "mine.safetensors"
    assert saved(other, "mine").name == "mine-2.safetensors"
    assert saved(third, "mine").name == "mine-3.safetensors"
    assert saved(other, "mine").name == "mine-2.safetensors"
    assert saved(hrv, "mine.safetensors").name == "mine.safetensors"
    kept = {path.name: load_hrv(path) for path in (models / "hrv").iterdir()}
    assert kept.keys() == {"mine.safetensors", "mine-2.safetensors", "mine-3.safetensors"}
    assert kept["mine.safetensors"].same_as(hrv) and kept["mine-2.safetensors"].same_as(other)


def test_a_file_of_something_else_is_not_overwritten(models: Path, hrv: HRV) -> None:
    foreign = models / "hrv" / "mine.safetensors"
    foreign.parent.mkdir()
    foreign.write_bytes(b"not ours")
    assert saved(hrv, "mine").name == "mine-2.safetensors"
    assert foreign.read_bytes() == b"not ours"


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("sdxl/animals", "sdxl/animals"),
        ("sdxl\\animals", "sdxl/animals"),
        (" v1.5 ", "v1.5"),
        (".mine/console", ".mine/console"),
        ("com10", "com10"),
        ("Süß 红", "Süß 红"),
    ],
)
def test_names_may_have_folders_dots_and_any_letters(models: Path, hrv: HRV, name: str, where: str) -> None:
    path = saved(hrv, name)
    assert path == models / "hrv" / f"{where}.safetensors"
    assert load_hrv(path).same_as(hrv)


NOWHERE = ["", "  ", ".safetensors", "/", "folder/", "a//b", "../outside", "a/../b", "a/../../outside", "/tmp/outside"]
NOT_ON_WINDOWS = ["CON", "nul.txt", "prn.safetensors", "Aux /mine", "folder/com1", "mine.", "a./mine", "a /mine"]


@pytest.mark.parametrize("name", [*NOWHERE, "..\\outside", *NOT_ON_WINDOWS])
def test_names_that_lead_nowhere_are_refused(models: Path, hrv: HRV, name: str) -> None:
    with pytest.raises(HRVError, match="isn't a valid name for an HRV: write one like"):
        SaveHRV.execute(hrv, name)
    assert not list(models.rglob("*"))


@pytest.mark.parametrize("character", ["\0", "\n", "\x1b", "\x7f", "\ud800", *'<>:"|?*'])
def test_characters_that_some_file_system_refuses_are_named(models: Path, hrv: HRV, character: str) -> None:
    with pytest.raises(HRVError) as caught:
        keep_hrv(hrv, f"mi{character}ne")
    assert f"A file name cannot contain {character!r}" in str(caught.value)
    assert not list(models.rglob("*"))


def test_names_that_no_file_system_takes_are_refused(models: Path, hrv: HRV) -> None:
    for name in ("x" * 300, "a/" + "x" * 2000 + "/b"):
        with pytest.raises(HRVError, match="A file name can have at most 200 characters: shorten '") as caught:
            SaveHRV.execute(hrv, name)
        assert_for_people(caught.value)
    assert SaveHRV.execute(hrv, "x" * 200).result


def test_names_that_this_file_system_refuses_are_errors_for_people(models: Path, hrv: HRV) -> None:
    saved(hrv, "mine")
    with pytest.raises(HRVError, match=r"Cannot save the HRV as 'mine\.safetensors/inside' in"):
        SaveHRV.execute(hrv, "mine.safetensors/inside")
    assert [path.name for path in models.rglob("*.*")] == ["mine.safetensors"]


def test_a_name_of_a_thousand_folders_is_refused(models: Path, hrv: HRV) -> None:
    with pytest.raises(HRVError, match="The name of an HRV can have at most 32 folders: shorten 'a/a"):
        SaveHRV.execute(hrv, "a/" * 1000 + "mine")
    assert not list(models.rglob("*"))


@pytest.mark.parametrize("prefix", ["hrv/a\0b", "hrv/a\nb", "a/" * 1000 + "b"])
def test_prefixes_that_no_file_can_have_are_refused(prefix: str) -> None:
    with pytest.raises(HRVError, match=r"The prefix '.*' can't be the name of a file: write one like hrv/weakening"):
        output_place(prefix)


@pytest.mark.parametrize("prefix", ["x" * 300 + "/y", "taken/b"])
def test_prefixes_that_this_file_system_refuses_are_errors_for_people(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(HRVError, match="Cannot save anything under the prefix"):
        output_place(prefix)


def test_an_unknown_published_hrv_is_refused_with_those_there_are() -> None:
    with pytest.raises(HRVError, match="'name' can't be 'SD 9': choose one of "):
        Published.execute("SD 9", False)


def test_more_inputs_than_a_node_has_are_refused(hrv: HRV) -> None:
    with pytest.raises(HRVError, match="This node takes at most 64 inputs, and more are connected"):
        Mean.execute({f"hrv{number}": hrv for number in range(70)})
    with pytest.raises(HRVError, match="This node takes at most 64 inputs, and more are connected"):
        Mean.execute(hrvs={f"hrv{number}": hrv for number in range(64)}, **{"hrvs.hrv64": hrv})


def test_windows_of_no_number_are_refused(model: Any, clip: Any, hrv: HRV) -> None:
    (prompt,) = TextEncode.execute(clip, "a red car").result
    with pytest.raises(HRVError, match="'start' must be a finite number, not nan"):
        strengthened(model, prompt, hrv, "red", start=float("nan"))


@pytest.mark.parametrize("name", ["../outside.safetensors", "absent.safetensors", "/etc/hostname", "", "\0"])
def test_only_files_of_the_folder_are_loaded(models: Path, hrv: HRV, name: str) -> None:
    saved(hrv, "mine")
    (models / "outside.safetensors").write_bytes((models / "hrv" / "mine.safetensors").read_bytes())
    with pytest.raises(HRVError, match=r"There is no HRV file .*hrv\. Put it there and press R"):
        LoadHRV.execute(name)


def test_a_broken_file_is_said_to_be_broken(models: Path, hrv: HRV) -> None:
    path = saved(hrv, "mine")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(HRVError, match=r"mine\.safetensors"):
        LoadHRV.execute("mine.safetensors")


def test_a_file_written_anew_is_read_anew(models: Path, model: Any, hrv: HRV) -> None:
    path = saved(hrv, "mine")
    first = LoadHRV.fingerprint_inputs("mine.safetensors")
    assert LoadHRV.fingerprint_inputs("mine.safetensors") == first
    path.unlink()
    saved(random_hrv(head_layout(model), 1), "mine")
    os.utime(path, ns=(0, 1))
    assert LoadHRV.fingerprint_inputs("mine.safetensors") != first


def test_registering_the_folder_again_changes_nothing_and_keeps_other_paths(models: Path) -> None:
    paths, endings = folder_paths.folder_names_and_paths[FOLDER]
    paths.append("/elsewhere/hrv")
    register_folder()
    register_folder()
    again, _ = folder_paths.folder_names_and_paths[FOLDER]
    assert again == paths and endings == {".safetensors"}


def strengthened(model: Any, conditioning: Any, hrv: HRV, words: str, concept: str = "Color", **changes: Any) -> Any:
    options = {"strength": 1.0, "start": 0.0, "end": 1.0, "clamp": 0.0, **changes}
    return ConceptStrengthen.execute(
        model=model, conditioning=conditioning, hrv=hrv, words=words, concept=concept, **options
    ).result


def test_prompts_that_know_no_words_are_refused_with_the_node_to_use(model: Any, clip: Any, hrv: HRV) -> None:
    (plain,) = CLIPTextEncode().encode(clip, "a red car")
    with pytest.raises(HRVError, match="Encode the prompt with the node 'CLIP Text Encode \\(HRV\\)'"):
        strengthened(model, plain, hrv, "red")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"words": "blue"}, r'The prompt does not contain "blue"\. Its words are: "a", "red", "car"\.'),
        ({"words": "red, blue"}, 'does not contain "blue"'),
        ({"words": "red", "concept": "Colour"}, r"Did you mean Color\?"),
        ({"words": "red", "start": 0.8, "end": 0.2}, "not from 0.8 to 0.2"),
        ({"words": "red", "clamp": -1.0}, "clamp of HRV elements must be a positive number, not -1.0"),
    ],
)
def test_bad_controls_are_refused(model: Any, clip: Any, hrv: HRV, changes: dict[str, Any], sentence: str) -> None:
    (prompt,) = TextEncode.execute(clip, "a red car").result
    with pytest.raises(HRVError, match=sentence):
        strengthened(model, prompt, hrv, **changes)


def test_adjusting_between_one_and_the_same_is_refused(model: Any, clip: Any, hrv: HRV) -> None:
    (prompt,) = TextEncode.execute(clip, "a red car").result
    with pytest.raises(HRVError, match="both 'Color'"):
        ConceptAdjust.execute(
            model=model,
            conditioning=prompt,
            hrv=hrv,
            words="red",
            desired="Color",
            undesired="color",
            strength=1.0,
            start=0.0,
            end=1.0,
            clamp=0.0,
            desired_weight=2.0,
            undesired_weight=-1.0,
        )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "concept"),
        ("# nothing", "concept"),
        ("Color: red\nColor: blue", "Color"),
        ("Color: red, RED\nShape: circle", "(?i)red"),
        ("Color red", "colon"),
        ("Color:\nShape: circle", "Color"),
    ],
)
def test_bad_vocabularies_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(HRVError, match=sentence):
        Concepts.execute(text)


def test_the_default_vocabulary_can_be_used() -> None:
    (given,) = Concepts.GET_SCHEMA().inputs
    (vocabulary,) = Concepts.execute(given.default).result
    assert len(vocabulary) >= 7 and "Color" in vocabulary.names


def test_heat_maps_are_images_of_the_chosen_concepts(hrv: HRV) -> None:
    whole = HeatMap.execute(hrv, "").result[0]
    one = HeatMap.execute(hrv, " shape ").result[0]
    for image in (whole, one):
        assert image.ndim == 4 and image.shape[0] == 1 and image.shape[-1] == 3
        assert str(image.dtype) == "torch.float32" and 0 <= image.min() < image.max() <= 1
    assert np.prod(one.shape) < np.prod(whole.shape)
    with pytest.raises(HRVError, match="'Mood' in this HRV"):
        HeatMap.execute(hrv, "Color, Mood")


def test_loading_makes_the_folders_known_that_schemas_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", {"loras": (["/mine"], {".safetensors"})})
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    extension = asyncio.run(hrv_pack.comfy_entrypoint())
    asyncio.run(extension.on_load())
    assert (
        LoadHRV.GET_SCHEMA().inputs[0].options
        == hrv_files()
        == [
            "hrv-mini-causal.safetensors",
            "hrv-mini-t-causal.safetensors",
            "hrv-mini-values.safetensors",
            "hrv-mini.safetensors",
        ]
    )
    assert folder_paths.get_folder_paths("loras") == ["/mine", str(SHIPPED_LORAS)]
