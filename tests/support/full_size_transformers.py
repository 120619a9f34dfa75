"""Published transformers: what the host finds in their files, and those files with random weights and few blocks.

Imported as ``hrv_pack.tests.support.full_size_transformers``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import comfy.model_patcher
import comfy.supported_models
import torch

from ...hrv.heads.layout import AttentionLayer, HeadLayout
from .small_transformers import (
    ANIMA,
    CHROMA,
    COSMOS,
    CPU,
    FLUX,
    FLUX_2,
    LUMINA_2,
    QWEN_IMAGE,
    WAN,
    Z_IMAGE,
    Kind,
    making,
)

_COUNTS = ("num_blocks", "num_layers", "n_layers", "n_refiner_layers", "depth", "depth_single_blocks")


@dataclass(frozen=True)
class FullSize:
    """A published transformer.

    ``sizes`` is what the host finds in its file (``comfy/model_detection.py``). ``uncounted`` are numbers of blocks
    that it doesn't count there: it knows them by the widths, or they are the same in all models. States of its text
    have ``text`` features. In half precision its file has ``gigabytes`` of 10^9 bytes. Names in it begin with
    ``prefix``, and where ``scales``, weights of norms are called scales.
    """

    kind: Kind
    config: str
    text: int
    gigabytes: float
    sizes: Mapping[str, Any]
    uncounted: Mapping[str, int] = field(default_factory=dict)
    prefix: str = ""
    scales: bool = False

    def __str__(self) -> str:
        return self.config

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of its blocks; Chroma has layers in front of its blocks, and all of them are needed."""
        counts = {name: size for name, size in {**self.sizes, **self.uncounted}.items() if name in _COUNTS}
        if "depth" in counts:
            counts.pop("n_layers", None)
        return counts

    def file(self, **counts: int) -> dict[str, torch.Tensor]:
        """Everything in its file by name, in half precision and without memory, with other numbers of blocks."""
        denoiser = without_memory(self, **counts).model.diffusion_model
        weights = {self.prefix + self.named(name): weight for name, weight in denoiser.state_dict().items()}
        return {name: weight.to(torch.bfloat16) for name, weight in weights.items()}

    def file_of_one_block(self) -> dict[str, torch.Tensor]:
        """Of one block of each kind."""
        return self.file(**dict.fromkeys(self.counts, 1))

    def named(self, name: str) -> str:
        """What its file calls a weight of the host's."""
        return re.sub(r"(_norm|\bnorms\.\d+)\.weight$", r"\1.scale", name) if self.scales else name


def without_memory(published: FullSize, **counts: int) -> Any:
    """A MODEL of the published size, or of other numbers of blocks, without memory for its weights."""
    sizes = {**published.sizes, **published.uncounted, **counts}
    config = getattr(comfy.supported_models, published.config)({**sizes, "dtype": torch.bfloat16})
    config.set_inference_dtype(torch.bfloat16, None)
    model = config.get_model({}, device=torch.device("meta"))
    return comfy.model_patcher.ModelPatcher(model, load_device=CPU, offload_device=CPU)


def of_full_width(published: FullSize, dtype: torch.dtype = torch.float32, **counts: int) -> Any:
    """A MODEL of one block of each kind as the published one has, or of other numbers, with random weights."""
    config = getattr(comfy.supported_models, published.config)
    sizes = {**published.sizes, **dict.fromkeys(published.counts, 1), **counts}
    return making(config, sizes)(dtype)


