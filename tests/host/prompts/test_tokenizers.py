"""Tokenizers of text encoders by their files: those of the CLIP that the host loads from the same files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import comfy.sd
import comfy.supported_models
import comfy.text_encoders.anima
import comfy.text_encoders.flux
import comfy.text_encoders.lumina2
import comfy.text_encoders.qwen_image
import comfy.text_encoders.sd2_clip
import comfy.text_encoders.sd3_clip
import comfy.text_encoders.wan
import comfy.text_encoders.z_image
import folder_paths
import pytest
import torch
from comfy.sd1_clip import SD1ClipModel
from comfy.sdxl_clip import SDXLRefinerClipModel
from hrv_pack.host.mini.loader import SHIPPED, load_mini, prompt_tokens
from hrv_pack.host.prompts.encoding import token_map
from hrv_pack.host.prompts.tokenizers import clip_of_checkpoint, clip_of_encoders, clip_of_length
from hrv_pack.tests.support import full_size_unets
from hrv_pack.tests.support.family_tokenizers import MERGED, clip_with
from hrv_pack.tests.support.full_size_transformers import FULL_SIZE
from hrv_pack.tests.support.outlined_files import write_outline
from hrv_pack.tests.support.sentence_piece import sentence_piece_model
from hrv_pack.tests.support.tekken import flux_2_tokenizer, loading, tekken_model

TEXT = "A rose-colored (red:1.3) skyscraper, \\(nice\\) and é"
PIECES = {
    "spiece_model": sentence_piece_model(["a red car and a rose-colored skyscraper", "nice vases"] * 9)
    .numpy()
    .tobytes()
}
META = torch.device("meta")
# Said for every weight without memory.
NO_OP = pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")
ENCODERS = comfy.text_encoders
Shapes = Mapping[str, Sequence[int]]


def shapes(model: Callable[..., Any], encoder: str) -> Shapes:
    """Names and shapes of an encoder's weights in its published file, as the host's class of it has them."""
    made = getattr(model(device=META, dtype=torch.float16), encoder).transformer
    return {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}


# What files of text encoders hold.
FILES: dict[str, tuple[Callable[[], Shapes], Mapping[str, bytes]]] = {
    "clip_l": (lambda: shapes(SD1ClipModel, "clip_l"), {}),
    "clip_g": (lambda: shapes(SDXLRefinerClipModel, "clip_g"), {}),
    "clip_h": (lambda: shapes(ENCODERS.sd2_clip.SD2ClipModel, "clip_h"), {}),
    "t5xxl": (lambda: shapes(ENCODERS.sd3_clip.sd3_clip(clip_l=False, clip_g=False), "t5xxl"), {}),
    "umt5_xxl": (lambda: shapes(ENCODERS.wan.te(), "umt5xxl"), PIECES),
    "qwen_3_06b": (lambda: shapes(ENCODERS.anima.te(), "qwen3_06b"), {}),
    "qwen_3_4b": (lambda: shapes(ENCODERS.z_image.te(), "qwen3_4b"), {}),
    "qwen_3_8b": (lambda: shapes(ENCODERS.flux.klein_te(model_type="qwen3_8b"), "qwen3_8b"), {}),
    "qwen_2.5_vl_7b": (lambda: shapes(ENCODERS.qwen_image.te(), "qwen25_7b"), {}),
    "gemma_2_2b": (lambda: shapes(ENCODERS.lumina2.te(), "gemma2_2b"), PIECES),
}
# The files of a model, and what its loader's ``type`` says.
MODELS: dict[str, tuple[Sequence[str], str]] = {
    "SD 1.x": (["clip_l"], "stable_diffusion"),
    "SD 2.x": (["clip_h"], "stable_diffusion"),
    "SDXL": (["clip_l", "clip_g"], "sdxl"),
    "Cosmos-Predict2": (["t5xxl"], "cosmos"),
    "Flux.1": (["clip_l", "t5xxl"], "flux"),
    "Chroma": (["t5xxl"], "chroma"),
    "Wan": (["umt5_xxl"], "wan"),
    "Anima": (["qwen_3_06b"], "stable_diffusion"),
    "Z-Image": (["qwen_3_4b"], "lumina2"),
    "Flux.2 klein 4B": (["qwen_3_4b"], "flux2"),
    "Flux.2 klein 9B": (["qwen_3_8b"], "flux2"),
    "Qwen-Image": (["qwen_2.5_vl_7b"], "qwen_image"),
    "Lumina 2": (["gemma_2_2b"], "lumina2"),
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


def file_of(folder: Path, name: str) -> Path:
    path = folder / f"{name}.safetensors"
    if not path.exists():
        found, content = FILES[name]
        write_outline(path, found(), content)
    return path


def without_memory() -> dict[str, Any]:
    """Options of the host's loaders for a CLIP with no memory behind its weights."""
    cpu = torch.device("cpu")
    return {"load_device": cpu, "offload_device": cpu, "initial_device": META}


def loaded(paths: Sequence[Path], kind: str) -> Any:
    """The CLIP that the host makes of files of text encoders."""
    return comfy.sd.load_clip(
        [str(path) for path in paths],
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        clip_type=getattr(comfy.sd.CLIPType, kind.upper(), comfy.sd.CLIPType.STABLE_DIFFUSION),
        model_options=without_memory(),
        disable_dynamic=True,
    )


def loaded_checkpoint(path: Path) -> Any:
    """The CLIP that the host makes of a checkpoint."""
    return comfy.sd.load_checkpoint_guess_config(
        str(path),
        output_vae=False,
        output_model=False,
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        te_model_options=without_memory(),
        disable_dynamic=True,
    )[1]


