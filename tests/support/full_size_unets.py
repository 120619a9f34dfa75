"""The full-size UNets of the families that HRVs are published for, as the host describes them.

Imported as ``hrv_pack.tests.support.full_size_unets``.
"""

from __future__ import annotations

from typing import Any

import comfy.supported_models

# What the host reads off checkpoints of these families (comfy/model_detection.py).
_COMMON = {"image_size": 32, "in_channels": 4, "out_channels": 4, "use_spatial_transformer": True, "legacy": False}
_OF_FOUR_LEVELS: dict[str, Any] = {
    **_COMMON,
    "model_channels": 320,
    "channel_mult": (1, 2, 4, 4),
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "adm_in_channels": None,
}
FULL_SIZE: dict[str, tuple[Any, dict[str, Any]]] = {
    "SD 1.x": (
        comfy.supported_models.SD15,
        {**_OF_FOUR_LEVELS, "context_dim": 768, "use_linear_in_transformer": False},
    ),
    "SD 2.x": (
        comfy.supported_models.SD20,
        {**_OF_FOUR_LEVELS, "context_dim": 1024, "use_linear_in_transformer": True},
    ),
    "SDXL": (
        comfy.supported_models.SDXL,
        {
            **_COMMON,
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