_COSMOS: dict[str, Any] = {
    "image_model": "cosmos_predict2",
    "max_img_h": 240,
    "max_img_w": 240,
    "max_frames": 128,
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 2048,
    "concat_padding_mask": True,
    "crossattn_emb_channels": 1024,
    "pos_emb_cls": "rope3d",
    "pos_emb_learnable": True,
    "pos_emb_interpolation": "crop",
    "min_fps": 1,
    "max_fps": 30,
    "use_adaln_lora": True,
    "adaln_lora_dim": 256,
    "num_heads": 16,
    "extra_per_block_abs_pos_emb": False,
    "rope_h_extrapolation_ratio": 4.0,
    "rope_w_extrapolation_ratio": 4.0,
    "rope_t_extrapolation_ratio": 1.0,
    "extra_h_extrapolation_ratio": 1.0,
    "extra_w_extrapolation_ratio": 1.0,
    "extra_t_extrapolation_ratio": 1.0,
    "rope_enable_fps_modulation": False,
}
_COSMOS_14B = {**_COSMOS, "model_channels": 5120, "num_heads": 40}
_LUMINA: dict[str, Any] = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": 2304,
    "cap_feat_dim": 2304,
    "n_layers": 26,
    "qk_norm": True,
    "n_heads": 24,
    "n_kv_heads": 8,
    "axes_dims": [32, 32, 32],
    "axes_lens": [300, 512, 512],
    "rope_theta": 10000.0,
    "ffn_dim_multiplier": 4.0,
}
_Z_IMAGE: dict[str, Any] = {
    **_LUMINA,
    "dim": 3840,
    "cap_feat_dim": 2560,
    "n_layers": 30,
    "n_heads": 30,
    "n_kv_heads": 30,
    "axes_dims": [32, 48, 48],
    "axes_lens": [1536, 512, 512],
    "rope_theta": 256.0,
    "ffn_dim_multiplier": 8.0 / 3.0,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}
_FLUX: dict[str, Any] = {
    "image_model": "flux",
    "axes_dim": [16, 56, 56],
    "num_heads": 24,
    "mlp_ratio": 4.0,
    "theta": 10000,
    "out_channels": 16,
    "qkv_bias": True,
    "txt_ids_dims": [],
    "in_channels": 16,
    "hidden_size": 3072,
    "context_in_dim": 4096,
    "patch_size": 2,
    "vec_in_dim": 768,
    "depth": 19,
    "depth_single_blocks": 38,
    "guidance_embed": True,
    "yak_mlp": False,
    "txt_norm": False,
}
_FLUX_2: dict[str, Any] = {
    **_FLUX,
    "image_model": "flux2",
    "axes_dim": [32, 32, 32, 32],
    "num_heads": 48,
    "mlp_ratio": 3.0,
    "theta": 2000,
    "out_channels": 128,
    "global_modulation": True,
    "mlp_silu_act": True,
    "qkv_bias": False,
    "ops_bias": False,
    "default_ref_method": "index",
    "ref_index_scale": 10.0,
    "txt_ids_dims": [3],
    "in_channels": 128,
    "hidden_size": 6144,
    "context_in_dim": 15360,
    "patch_size": 1,
    "vec_in_dim": None,
    "depth": 8,
    "depth_single_blocks": 48,
}
_CHROMA: dict[str, Any] = {
    **{name: size for name, size in _FLUX.items() if name not in ("guidance_embed", "yak_mlp", "txt_norm")},
    "image_model": "chroma",
    "vec_in_dim": None,
    "in_channels": 64,
    "out_channels": 64,
    "in_dim": 64,
    "out_dim": 3072,
    "hidden_dim": 5120,
    "n_layers": 5,
}
_WAN: dict[str, Any] = {
    "image_model": "wan2.1",
    "dim": 1536,
    "out_dim": 16,
    "num_heads": 12,
    "ffn_dim": 8960,
    "num_layers": 30,
    "patch_size": (1, 2, 2),
    "freq_dim": 256,
    "window_size": (-1, -1),
    "qk_norm": True,
    "cross_attn_norm": True,
    "eps": 1e-6,
    "in_dim": 16,
    "model_type": "t2v",
}
_WAN_14B = {**_WAN, "dim": 5120, "num_heads": 40, "ffn_dim": 13824, "num_layers": 40}
_WAN_5B = {
    **_WAN,
    "dim": 3072,
    "out_dim": 48,
    "num_heads": 24,
    "ffn_dim": 14336,
    "in_dim": 48,
}
_KLEIN = {
    **_FLUX_2,
    "num_heads": 24,
    "hidden_size": 3072,
    "context_in_dim": 7680,
    "depth": 5,
    "depth_single_blocks": 20,
    "guidance_embed": False,
}
_KLEIN_9B = {
    **_KLEIN,
    "num_heads": 32,
    "hidden_size": 4096,
    "context_in_dim": 12288,
    "depth": 8,
    "depth_single_blocks": 24,
}

