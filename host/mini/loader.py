"""Loading the shipped HRV-mini or HRV-mini-T as the host's MODEL, CLIP and VAE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models_base
import torch
import torch.nn.functional as F
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from safetensors import safe_open
from safetensors.torch import load_file

from ...hrv.errors import HRVError
from .model import (
    TEXT_CONFIG,
    TRANSFORMER_CONFIG,
    UNET_CONFIG,
    MiniModelConfig,
    MiniTransformerConfig,
)

_FOLDER = Path(__file__).resolve().parents[2] / "hrv_presets" / "mini"

WEIGHTS, TRANSFORMER_WEIGHTS = _FOLDER / "model.safetensors", _FOLDER / "transformer.safetensors"
"""HRV-mini, a UNet, and HRV-mini-T, a transformer."""

MINI, MINI_TRANSFORMER = "HRV-mini", "HRV-mini-T (transformer)"
SHIPPED = {MINI: WEIGHTS, MINI_TRANSFORMER: TRANSFORMER_WEIGHTS}
"""The models that ship, by the names that saved graphs know them by."""

ENLARGEMENT = 4
"""Side of the square that shows one pixel, so that a latent is 8 pixels wide as everywhere in Stable Diffusion."""

_VOCABULARY = 49408
_POSITIONS = "text_model.embeddings.position_embedding.weight"


class PixelBlocks(torch.nn.Module):
    """The VAE of HRV-mini, without weights: 2 x 2 blocks of a small picture to channels, pixels shown as squares."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros(1))

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """RGB [B, 3, 8h, 8w] in -1..1 to latents [B, 12, h, w]."""
        return F.pixel_unshuffle(F.avg_pool2d(pixels, ENLARGEMENT), 2)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, 12, h, w] to RGB [B, 3, 8h, 8w] in -1..1."""
        return F.interpolate(F.pixel_shuffle(latents, 2), scale_factor=ENLARGEMENT, mode="nearest")


class MiniVAE(comfy.sd.VAE):
    """The host's VAE around :class:`PixelBlocks` (comfy/sd.py), in float32 because it is exact there."""

    def __init__(self) -> None:
        super().__init__(sd={"pixel_space_vae": torch.tensor(1.0)}, dtype=torch.float32)
        self.first_stage_model = PixelBlocks()
        self.patcher = comfy.model_patcher.ModelPatcher(
            self.first_stage_model,
            load_device=self.device,
            offload_device=comfy.model_management.vae_offload_device(),
        )
        self.downscale_ratio = self.upscale_ratio = 2 * ENLARGEMENT
        self.latent_channels = 12


def load_mini(weights: Path = WEIGHTS) -> tuple[Any, Any, Any]:
    """Load HRV-mini, or HRV-mini-T from weights of it, as (MODEL, CLIP, VAE).

    Raises HRVError when the weights are not there.
    """
    if not weights.is_file():
        raise _missing(weights)
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(weights).items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    text = parts["text"]
    _spread_embedding(text, parts["token_ids"][""])
    if "transformer" in parts:
        model = _load_model(MiniTransformerConfig(TRANSFORMER_CONFIG), parts["transformer"])
        return model, _load_clip(text), MiniVAE()
    return _load_model(MiniModelConfig(UNET_CONFIG), parts["unet"]), _load_clip(text), MiniVAE()


def prompt_tokens(weights: Path) -> int:
    """The tokens of a chunk of a prompt, with start and end, for weights that ship.

    Raises HRVError when the weights are not there.
    """
    if not weights.is_file():
        raise _missing(weights)
    with safe_open(weights, framework="pt") as file:
        return int(file.get_slice(f"text.{_POSITIONS}").get_shape()[0])


def _missing(weights: Path) -> HRVError:
    return HRVError(f"The weights of HRV-mini are missing at {weights}. Install the pack again.")


def _spread_embedding(text: dict[str, torch.Tensor], token_ids: torch.Tensor) -> None:
    """The stored rows of known tokens become the tokenizer's whole embedding; all others share row 0."""
    name = "text_model.embeddings.token_embedding.weight"
    rows = text[name]
    whole = rows[0].repeat(_VOCABULARY, 1)
    whole[token_ids[1:]] = rows[1:]
    text[name] = whole


def _load_model(config: MiniModelConfig, tensors: dict[str, torch.Tensor]) -> Any:
    device = comfy.model_management.get_torch_device()
    dtype = comfy.model_management.unet_dtype(
        device, supported_dtypes=config.supported_inference_dtypes, weight_dtype=torch.float16
    )
    config.set_inference_dtype(
        dtype, comfy.model_management.unet_manual_cast(dtype, device, config.supported_inference_dtypes)
    )
    model = config.get_model(tensors, device=comfy.model_management.unet_offload_device())
    model.load_model_weights(tensors)
    return comfy.model_patcher.ModelPatcher(
        model, load_device=device, offload_device=comfy.model_management.unet_offload_device()
    )


def _load_clip(tensors: dict[str, torch.Tensor]) -> Any:
    tokens = len(tensors[_POSITIONS])
    target = comfy.supported_models_base.ClipTarget(SD1Tokenizer, SD1ClipModel)
    state = {f"clip_l.transformer.{name}": tensor for name, tensor in tensors.items()}
    return comfy.sd.CLIP(
        target,
        tokenizer_data={"clip_l_max_length": tokens},
        state_dict=state,
        model_options={"clip_l_model_config": {**TEXT_CONFIG, "max_position_embeddings": tokens}},
        disable_dynamic=True,
    )
