"""Head layouts of the host's own full-size models, and what is said when an HRV meets a model."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import comfy.model_detection
import comfy.model_patcher
import comfy.supported_models
import numpy as np
import pytest
import torch
from hrv_pack.host.models.layouts import head_layout, require_fitting
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.families import FAMILIES
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.tests.support.documented_families import UNET, documented
from hrv_pack.tests.support.full_size_unets import FULL_SIZE

_, SDXL_UNET = FULL_SIZE["SDXL"]
# Relatives of SDXL, and per section what they have: numbers of layers with so many heads.
RELATIVES: dict[str, tuple[Any, dict[str, Any], dict[str, dict[int, int]]]] = {
    "SDXL refiner": (
        comfy.supported_models.SDXLRefiner,
        {
            **SDXL_UNET,
            "model_channels": 384,
            "channel_mult": (1, 2, 4, 4),
            "num_res_blocks": [2, 2, 2, 2],
            "transformer_depth": [0, 0, 4, 4, 4, 4, 0, 0],
            "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0],
            "transformer_depth_middle": 4,
            "context_dim": 1280,
            "adm_in_channels": 2560,
        },
        {"down": {12: 8, 24: 8}, "mid": {24: 4}, "up": {24: 12, 12: 12}},
    ),
    "SSD-1B": (
        comfy.supported_models.SSD1B,
        {
            **SDXL_UNET,
            "transformer_depth": [0, 0, 2, 2, 4, 4],
            "transformer_depth_output": [0, 0, 0, 1, 1, 2, 10, 4, 4],
            "transformer_depth_middle": -1,
        },
        {"down": {10: 4, 20: 8}, "up": {20: 18, 10: 4}},
    ),
    "Segmind Vega": (
        comfy.supported_models.Segmind_Vega,
        {
            **SDXL_UNET,
            "transformer_depth": [0, 0, 1, 1, 2, 2],
            "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
            "transformer_depth_middle": -1,
        },
        {"down": {10: 2, 20: 4}, "up": {20: 6, 10: 3}},
    ),
    "KOALA 700M": (
        comfy.supported_models.KOALA_700M,
        {
            **SDXL_UNET,
            "num_res_blocks": [1, 1, 1],
            "transformer_depth": [0, 2, 5],
            "transformer_depth_output": [0, 0, 2, 2, 5, 5],
            "transformer_depth_middle": -2,
        },
        {"down": {10: 2, 20: 5}, "up": {20: 10, 10: 4}},
    ),
}


def full_size(family: str) -> Any:
    """A MODEL of a family without memory for its weights."""
    config_class, unet = (FULL_SIZE | {name: known[:2] for name, known in RELATIVES.items()})[family]
    config = config_class(dict(unet, dtype=torch.float16))
    config.set_inference_dtype(torch.float16, None)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(config.get_model({}, device="meta"), load_device=cpu, offload_device=cpu)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_known_layouts_are_those_of_the_hosts_models(family: Any) -> None:
    assert head_layout(full_size(family.name)) == family.layout()


def test_the_documents_list_the_layouts_of_these_families_and_no_other() -> None:
    layouts = [family.layout() for family in FAMILIES]
    counts = [(len(layout.layers), sorted({layer.heads for layer in layout.layers})) for layout in layouts]
    assert documented()[UNET].layouts == [
        f"{layers} x {heads[0]}" if len(heads) == 1 else f"{layers} x {heads[0]}-{heads[-1]}"
        for layers, heads in counts
    ]


@pytest.mark.parametrize("name", RELATIVES)
def test_pruned_relatives_have_the_layers_that_are_left(name: str) -> None:
    config_class, _, expected = RELATIVES[name]
    model = full_size(name)
    # The host takes such weights for this kind of model, so that is what its loader makes of a checkpoint.
    weights = model.model.diffusion_model.state_dict(prefix="model.")
    assert type(comfy.model_detection.model_config_from_unet(weights, "model.")) is config_class
    layout = head_layout(model)
    found = {section: dict(Counter(layer.heads for layer in layers)) for section, layers in layout.sections().items()}
    assert found == expected
    assert layout.signature not in {family.layout().signature for family in FAMILIES}
    # Every layer stands where the host calls it, and nothing that it calls is missing.
    assert [layer.key for layer in layout.layers] == list(attn2_in_forward_order(model.model.diffusion_model))


def attn2_in_forward_order(unet: Any) -> Iterator[tuple[str, int, int]]:
    """Keys of all cross-attention layers from the names of their weights, which say nothing of modules."""
    pattern = re.compile(
        r"(input|middle|output)_block(?:s\.(\d+))?\.\d+\.transformer_blocks\.(\d+)\.attn2\.to_q\.weight"
    )
    found = [match.groups() for match in map(pattern.fullmatch, unet.state_dict()) if match]
    order = ("input", "middle", "output")
    for section, number, index in sorted(found, key=lambda key: (order.index(key[0]), int(key[1] or 0), int(key[2]))):
        yield section, int(number or 0), int(index)


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