FULL_SIZE = {
    "Anima": FullSize(
        ANIMA, "Anima", 1024, 4.18, {**_COSMOS, "image_model": "anima"}, uncounted={"num_blocks": 28}, prefix="net."
    ),
    "Cosmos-Predict2 2B": FullSize(
        COSMOS, "CosmosT2IPredict2", 1024, 3.91, _COSMOS, uncounted={"num_blocks": 28}, prefix="net."
    ),
    "Cosmos-Predict2 14B": FullSize(
        COSMOS, "CosmosT2IPredict2", 1024, 28.5, _COSMOS_14B, uncounted={"num_blocks": 36}, prefix="net."
    ),
    "Z-Image": FullSize(Z_IMAGE, "ZImage", 2560, 12.31, _Z_IMAGE, uncounted={"n_refiner_layers": 2}),
    "Lumina 2": FullSize(
        LUMINA_2,
        "Lumina2",
        2304,
        5.22,
        _LUMINA,
        uncounted={"n_refiner_layers": 2},
        prefix="model.diffusion_model.",
    ),
    "Flux.1 dev": FullSize(FLUX, "Flux", 4096, 23.8, _FLUX, scales=True),
    "Flux.2 dev": FullSize(FLUX_2, "Flux2", 15360, 64.45, _FLUX_2, scales=True),
    "Flux.2 klein 4B": FullSize(FLUX_2, "Flux2", 7680, 7.75, _KLEIN, scales=True),
    "Flux.2 klein 9B": FullSize(FLUX_2, "Flux2", 12288, 18.16, _KLEIN_9B, scales=True),
    "Chroma": FullSize(CHROMA, "Chroma", 4096, 17.8, _CHROMA, scales=True),
    "Wan 2.1 1.3B": FullSize(WAN, "WAN21_T2V", 4096, 2.84, _WAN),
    "Wan 2.1 14B": FullSize(WAN, "WAN21_T2V", 4096, 28.6, _WAN_14B),
    "Wan 2.2 5B": FullSize(WAN, "WAN22_T2V", 4096, 10.0, _WAN_5B),
    "Qwen-Image": FullSize(
        QWEN_IMAGE, "QwenImage", 3584, 40.86, {"image_model": "qwen_image", "in_channels": 64, "num_layers": 60}
    ),
}
"""By the name that people call them."""

LAYOUTS: dict[str, tuple[str, dict[str, tuple[int, int]]]] = {
    "Anima": ("anima", {"block": (28, 16)}),
    "Cosmos-Predict2 2B": ("cosmos-predict2", {"block": (28, 16)}),
    "Cosmos-Predict2 14B": ("cosmos-predict2", {"block": (36, 40)}),
    "Z-Image": ("z-image", {"block": (30, 30)}),
    "Lumina 2": ("lumina2", {"block": (26, 24)}),
    "Flux.1 dev": ("flux", {"double": (19, 24), "single": (38, 24)}),
    "Flux.2 dev": ("flux2", {"double": (8, 48), "single": (48, 48)}),
    "Flux.2 klein 4B": ("flux2", {"double": (5, 24), "single": (20, 24)}),
    "Flux.2 klein 9B": ("flux2", {"double": (8, 32), "single": (24, 32)}),
    "Chroma": ("chroma", {"double": (19, 24), "single": (38, 24)}),
    "Wan 2.1 1.3B": ("wan", {"block": (30, 12)}),
    "Wan 2.1 14B": ("wan", {"block": (40, 40)}),
    "Wan 2.2 5B": ("wan", {"block": (30, 24)}),
    "Qwen-Image": ("qwen-image", {"block": (60, 24)}),
}
"""By model: the family, and the layers and heads of its sections."""


def layout_of(name: str, layers: int | None = None) -> HeadLayout:
    """The layout of a published model, or that of so many layers of each kind."""
    family, sections = LAYOUTS[name]
    return HeadLayout(
        tuple(
            AttentionLayer(section, number, 0, heads)
            for section, (published, heads) in sections.items()
            for number in range(layers or published)
        ),
        family,
    )
