"""CLIP by transformers from a local folder: the library's own numbers, and folders that are none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.sd1_clip
import folder_paths
import numpy as np
import pytest
import torch
from hrv_pack.host.scoring.transformers import TransformersScorer, folder_stamp
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.scoring.experiments import Case
from hrv_pack.hrv.scoring.scorer import Scorer
from hrv_pack.tests.support.growth import sparse
from hrv_pack.tests.support.small_host import randomise
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

TARGETS = ("red", "copper (bowl)", "rose-colored", "a dog on a snowy day")
FOLDER = "clip/small"
TOKENIZER = Path(comfy.sd1_clip.__file__).parent / "sd1_tokenizer"


def save_clip(folder: Path, seed: int = 1) -> None:
    """A CLIP of random weights, as it is saved by transformers."""
    small = {"num_attention_heads": 2, "num_hidden_layers": 3}
    config = CLIPConfig(
        text_config={"hidden_size": 16, "intermediate_size": 32, "eos_token_id": 49407, **small},
        vision_config={"hidden_size": 24, "intermediate_size": 48, "image_size": 32, "patch_size": 8, **small},
        projection_dim=12,
    )
    model = CLIPModel(config)
    randomise(model, seed)
    model.save_pretrained(folder)
    CLIPTokenizer.from_pretrained(TOKENIZER).save_pretrained(folder)
    size: Any = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessor(**size).save_pretrained(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_clip(folder)
    return folder


@pytest.fixture
def models(tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The host's models folder, with a CLIP in it."""
    folder = tmp_path / "models"
    shutil.copytree(saved, folder / FOLDER)
    monkeypatch.setattr(folder_paths, "models_dir", str(folder))
    return folder


def images(count: int, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(0))


def cases(*targets: str) -> list[Case]:
    return [Case("Anything", f"a prompt with {target}", target) for target in targets]


@torch.no_grad()
def by_the_library(folder: Path, shown: torch.Tensor) -> list[float]:
    """Cosines of images with TARGETS, out of the logits that the library gives for pictures and texts."""
    model = CLIPModel.from_pretrained(folder).eval()
    processor = CLIPProcessor.from_pretrained(folder)
    pictures = [Image.fromarray(np.round(image.numpy() * 255).astype(np.uint8)) for image in shown]
    found = model(**processor(text=list(TARGETS), images=pictures, return_tensors="pt", padding=True))
    return (found.logits_per_image / model.logit_scale.exp()).diagonal().tolist()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 48), (40, 64), (16, 16)])
def test_cosines_are_those_of_the_library(models: Path, height: int, width: int) -> None:
    shown = images(len(TARGETS), height, width)
    scorer: Scorer = TransformersScorer(FOLDER)
    scorer.check(cases(*TARGETS), width, height)
    expected = by_the_library(models / FOLDER, shown)
    assert scorer.score(shown, cases(*TARGETS)) == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.05, "all pairs are alike, so nothing is compared"


def test_the_older_form_of_a_tokenizer_is_the_same(models: Path) -> None:
    shutil.copytree(models / FOLDER, models / "older")
    (models / "older/tokenizer.json").unlink()
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(TOKENIZER / name, models / "older")
    found, expected = (TransformersScorer(folder).score(images(4), cases(*TARGETS)) for folder in ("older", FOLDER))
    assert found == expected


def test_the_host_manages_the_memory(models: Path) -> None:
    scorer = TransformersScorer(FOLDER)
    first = scorer.score(images(2), cases("red", "blue"))
    # Models of other tests may be gone, and still be listed.
    there = [each.model for each in comfy.model_management.current_loaded_models]
    loaded = [type(patcher.model) for patcher in there if patcher is not None]
    assert torch.nn.ModuleList in loaded
    comfy.model_management.unload_all_models()
    assert scorer.score(images(2), cases("red", "blue")) == first


def test_targets_that_do_not_fit_are_refused(models: Path) -> None:
    scorer = TransformersScorer(FOLDER)
    scorer.check(cases(" ".join(["red"] * 75)), 128, 96)
    with pytest.raises(HRVError, match="has 76 tokens, and this CLIP reads 75"):
        scorer.check(cases(" ".join(["red"] * 76)), 128, 128)
    with pytest.raises(HRVError, match="The target '' has no words"):
        scorer.check(cases(""), 128, 128)


