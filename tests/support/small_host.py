"""Small models of the host's own classes with random weights in float32, and ways to look inside their runs.

Imported as ``hrv_pack.tests.support.small_host``. Every weight is random, also those that training starts at zero, so
that every head matters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.supported_models
import numpy as np
import torch
from comfy.patcher_extension import WrappersMP
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.sdxl_clip import SDXLClipModel, SDXLRefinerClipModel, SDXLTokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders.sd2_clip import SD2ClipModel, SD2Tokenizer

from ...host.models.layouts import head_layout
from ...host.prompts.carried import Conditioning
from ...host.prompts.encoding import encode_prompt
from ...hrv.heads.layout import HeadLayout, LayerKey
from ...hrv.relevance.vectors import HRV

TEXT_WIDTHS = {"l": 16, "g": 24, "h": 16}
POOLED_WIDTH = TEXT_WIDTHS["g"]
CONCEPTS = ("Color", "Shape", "Size")

TOLERANCE = 1e-5
"""Largest :func:`relative_error` of two float32 runs that compute the same in another order."""

_SMALL_UNET: dict[str, Any] = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "use_spatial_transformer": True,
    "legacy": False,
    "dtype": torch.float32,
}

# SD 1.x in small: a transformer behind every residual block, 8 heads in every layer, convolutions around them.
_SD15_UNET: dict[str, Any] = {
    **_SMALL_UNET,
    "channel_mult": (1, 2),
    "num_res_blocks": [1, 1],
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "use_linear_in_transformer": False,
    "context_dim": TEXT_WIDTHS["l"],
    "adm_in_channels": None,
}

# Of one level, with a transformer before, in and behind the middle.
_SHALLOW_UNET: dict[str, Any] = {
    **_SD15_UNET,
    "channel_mult": (1,),
    "num_res_blocks": [1],
    "transformer_depth": [1],
    "transformer_depth_output": [0, 1],
}

# SD 2.x in small: as SD 1.x, with heads of one width and more of them where it is wider.
_SD20_UNET: dict[str, Any] = {
    **_SD15_UNET,
    "use_linear_in_transformer": True,
    "context_dim": TEXT_WIDTHS["h"],
}

# SDXL in small: no transformer on the finest level, deep ones below, more heads where it is wider, pooled text.
_SDXL_UNET: dict[str, Any] = {
    **_SMALL_UNET,
    "channel_mult": (1, 2, 4),
    "num_res_blocks": [1, 1, 1],
    "transformer_depth": [0, 1, 2],
    "transformer_depth_output": [0, 0, 1, 1, 2, 2],
    "transformer_depth_middle": 2,
    "use_linear_in_transformer": True,
    "context_dim": TEXT_WIDTHS["l"] + TEXT_WIDTHS["g"],
    "num_classes": "sequential",
    "adm_in_channels": POOLED_WIDTH + 6 * 256,
}

# The refiner of SDXL in small: a level more, transformers on the middle ones alone, and the text of one encoder.
_REFINER_UNET: dict[str, Any] = {
    **_SDXL_UNET,
    "channel_mult": (1, 2, 4, 4),
    "num_res_blocks": [1, 1, 1, 1],
    "transformer_depth": [0, 1, 1, 0],
    "transformer_depth_output": [0, 0, 1, 1, 1, 1, 0, 0],
    "transformer_depth_middle": 1,
    "context_dim": TEXT_WIDTHS["g"],
    "adm_in_channels": POOLED_WIDTH + 5 * 256,
}


def randomise(module: torch.nn.Module, seed: int) -> None:
    """Fill every parameter: matrices keep the size of what they get, attention maps become far from even."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            gain = 2.0 if name.endswith(("to_q.weight", "to_k.weight")) else 1.0
            parameter.data.copy_(noise * gain / noise[0].numel() ** 0.5)
        else:
            parameter.data.copy_(noise * 0.1 + name.endswith("weight"))


def _patcher(config: Any, dtype: torch.dtype = torch.float32) -> Any:
    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, device="cpu")
    randomise(model.diffusion_model, seed=1)
    return comfy.model_patcher.ModelPatcher(model, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))


def small_sd15(dtype: torch.dtype = torch.float32) -> Any:
    """A MODEL like SD 1.x: 7 cross-attention layers of 8 heads. In every type it has the same weights, rounded."""
    return _patcher(comfy.supported_models.SD15({**_SD15_UNET, "dtype": dtype}), dtype)


def shallow_sd15(dtype: torch.dtype = torch.float32) -> Any:
    """A MODEL like SD 1.x with as few layers as one has: 3 of cross-attention."""
    return _patcher(comfy.supported_models.SD15({**_SHALLOW_UNET, "dtype": dtype}), dtype)


def small_sd15_inpainting() -> Any:
    """Its inpainting form, which sees a mask and the masked picture beside the latent."""
    return _patcher(comfy.supported_models.SD15({**_SD15_UNET, "in_channels": 9}))


