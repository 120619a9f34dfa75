"""People keep models on other disks: folders and files may be links everywhere, and names still lead nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import pytest
from hrv_pack.host.files.experiments import experiment_file, experiment_files
from hrv_pack.host.files.folders import FOLDER, below, hrv_files, register_folder, user_file
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.families import FAMILIES
from hrv_pack.hrv.relevance.files import load_hrv, save_hrv
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.nodes.files import LoadHRV, SaveHRV
from hrv_pack.nodes.published import ImportConcepts, ImportNpy
from hrv_pack.tests.support.fuzzing import fuzz
from hrv_pack.tests.support.small_host import random_hrv
from hypothesis import given
from hypothesis import strategies as st

EXPERIMENT = "[Color]\na <red | blue> car\n"


class Disks:
    """The host's models and input folders, and another disk to which some of it leads."""

    def __init__(self, folder: Path):
        self.models, self.input, self.other = (folder / name for name in ("models", "input", "other"))
        for one in (self.models, self.input, self.other):
            one.mkdir()

    @property
    def hrv(self) -> Path:
        return self.models / "hrv"

    def everything(self) -> set[Path]:
        return set(self.models.parent.rglob("*"))


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disks]:
    disks = Disks(tmp_path)
    monkeypatch.setattr(folder_paths, "models_dir", str(disks.models))
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(disks.input))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, FOLDER, ([], set()))
    register_folder()
    folder_paths.filename_list_cache.pop(FOLDER, None)
    yield disks
    folder_paths.filename_list_cache.pop(FOLDER, None)


def linked_folder(disks: Disks) -> Path:
    disks.hrv.symlink_to(disks.other, target_is_directory=True)
    return disks.other


def linked_models(disks: Disks) -> Path:
    disks.models.rename(disks.other / "models")
    disks.models.symlink_to(disks.other / "models", target_is_directory=True)
    disks.hrv.mkdir()
    return disks.other / "models" / "hrv"


def plain(disks: Disks) -> Path:
    disks.hrv.mkdir()
    return disks.hrv


@pytest.mark.parametrize("linked", [plain, linked_folder, linked_models], ids=lambda one: one.__name__)
def test_a_folder_on_another_disk_is_like_any_other(disks: Disks, model: Any, hrv: HRV, linked: Any) -> None:
    place: Path = linked(disks)
    other = random_hrv(head_layout(model), 1)
    paths = [Path(SaveHRV.execute(one, "sdxl/mine").result[0]) for one in (hrv, other, hrv)]
    assert [path.name for path in paths] == ["mine.safetensors", "mine-2.safetensors", "mine.safetensors"]
    assert load_hrv(place / "sdxl" / "mine.safetensors").same_as(hrv)
    assert {str(Path("sdxl") / path.name) for path in paths} <= set(hrv_files())
    (loaded,) = LoadHRV.execute("sdxl/mine-2.safetensors").result
    assert loaded.same_as(other) and LoadHRV.fingerprint_inputs("sdxl/mine-2.safetensors")

    layout = FAMILIES[0].layout()
    np.save(place / "vectors.npy", np.ones((1, 128), np.float32))
    np.save(place / "names.npy", np.array(layout.head_names()))
    (place / "words.csv").write_text("Color\n1. red\n2. blue\n")
    concepts, _ = ImportConcepts.execute("words.csv").result
    (imported,) = ImportNpy.execute("vectors.npy", "names.npy", concepts).result
    assert imported.concepts == ("Color",)
    (place / "experiments").mkdir()
    (place / "experiments" / "mine.txt").write_text(EXPERIMENT)
    assert experiment_file("mine") == EXPERIMENT


def test_files_and_folders_in_it_may_be_links(disks: Disks, model: Any, hrv: HRV) -> None:
    disks.hrv.mkdir()
    for name in ("experiments", "sdxl"):
        (disks.other / name).mkdir()
        (disks.hrv / name).symlink_to(disks.other / name, target_is_directory=True)
    save_hrv(hrv, disks.other / "an.hrv")
    for name in ("mine.safetensors", "sdxl/mine.safetensors"):
        (disks.hrv / name).symlink_to(disks.other / "an.hrv")
        (loaded,) = LoadHRV.execute(name).result
        assert loaded.same_as(hrv) and name in hrv_files()
    # What is behind a link is a file like any other: never overwritten, and the same HRV is not saved twice.
    assert Path(SaveHRV.execute(hrv, "mine").result[0]).name == "mine.safetensors"
    other = random_hrv(head_layout(model), 1)
    assert Path(SaveHRV.execute(other, "sdxl/mine").result[0]).name == "mine-2.safetensors"
    assert load_hrv(disks.other / "an.hrv").same_as(hrv)
    assert load_hrv(disks.other / "sdxl" / "mine-2.safetensors").same_as(other)

    (disks.other / "an.experiment").write_text(EXPERIMENT)
    (disks.hrv / "experiments" / "mine.txt").symlink_to(disks.other / "an.experiment")
    (disks.hrv / "experiments" / "gone.txt").symlink_to(disks.other / "gone")
    assert experiment_file("mine") == EXPERIMENT and "gone" not in experiment_files()
    (disks.other / "a.csv").write_text("Color\n1. red\n2. blue\n")
    for folder in (disks.hrv, disks.input):
        (folder / f"{folder.name}.csv").symlink_to(disks.other / "a.csv")
        concepts, _ = ImportConcepts.execute(f"{folder.name}.csv").result
        assert concepts.names == ("Color",)


