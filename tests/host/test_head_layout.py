"""Head layouts of the host's own full-size models, and what is said when an HRV meets a model."""

from __future__ import annotations

import logging
from typing import Any

import comfy.model_patcher
import comfy.supported_models
import numpy as np
import pytest
import torch
from hrv_pack.host.head_layout import head_layout, require_fitting
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.unet_layouts import FAMILIES
from hrv_pack.hrv.vectors import HRV

# What the host reads off checkpoints of these families (comfy/model_detection.py).
COMMON = {"image_size": 32, "in_channels": 4, "out_channels": 4, "use_spatial_transformer": True, "legacy": False}
OF_FOUR_LEVELS: dict[str, Any] = {
    **COMMON,
    "model_channels": 320,
    "channel_mult": (1, 2, 4, 4),
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "adm_in_channels": None,
}
UNETS: dict[str, tuple[Any, dict[str, Any]]] = {
    "SD 1.x": (
        comfy.supported_models.SD15,
        {**OF_FOUR_LEVELS, "context_dim": 768, "use_linear_in_transformer": False},
    ),
    "SD 2.x": (
        comfy.supported_models.SD20,
        {**OF_FOUR_LEVELS, "context_dim": 1024, "use_linear_in_transformer": True},
    ),
    "SDXL": (
        comfy.supported_models.SDXL,
        {
            **COMMON,
            "model_channels": 320,
            "channel_mult": (1, 2, 4),
            "num_res_blocks": [2, 2, 2],
            "transformer_depth": [0, 0, 2, 2, 10, 10],
            "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
            "transformer_depth_middle": 10,
            "context_dim": 2048,
            "use_linear_in_transformer": True,
            "num_classes": "sequential",
            "adm_in_channels": 2816,
        },
    ),
}


def full_size(family: str) -> Any:
    """A MODEL of a family without memory for its weights."""
    config_class, unet = UNETS[family]
    config = config_class(dict(unet, dtype=torch.float16))
    config.set_inference_dtype(torch.float16, None)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(config.get_model({}, device="meta"), load_device=cpu, offload_device=cpu)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_known_layouts_are_those_of_the_hosts_models(family: Any) -> None:
    assert head_layout(full_size(family.name)) == family.layout()


def test_an_hrv_of_another_model_with_the_same_heads_fits_and_this_is_said(caplog: pytest.LogCaptureFixture) -> None:
    model = full_size("SD 1.x")
    values = np.ones((1, 128), dtype=np.float32)
    for provenance, name in (({"model": "my fine-tune"}, "my fine-tune"), ({}, "a model that its file does not name")):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            require_fitting(HRV(values, ("Color",), FAMILIES[0].layout(), provenance=provenance), model)
        assert f"made with {name}, fits this model, SD15: both have 128 heads" in caplog.text
        assert "fine" in caplog.text


def test_an_hrv_of_other_heads_is_refused() -> None:
    values = np.ones((1, 1300), dtype=np.float32)
    with pytest.raises(HRVError, match=r"HRV: 1300 heads .*; model: 128 heads"):
        require_fitting(HRV(values, ("Color",), FAMILIES[2].layout()), full_size("SD 1.x"))