def small_sd20() -> Any:
    """A MODEL like SD 2.x, which predicts v: 7 cross-attention layers of 2 and 4 heads."""

    class Small(comfy.supported_models.SD20):
        unet_extra_config: ClassVar[dict[str, Any]] = {
            **comfy.supported_models.SD20.unet_extra_config,
            "num_head_channels": 16,
        }

        def model_type(self, state_dict: Any, prefix: str = "") -> Any:
            """The host tells from a checkpoint's weights."""
            return comfy.model_base.ModelType.V_PREDICTION

    return _patcher(Small(_SD20_UNET))


def small_sdxl() -> Any:
    """A MODEL like SDXL: 11 cross-attention layers of 1 and 2 heads, with pooled conditioning."""
    return _patcher(comfy.supported_models.SDXL(_SDXL_UNET))


def small_refiner() -> Any:
    """A MODEL like SDXL's refiner: 7 cross-attention layers of 1 and 2 heads, with pooled conditioning."""
    return _patcher(comfy.supported_models.SDXLRefiner(_REFINER_UNET))


def small_clip(tokenizer: type, model: type, embeddings: Path | None = None, **tokenizer_data: Any) -> Any:
    """A CLIP with the host's real tokenizer and a text model of three narrow layers for each encoder.

    ``embeddings`` is a folder of textual inversions; ``tokenizer_data`` is what checkpoints may say of the tokenizer.
    """
    options: dict[str, Any] = {"dtype": torch.float32}
    for encoder, width in TEXT_WIDTHS.items():
        options[f"clip_{encoder}_model_config"] = {
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_attention_heads": 2,
            "num_hidden_layers": 3,
            "max_position_embeddings": tokenizer_data.get(f"clip_{encoder}_max_length", 77),
        }
    clip = comfy.sd.CLIP(
        ClipTarget(tokenizer, model),
        embedding_directory=None if embeddings is None else [str(embeddings)],
        tokenizer_data=tokenizer_data,
        model_options=options,
    )
    randomise(clip.cond_stage_model, seed=2)
    return clip


def small_clip_sd15() -> Any:
    """A CLIP for :func:`small_sd15`."""
    return small_clip(SD1Tokenizer, SD1ClipModel)


def small_clip_sd20() -> Any:
    """A CLIP for :func:`small_sd20`."""
    return small_clip(SD2Tokenizer, SD2ClipModel)


def small_clip_sdxl() -> Any:
    """A CLIP for :func:`small_sdxl`, of two encoders."""
    return small_clip(SDXLTokenizer, SDXLClipModel)


def small_clip_refiner() -> Any:
    """A CLIP for :func:`small_refiner`, of the second of SDXL's encoders."""
    return small_clip(SDXLTokenizer, SDXLRefinerClipModel)


def encoded(clip: Any, text: str) -> Conditioning:
    """What CLIP Text Encode (HRV) gives."""
    return encode_prompt(clip, text)[0]


def random_hrv(layout: HeadLayout, seed: int = 0) -> HRV:
    """An HRV of three concepts with elements from 0 to 3."""
    values = np.random.default_rng(seed).uniform(0.0, 3.0, (len(CONCEPTS), layout.head_count))
    return HRV(values.astype(np.float32), CONCEPTS, layout)


AnySetup = TypeVar("AnySetup", bound="Setup")


@dataclass(frozen=True)
class Setup:
    """A MODEL with its CLIP, an HRV for it, and two prompts."""

    model: Any
    clip: Any
    hrv: HRV
    prompt: Conditioning
    negative: Conditioning

    @classmethod
    def of(cls: type[AnySetup], model: Any, clip: Any, prompt: str) -> AnySetup:
        return cls(model, clip, random_hrv(head_layout(model)), encoded(clip, prompt), encoded(clip, "ugly, blurry"))


def latents(
    model: Any,
    positive: Conditioning,
    negative: Conditioning,
    *,
    steps: int = 3,
    cfg: float = 4.0,
    sampler: str = "euler",
    seeds: Sequence[int] = (5,),
    size: int = 8,
    callback: Callable[..., None] | None = None,
) -> torch.Tensor:
    """Sample as the host's KSampler does: latents [seeds, C, size, size], each from the noise of its own seed."""
    channels = model.get_model_object("latent_format").latent_channels
    empty = torch.zeros(len(seeds), channels, size, size)
    noise = torch.cat([comfy.sample.prepare_noise(empty[:1], seed) for seed in seeds])
    return comfy.sample.sample(
        model,
        noise,
        steps,
        cfg,
        sampler,
        "normal",
        positive,
        negative,
        empty,
        callback=callback,
        disable_pbar=True,
        seed=seeds[0],
    )


@dataclass(frozen=True)
class UNetRow:
    """One row of one call of the UNet: what it was asked for and what it gave.

    ``negative`` is whether it belongs to the second list of conditionings (the negative prompt).
    """

    step: int
    negative: bool
    context: torch.Tensor = field(repr=False)  # [T, C]
    output: torch.Tensor = field(repr=False)  # [C, h, w]