def test_what_a_link_rewrites_is_read_again(disks: Disks, hrv: HRV) -> None:
    disks.hrv.mkdir()
    save_hrv(hrv, disks.other / "an.hrv")
    (disks.hrv / "mine.safetensors").symlink_to(disks.other / "an.hrv")
    before = LoadHRV.fingerprint_inputs("mine.safetensors")
    save_hrv(random_hrv(hrv.layout, 1), disks.other / "an.hrv", overwrite=True)
    assert LoadHRV.fingerprint_inputs("mine.safetensors") != before


def test_links_that_lead_nowhere_are_sentences(disks: Disks, hrv: HRV) -> None:
    """Such as to a disk that is not there: nothing is written in its place."""
    disks.hrv.mkdir()
    for name in ("mine.safetensors", "words.csv"):
        (disks.hrv / name).symlink_to(disks.other / "not there" / name)
    (disks.hrv / "round.safetensors").symlink_to(disks.hrv / "round.safetensors")
    (disks.hrv / "sdxl").symlink_to(disks.other / "not there")
    for name in ("mine.safetensors", "round.safetensors", "sdxl/mine.safetensors"):
        with pytest.raises(HRVError, match="There is no HRV file"):
            LoadHRV.execute(name)
    with pytest.raises(HRVError, match="There is no file"):
        ImportConcepts.execute("words.csv")
    before = disks.everything()
    for name in ("mine", "sdxl/mine"):
        with pytest.raises(HRVError, match="Cannot save the HRV as"):
            SaveHRV.execute(hrv, name)
    assert disks.everything() == before and (disks.hrv / "mine.safetensors").is_symlink()


OUTSIDE = [
    "../other/an.hrv", "a/../../other/an.hrv", "/etc/hostname", "..", "../", ".", "", "/", "//", "a\0b", "link/../../x",
]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_lead_nowhere_else(disks: Disks, hrv: HRV, name: str) -> None:
    """With links there as well: a name that goes through one and back up stays below the folder."""
    disks.hrv.mkdir()
    save_hrv(hrv, disks.other / "an.hrv")
    (disks.hrv / "link").symlink_to(disks.other, target_is_directory=True)
    before = disks.everything()
    with pytest.raises(HRVError, match="There is no HRV file"):
        LoadHRV.execute(name)
    with pytest.raises(HRVError, match="There is no file"):
        user_file(name)
    with pytest.raises(HRVError):
        SaveHRV.execute(hrv, name)
    with pytest.raises(HRVError, match="There is no experiment"):
        experiment_file(name)
    assert disks.everything() == before


PARTS = st.sampled_from(["..", ".", "", "/", "\\", "link", "mine", "a", "~", "C:", "..\\..", "%2e%2e", "\0", "\ud800"])


@fuzz(examples=300)
@given(parts=st.lists(PARTS | st.text(max_size=3), max_size=6), root=st.booleans())
def test_any_name_stays_below_or_is_none(parts: list[str], root: bool) -> None:
    name = ("/" if root else "") + "/".join(parts)
    folder = Path("/models/hrv")
    place = below(folder, name)
    if place is not None:
        assert place.is_relative_to(folder) and place != folder and ".." not in place.parts


@fuzz(examples=60)
@given(parts=st.lists(PARTS | st.text(max_size=3), max_size=4))
def test_any_name_saves_below_or_is_refused(parts: list[str], disks: Disks, hrv: HRV) -> None:
    outside = {path for path in disks.everything() if not path.is_relative_to(disks.hrv)}
    try:
        SaveHRV.execute(hrv, "/".join(parts))
    except HRVError as error:
        assert str(error)
    after = disks.everything()
    assert {path for path in after if not path.is_relative_to(disks.hrv)} - outside <= {disks.hrv}
    assert not any(path.is_symlink() for path in after)