def assert_same_words(found: Any, loaded: Any) -> None:
    assert type(found.tokenizer) is type(loaded.tokenizer)
    for text in (TEXT, "", "red " * 80):
        assert token_map(found, text) == token_map(loaded, text)


@NO_OP
@pytest.mark.parametrize("name", MODELS)
def test_words_are_those_of_the_text_encoder_that_the_host_loads(folder: Path, name: str) -> None:
    files, kind = MODELS[name]
    paths = [file_of(folder, file) for file in files]
    assert_same_words(clip_of_encoders(paths, kind), loaded(paths, kind))


def denoiser_of(name: str) -> tuple[Any, Shapes]:
    """The host's description of a published model, and names and shapes of its denoiser's weights."""
    if name in full_size_unets.FULL_SIZE:
        kind, sizes = full_size_unets.FULL_SIZE[name]
        config = kind(dict(sizes))
        weights = config.get_model({}, device=META).diffusion_model.state_dict()
    else:
        published = FULL_SIZE[name]
        config = getattr(comfy.supported_models, published.config)(dict(published.sizes))
        weights = {name.removeprefix(published.prefix): weight for name, weight in published.file().items()}
    return config, {f"model.diffusion_model.{name}": tuple(weight.shape) for name, weight in weights.items()}


def checkpoint_of(folder: Path, name: str, content: Mapping[str, bytes]) -> Path:
    """A checkpoint with a text encoder, as the host's nodes save them."""
    config, denoiser = denoiser_of(name)
    encoder = config.clip_target(state_dict={}).clip(device=META, dtype=torch.float16).state_dict()
    text = {name: tuple(weight.shape) for name, weight in config.process_clip_state_dict_for_saving(encoder).items()}
    path = folder / f"{name}.safetensors"
    write_outline(path, {**denoiser, **text}, content)
    return path


@NO_OP
@pytest.mark.parametrize("name", ["SD 1.x", "SD 2.x", "SDXL", "Z-Image", "Lumina 2"])
def test_words_are_those_of_the_checkpoint_that_the_host_loads(tmp_path: Path, name: str) -> None:
    content = {f"text_encoders.{piece}": data for piece, data in PIECES.items()} if name == "Lumina 2" else {}
    path = checkpoint_of(tmp_path, name, content)
    assert_same_words(clip_of_checkpoint(path), loaded_checkpoint(path))


def test_words_of_flux_2_dev_are_those_of_the_model_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "mistral.safetensors"
    model = tekken_model(MERGED)
    shapes = {"model.layers.0.post_attention_layernorm.weight": (5120,)}
    write_outline(path, shapes, {"tekken_model": model.numpy().tobytes()})
    with loading(model):
        found = clip_of_encoders([path], "flux2")
    assert token_map(found, TEXT) == token_map(clip_with(flux_2_tokenizer(MERGED)), TEXT)


@pytest.mark.parametrize("weights", SHIPPED.values(), ids=list(SHIPPED))
def test_words_are_those_of_the_models_that_ship(weights: Path) -> None:
    assert_same_words(clip_of_length(prompt_tokens(weights)), load_mini(weights)[1])


def test_a_checkpoint_without_a_text_encoder_has_no_words(tmp_path: Path) -> None:
    path = tmp_path / "denoiser.safetensors"
    write_outline(path, denoiser_of("SD 1.x")[1])
    assert clip_of_checkpoint(path) is None


def test_files_without_a_text_encoder_have_no_words_until_there_is_one(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.safetensors"
    assert clip_of_encoders([path], "chroma") is None
    path.write_bytes(b"")
    assert clip_of_encoders([path], "chroma") is None
    path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    assert clip_of_encoders([path], "chroma") is None
    with file_of(folder, "gemma_2_2b").open("rb") as whole:
        path.write_bytes(whole.read(100_000))
    assert clip_of_encoders([path], "chroma") is None
    path.unlink()
    path.symlink_to(file_of(folder, "t5xxl"))
    assert token_map(clip_of_encoders([path], "chroma"), "a red car").words
    renamed = tmp_path / "new.pt"
    renamed.symlink_to(file_of(folder, "t5xxl"))
    assert clip_of_encoders([renamed], "chroma") is None


@pytest.mark.parametrize(
    "added",
    [
        {"scaled_fp8": (2,), "encoder.block.0.layer.0.SelfAttention.q.scale_weight": ()},
        {"encoder.block.0.layer.0.SelfAttention.q.comfy_quant": (40,)},
    ],
    ids=["scaled", "mixed"],
)
def test_quantized_weights_make_no_other_words(folder: Path, tmp_path: Path, added: Shapes) -> None:
    path = tmp_path / "quantized.safetensors"
    write_outline(path, {**FILES["t5xxl"][0](), **added})
    plain = clip_of_encoders([file_of(folder, "t5xxl")], "chroma")
    assert token_map(clip_of_encoders([path], "chroma"), TEXT) == token_map(plain, TEXT)


def test_a_tokenizer_is_made_once_for_a_file(folder: Path) -> None:
    path = file_of(folder, "t5xxl")
    first = clip_of_encoders([path], "chroma")
    assert clip_of_encoders([path], "chroma") is first
    assert clip_of_encoders([path], "cosmos") is not first
    os.utime(path, ns=(1, 1))
    assert clip_of_encoders([path], "chroma") is not first


def test_where_another_pack_loads_text_encoders_nothing_is_loaded_for_the_page(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise AssertionError

    path = file_of(folder, "t5xxl")
    os.utime(path, ns=(2, 2))
    monkeypatch.setattr(comfy.sd, "load_text_encoder_state_dicts", load)
    assert clip_of_encoders([path], "chroma") is None