def unet_rows(
    model: Any,
    positive: Conditioning,
    negative: Conditioning,
    *,
    steps: int = 3,
    cfg: float = 4.0,
    seeds: Sequence[int] = (5,),
    size: int = 8,
) -> list[UNetRow]:
    """Every row that the UNet computes when a run evaluates it at ``steps`` noise levels of one and the same x.

    A sampler of its own: steps do not build on each other, so differences do not either.
    """
    rows: list[UNetRow] = []
    step = 0

    def watch(executor: Any, x: Any, timesteps: Any, context: Any, y: Any, control: Any, options: Any) -> Any:
        output = executor(x, timesteps, context, y, control, options)
        share = len(output) // len(options["cond_or_uncond"])
        for row, (asked, given) in enumerate(zip(context, output, strict=True)):
            rows.append(UNetRow(step, options["cond_or_uncond"][row // share] == 1, asked.clone(), given.clone()))
        return output

    def evaluate(model_k: Any, x: Any, sigmas: Any, extra_args: Any, callback: Any, disable: Any) -> Any:
        nonlocal step
        for sigma in sigmas[:-1]:
            model_k(x, sigma.expand(len(x)), **extra_args)
            step += 1
        return x

    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "watch", watch)
    guider = comfy.samplers.CFGGuider(watched)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    channels = model.get_model_object("latent_format").latent_channels
    empty = torch.zeros(len(seeds), channels, size, size)
    guider.sample(
        torch.cat([comfy.sample.prepare_noise(empty[:1], seed) for seed in seeds]),
        empty,
        comfy.samplers.KSAMPLER(evaluate),
        comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps),
        disable_pbar=True,
        seed=seeds[0],
    )
    return rows


@dataclass(frozen=True)
class Rescaling:
    """What one control shall do: rows that begin with ``context`` [T, C] get factors [H] at token positions."""

    context: torch.Tensor
    positions: tuple[int, ...]
    factors: np.ndarray
    window: tuple[float, float] = (0.0, 1.0)


def with_explicit_maps(model: Any, rescalings: Sequence[Rescaling], dtype: torch.dtype = torch.float64) -> Any:
    """A clone of a MODEL whose cross-attention forms its maps in ``dtype`` and multiplies their columns.

    It knows nothing of how controls travel: rows are recognised by their context, windows by the timestep.
    """
    layout = head_layout(model)
    clone = model.clone()

    def weigh(executor: Any, x: Any, timesteps: Any, context: Any, y: Any, control: Any, options: Any) -> Any:
        weights = torch.ones(len(context), layout.head_count, context.shape[1], dtype=torch.float64)
        for row in range(len(context)):
            progress = 1.0 - float(timesteps[row]) / 999
            for rescaling in rescalings:
                own = rescaling.context.shape[0]
                if not torch.equal(context[row, :own], rescaling.context):
                    continue
                start, end = rescaling.window
                if not (start <= progress < end or start < progress == end == 1.0):
                    continue
                for first in range(0, context.shape[1], own):
                    for position in rescaling.positions:
                        weights[row, :, first + position] *= torch.tensor(rescaling.factors)
        return executor(x, timesteps, context, y, control, {**options, "explicit_weights": weights})

    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "explicit maps", weigh)
    for layer in layout.layers:
        clone.set_model_attn2_replace(_explicit(layout, layer.key, dtype), *layer.key)
    return clone


def explicit_maps(q: torch.Tensor, k: torch.Tensor, heads: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """softmax(Q K^T / sqrt(d)) in ``dtype`` [B, heads, P, T]."""
    q, k = (part.to(dtype).unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k))
    return torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1)


def _explicit(layout: HeadLayout, key: LayerKey, dtype: torch.dtype) -> Callable[..., torch.Tensor]:
    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
        heads = extra["n_heads"]
        weights = extra["explicit_weights"][:, layout.head_slice(key), None, :].to(dtype)
        maps = explicit_maps(q, k, heads, dtype) * weights
        values = v.to(dtype).unflatten(-1, (heads, -1)).transpose(1, 2)
        return (maps @ values).transpose(1, 2).flatten(2).to(q.dtype)

    return attend


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest deviation by the largest expected number."""
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max())


def assert_rows_close(found: Sequence[UNetRow], expected: Sequence[UNetRow]) -> None:
    """Rows were asked for the same and gave the same, but for rounding."""
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert (one.step, one.negative) == (other.step, other.negative)
        assert torch.equal(one.context, other.context)
        assert relative_error(one.output, other.output) <= TOLERANCE


def picture(value: Any) -> Any:
    """A value as something that compares equal only while nothing in it has changed or been exchanged."""
    if isinstance(value, dict):
        return {key: picture(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [picture(item) for item in value]
    if isinstance(value, torch.Tensor):
        return id(value), hashlib.sha256(value.detach().numpy().tobytes()).hexdigest()
    return id(value)


def picture_of_model(model: Any) -> Any:
    """:func:`picture` of all that a MODEL carries, and of its weights when it is loaded."""
    # The host leaves a LoRA of one clone in the weights until it loads another.
    comfy.model_management.load_models_gpu([model])
    kept = ("model_options", "wrappers", "callbacks", "patches", "object_patches", "attachments", "hook_patches")
    return picture([{name: getattr(model, name) for name in kept}, dict(model.model.state_dict(keep_vars=True))])
