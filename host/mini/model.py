"""HRV-mini out of the host's own parts: its UNet and CLIP classes at a small width, and where its weights lie.

The layout is SD 1.x's: 6 + 1 + 9 cross-attention layers of 8 heads (comfy/supported_models.py, SD15). Latents are
2 x 2 pixel blocks of a 32 x 32 picture, so 12 x 16 x 16; the schedule has zero terminal signal and the network
predicts v, because SD's own schedule leaks a picture's mean.
"""

from __future__ import annotations

from typing import Any, ClassVar

import comfy.clip_model
import comfy.latent_formats
import comfy.model_base
import comfy.ops
import comfy.supported_models_base
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

CONTEXT_WIDTH = 128
LATENT_SCALE = 1.5

UNET_CONFIG: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 12,
    "out_channels": 12,
    "model_channels": 64,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": (1, 1, 2, 2),
    "num_heads": 8,
    "num_head_channels": -1,
    "use_spatial_transformer": True,
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": CONTEXT_WIDTH,
    "use_linear_in_transformer": False,
    "legacy": False,
}

TEXT_CONFIG: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": CONTEXT_WIDTH,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}


class MiniLatentFormat(comfy.latent_formats.LatentFormat):
    """12 latent channels: the RGB of the four pixels of a 2 x 2 block, channel-major (``pixel_unshuffle``)."""

    latent_channels = 12
    scale_factor = LATENT_SCALE
    # Previews see scaled latents: the mean of a block's four pixels, brought back to -1..1.
    latent_rgb_factors: ClassVar[list[list[float]]] = [
        [0.25 / LATENT_SCALE if rgb == channel // 4 else 0.0 for rgb in range(3)] for channel in range(12)
    ]


class MiniModelConfig(comfy.supported_models_base.BASE):
    """The host's model description of HRV-mini (comfy/supported_models_base.py)."""

    unet_config = UNET_CONFIG
    unet_extra_config: ClassVar[dict[str, Any]] = {}
    latent_format = MiniLatentFormat
    sampling_settings: ClassVar[dict[str, Any]] = {"zsnr": True}
    memory_usage_factor = 0.5

    def model_type(self, state_dict: dict[str, torch.Tensor], prefix: str = "") -> comfy.model_base.ModelType:
        return comfy.model_base.ModelType.V_PREDICTION

    def inpaint_model(self) -> bool:
        return False


def new_unet() -> UNetModel:
    """A fresh UNet in float32 whose weights are not initialised (the host's layers skip that)."""
    return UNetModel(**UNET_CONFIG, dtype=torch.float32, operations=comfy.ops.disable_weight_init)


def new_text_model() -> comfy.clip_model.CLIPTextModel:
    """A fresh CLIP text model in float32 whose weights are not initialised."""
    return comfy.clip_model.CLIPTextModel(TEXT_CONFIG, torch.float32, "cpu", comfy.ops.disable_weight_init)