def test_provenance_is_json_and_tells_models_apart(models: Path) -> None:
    save_clip(models / "other/small", seed=2)
    shutil.copytree(models / FOLDER, models / "mean/small")
    change(models / "mean/small/preprocessor_config.json", image_mean=[0.5, 0.5, 0.5])
    kept = [json.dumps(TransformersScorer(folder).provenance) for folder in (FOLDER, "other/small", "mean/small")]
    assert len(set(kept)) == 3 and all('"small"' in each for each in kept)
    assert json.dumps(TransformersScorer(f" {FOLDER}/").provenance) == kept[0]


def test_a_model_that_was_exchanged_has_another_stamp(models: Path) -> None:
    before = folder_stamp(FOLDER)
    assert folder_stamp(FOLDER) == before
    save_clip(models / FOLDER, seed=2)
    assert folder_stamp(FOLDER) != before


@pytest.mark.parametrize(
    "folder", ["", " ", ".", "clip/absent", "..", "../models-2", "clip/../..", "/tmp", "clip/small/config.json", "a\0b"]
)
def test_only_folders_below_the_models_folder_are_read(models: Path, folder: str) -> None:
    shutil.copytree(models / FOLDER, models.parent / "models-2")
    with pytest.raises(HRVError, match=r"There is no folder .* in .*models\. Put the folder of a CLIP"):
        TransformersScorer(folder)


def test_folders_and_files_may_be_links(models: Path) -> None:
    """As in the host's own model folders, and as downloads of the library keep their files."""
    expected = TransformersScorer(FOLDER).provenance
    (models / FOLDER).rename(models.parent / "small")
    (models / FOLDER).symlink_to(models.parent / "small", target_is_directory=True)
    assert TransformersScorer(FOLDER).provenance == expected
    (models / FOLDER).unlink()
    (models / FOLDER).mkdir()
    for file in (models.parent / "small").iterdir():
        (models / FOLDER / file.name).symlink_to(file)
    assert TransformersScorer(FOLDER).provenance == expected
    assert folder_stamp(FOLDER) == folder_stamp(FOLDER)


def change(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def with_pickles_only(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def without_projection(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["text_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def cut_off(name: str) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return cut


def with_config(**settings: Any) -> Callable[[Path], None]:
    def configure(folder: Path) -> None:
        text = json.loads((folder / "config.json").read_text())["text_config"]
        change(folder / "config.json", text_config={**text, **settings})

    return configure


def with_pictures(**settings: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / "preprocessor_config.json", **settings)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "config.json").unlink(), "no config.json with the model's type"),
        (cut_off("config.json"), "no config.json with the model's type"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no config.json with the model's type"),
        (lambda folder: change(folder / "config.json", model_type="siglip"), "of type 'siglip', not a whole CLIP"),
        (lambda folder: change(folder / "config.json", model_type="clip_text_model"), "not a whole CLIP"),
        (with_pickles_only, r"no weights in safetensors\. Other files .* are not read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights in safetensors"),
        (without_projection, "are not complete: text_projection.weight is missing"),
        (cut_off("model.safetensors"), "cannot be loaded"),
        (lambda folder: change(folder / "config.json", projection_dim=8), "cannot be loaded"),
        (lambda folder: change(folder / "config.json", text_config=3), "cannot be loaded"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer"),
        (lambda folder: (folder / "tokenizer.json").rename(folder / "vocab.json"), "has no tokenizer"),
        (cut_off("tokenizer.json"), "cannot be loaded"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "cannot be loaded"),
        (lambda folder: sparse(folder / "config.json", b"{", 3_000_000_000), "config.json has 3000000000 bytes"),
        (lambda folder: sparse(folder / "tokenizer.json", b"{", 3_000_000_000), "tokenizer.json has 3000000000 bytes"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "no config.json with the model's type"),
        (
            lambda folder: change(folder / "config.json", model_type=["clip"] * 9),
            "no config.json with the model's type",
        ),
        (with_config(hidden_size=2_000_000), r"config.json is of a model of \d+ weights"),
        (with_config(num_hidden_layers=10**9), "has 1000000000 layers by its config.json"),
        (with_config(num_hidden_layers="many"), "cannot be loaded"),
        (with_pictures(crop_size={"height": 10**6, "width": 32}), "makes pictures of up to 1000000 pixels a side"),
        (with_pictures(size={"shortest_edge": 0}), "a CLIP looks at 1 to 4096"),
    ],
)
def test_folders_without_a_whole_clip_are_refused(models: Path, damage: Callable[[Path], None], sentence: str) -> None:
    damage(models / FOLDER)
    with pytest.raises(HRVError, match=sentence) as caught:
        TransformersScorer(FOLDER)
    assert str(models / FOLDER) in str(caught.value) and "\n" not in str(caught.value)
