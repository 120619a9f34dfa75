"""Full-size checkpoints with random half-precision weights through the host's own Load Checkpoint.

Every key and shape is the host's: its model classes without memory, named as it names them when it saves a checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.cli_args
import comfy.model_management
import comfy.supported_models
import folder_paths
import numpy as np
import pytest
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.sd1_clip import SD1ClipModel
from comfy.sdxl_clip import SDXLClipModel
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.hrv.heads.families import FAMILIES
from hrv_pack.hrv.heads.layout import HeadLayout
from hrv_pack.nodes.controls import ConceptStrengthen
from hrv_pack.tests.support.full_size_unets import FULL_SIZE
from hrv_pack.tests.support.random_files import assert_complete, write_random
from hrv_pack.tests.support.small_host import encoded, latents, random_hrv

from nodes import CheckpointLoaderSimple

pytestmark = pytest.mark.slow

PUBLISHED = Path(__file__).resolve().parents[4] / "shared" / "data" / "published"
LAYOUTS = {family.name: family.layout() for family in FAMILIES}
GIB = 2**30

VAE = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def checkpoint(config_class: Any, unet: dict[str, Any], text_model: Any) -> dict[str, torch.Tensor]:
    """Everything in a checkpoint by name, without memory: UNet, text encoders and VAE."""
    config = config_class({**unet, "dtype": torch.float16})
    model = config.get_model({}, device="meta")
    with torch.device("meta"):
        text = text_model(device="meta", dtype=torch.float16)
        vae = AutoencoderKL(ddconfig=VAE, embed_dim=4)
        # The host names the tensors of its encoders by their attribute; some it keeps to itself.
        parts = {
            **config.process_unet_state_dict_for_saving(model.diffusion_model.state_dict()),
            **config.process_clip_state_dict_for_saving(text.state_dict()),
            **config.process_vae_state_dict_for_saving(vae.state_dict()),
        }
    return {name: tensor.to(torch.float16) for name, tensor in parts.items()}


@contextmanager
def loaded(folder: Path, patch: pytest.MonkeyPatch, family: str, text: Any, needs: int) -> Iterator[Any]:
    """MODEL, CLIP and VAE of a random checkpoint by the host's Load Checkpoint; the file is gone afterwards."""
    tensors = checkpoint(*FULL_SIZE[family], text)
    size = sum(tensor.nbytes for tensor in tensors.values())
    if comfy.model_management.get_free_memory(torch.device("cpu")) < needs * GIB:
        pytest.skip(f"{needs} GiB of free memory are needed")
    if shutil.disk_usage(folder).free < size + GIB:
        pytest.skip(f"{size / GIB:.0f} GiB of free disk space are needed")
    path = folder / "random.safetensors"
    try:
        write_random(path, tensors)
        patch.setitem(folder_paths.folder_names_and_paths, "checkpoints", ([str(folder)], {".safetensors"}))
        # As on a GPU; without it the host widens the weights to float32 on a CPU.
        patch.setattr(comfy.cli_args.args, "fp16_unet", True)
        yield CheckpointLoaderSimple().load_checkpoint(path.name)
    finally:
        path.unlink(missing_ok=True)
        comfy.model_management.unload_all_models()


def published_names(stem: str, family: str) -> list[str]:
    """The head names that the authors published; where their files are not there, those of the rule."""
    path = PUBLISHED / f"{stem}.head_index.npy"
    if not path.is_file():
        return LAYOUTS[family].head_names()
    return [str(name) for name in np.load(path, allow_pickle=False)]


def assert_layout(layout: HeadLayout, stem: str, family: str, heads: int) -> None:
    assert layout.head_count == heads
    assert layout.head_names() == published_names(stem, family)
    assert layout == LAYOUTS[family]


def assert_a_word_can_be_strengthened(model: Any, clip: Any) -> None:
    """One step of 64 x 64 pixels, once as it is and once with a strengthened word."""
    with torch.inference_mode():
        hrv = random_hrv(head_layout(model))
        positive, negative = encoded(clip, "a red car"), encoded(clip, "")
        result = ConceptStrengthen.execute(
            model=model,
            conditioning=positive,
            hrv=hrv,
            words="red",
            concept="Color",
            strength=1.0,
            start=0.0,
            end=1.0,
            clamp=0.0,
        ).result
        plain, steered = (
            latents(with_model, prompt, negative, steps=1, cfg=1.0)
            for with_model, prompt in ((model, positive), result)
        )
    assert plain.shape == (1, 4, 8, 8)
    assert torch.isfinite(plain).all() and torch.isfinite(steered).all()
    assert (steered - plain).abs().max() > 1e-3 * plain.abs().max()


def assert_half_precision(model: Any) -> None:
    dtypes = {parameter.dtype for parameter in model.model.diffusion_model.parameters()}
    assert dtypes == {torch.float16}


def test_a_checkpoint_of_sd_15(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with loaded(tmp_path, monkeypatch, "SD 1.x", SD1ClipModel, needs=5) as (model, clip, vae):
        assert type(model.model.model_config) is comfy.supported_models.SD15
        assert_complete(caplog.messages)
        assert_half_precision(model)
        assert_layout(head_layout(model), "sd_v1_4", "SD 1.x", 128)
        assert_a_word_can_be_strengthened(model, clip)
        assert vae.decode(torch.zeros(1, 4, 8, 8)).shape == (1, 64, 64, 3)


def test_a_checkpoint_of_sdxl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with loaded(tmp_path, monkeypatch, "SDXL", SDXLClipModel, needs=11) as (model, clip, vae):
        assert type(model.model.model_config) is comfy.supported_models.SDXL
        assert_complete(caplog.messages)
        assert_half_precision(model)
        assert_layout(head_layout(model), "sd_xl_base_1_0", "SDXL", 1300)
        assert_a_word_can_be_strengthened(model, clip)
        assert vae.decode(torch.zeros(1, 4, 8, 8)).shape == (1, 64, 64, 3)
