"""HRV-mini and HRV-mini-T out of the host's own parts: its UNet, transformer and CLIP classes at a small width.

The layout is SD 1.x's: 6 + 1 + 9 cross-attention layers of 8 heads (comfy/supported_models.py, SD15). Latents are
2 x 2 pixel blocks of a 32 x 32 picture, so 12 x 16 x 16; the schedule has zero terminal signal and the network
predicts v, because SD's own schedule leaks a picture's mean.

HRV-mini-T is Lumina 2's transformer without refiners (comfy/ldm/lumina/model.py): 8 layers of 8 heads in which text and
image attend to each other, with the same latents and the same text model.
"""

from __future__ import annotations

from typing import Any, ClassVar

import comfy.clip_model
import comfy.latent_formats
import comfy.model_base
import comfy.ops
import comfy.supported_models_base
import torch
from comfy.ldm.lumina.model import NextDiT
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
    "eos_token_id": 49407,
}


PROMPT_TOKENS, TRANSFORMER_TOKENS = 77, 16
"""Tokens that a prompt of HRV-mini has, and of HRV-mini-T, or a multiple: captions have 13 at most, and all cost time.
"""

TRANSFORMER_CONFIG: dict[str, Any] = {
    "patch_size": 2,
    "in_channels": 12,
    "dim": 192,
    "n_layers": 8,
    "n_refiner_layers": 0,
    "n_heads": 8,
    "multiple_of": 32,
    "ffn_dim_multiplier": 2.0,
    "qk_norm": True,
    "cap_feat_dim": CONTEXT_WIDTH,
    "axes_dims": (8, 8, 8),
    "axes_lens": (64, 64, 64),
    "rope_theta": 100.0,
    "time_scale": 1000.0,
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


class MiniTransformerConfig(MiniModelConfig):
    """The host's model description of HRV-mini-T."""

    unet_config = TRANSFORMER_CONFIG
    sampling_settings: ClassVar[dict[str, Any]] = {"multiplier": 1.0, "shift": 3.0}

    def get_model(
        self, state_dict: dict[str, torch.Tensor], prefix: str = "", device: torch.device | None = None
    ) -> comfy.model_base.BaseModel:
        return comfy.model_base.Lumina2(self, device=device)


def new_unet() -> UNetModel:
    """A fresh UNet in float32 whose weights are not initialised (the host's layers skip that)."""
    return UNetModel(**UNET_CONFIG, dtype=torch.float32, operations=comfy.ops.disable_weight_init)


def new_transformer() -> NextDiT:
    """A fresh transformer in float32 whose weights are not initialised."""
    return NextDiT(**TRANSFORMER_CONFIG, dtype=torch.float32, operations=comfy.ops.disable_weight_init)


def new_text_model(tokens: int) -> comfy.clip_model.CLIPTextModel:
    """A fresh CLIP text model for prompts of so many tokens, in float32, whose weights are not initialised."""
    config = {**TEXT_CONFIG, "max_position_embeddings": tokens}
    return comfy.clip_model.CLIPTextModel(config, torch.float32, "cpu", comfy.ops.disable_weight_init)
