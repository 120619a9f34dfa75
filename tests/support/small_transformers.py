"""Small transformers of the host's own classes with random weights, and what their attention computes, explicitly.

Imported as ``hrv_pack.tests.support.small_transformers``. Prompts are random states with token maps of made-up words:
what a text encoder makes of them is another matter.
"""

from __future__ import annotations

import atexit
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import comfy.ldm.anima.model
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.text_encoders.anima
import comfy.text_encoders.flux
import comfy.text_encoders.z_image
import numpy as np
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy.samplers import KSAMPLER, CFGGuider, calculate_sigmas
from comfy.supported_models_base import ClipTarget

from ...host.models.families.overriding import SLOT
from ...host.models.layouts import head_layout
from ...host.prompts.carried import TOKEN_MAP_KEY, Conditioning
from ...hrv.heads.layout import HeadLayout
from ...hrv.prompts.tokens import PromptWord, TokenMap
from .small_host import explicit_maps, randomise

CPU = torch.device("cpu")
WIDTH = 32
"""Of the text states that prompts are made of."""

_COSMOS: dict[str, Any] = {
    "max_img_h": 240,
    "max_img_w": 240,
    "max_frames": 128,
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 128,
    "concat_padding_mask": True,
    "crossattn_emb_channels": WIDTH,
    "pos_emb_cls": "rope3d",
    "pos_emb_learnable": True,
    "pos_emb_interpolation": "crop",
    "use_adaln_lora": True,
    "adaln_lora_dim": 16,
    "num_blocks": 3,
    "num_heads": 4,
    "mlp_ratio": 2.0,
}
_LUMINA: dict[str, Any] = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": 96,
    "cap_feat_dim": WIDTH,
    "n_layers": 3,
    "n_refiner_layers": 1,
    "qk_norm": True,
    "n_heads": 4,
    "axes_dims": [8, 8, 8],
    "axes_lens": [300, 512, 512],
    "multiple_of": 16,
}
_OF_Z_IMAGE: dict[str, Any] = {
    "dim": 256,  # of what modulates
    "axes_dims": [16, 24, 24],
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}
_FLUX: dict[str, Any] = {
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "vec_in_dim": 16,
    "context_in_dim": WIDTH,
    "hidden_size": 96,
    "mlp_ratio": 2.0,
    "num_heads": 4,
    "depth": 2,
    "depth_single_blocks": 2,
    "axes_dim": [8, 8, 8],
    "theta": 10_000,
    "qkv_bias": True,
    "guidance_embed": True,
    "txt_ids_dims": [],
}
_OF_FLUX_2: dict[str, Any] = {
    "image_model": "flux2",
    "in_channels": 128,
    "out_channels": 128,
    "patch_size": 1,
    "vec_in_dim": None,
    "axes_dim": [6, 6, 6, 6],
    "txt_ids_dims": [3],
    "global_modulation": True,
    "mlp_silu_act": True,
    "qkv_bias": False,
    "ops_bias": False,
}
_CHROMA: dict[str, Any] = {
    **{name: value for name, value in _FLUX.items() if name != "guidance_embed"},
    "image_model": "chroma",
    "in_channels": 64,
    "out_channels": 64,
    "in_dim": 64,
    "out_dim": 96,
    "hidden_dim": 32,
    "n_layers": 1,
}
_WAN: dict[str, Any] = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "in_dim": 16,
    "dim": 96,
    "ffn_dim": 128,
    "text_dim": WIDTH,
    "num_heads": 4,
    "num_layers": 3,
}
_QWEN_IMAGE: dict[str, Any] = {
    "image_model": "qwen_image",
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 3,
    "attention_head_dim": 24,
    "num_attention_heads": 4,
    "joint_attention_dim": WIDTH,
    "axes_dims_rope": (8, 8, 8),
}


@dataclass(frozen=True)
class Kind:
    """A small transformer: how to make it, the shape of its latents, and where its text and image stand.

    ``attentions`` are its modules in which the image attends to the text, in order. ``image_start`` is the first query
    of the image behind so many tokens of text, None if all queries are the image's. The host pads shorter texts on the
    left, up to ``padded_to`` tokens.
    """

    name: str
    make: Callable[[torch.dtype], Any]
    latent: tuple[int, ...]
    attentions: Callable[[Any], list[torch.nn.Module]]
    image_start: Callable[[int], int] | None = None
    padded_to: int = 0

    def __str__(self) -> str:
        return self.name


def _patcher(config: Any, dtype: torch.dtype) -> Any:
    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, device=CPU)
    randomise(model.diffusion_model, seed=1)
    for name, parameter in model.diffusion_model.named_parameters():
        if name.endswith(("q_norm.weight", "k_norm.weight", "query_norm.weight", "key_norm.weight", "norm_q.weight")):
            parameter.data.mul_(2.0)  # maps far from even
    return comfy.model_patcher.ModelPatcher(model, load_device=CPU, offload_device=CPU)


def making(config: type, unet_config: dict[str, Any], **more: Any) -> Callable[[torch.dtype], Any]:
    """What makes a MODEL of random weights by the host's configuration."""

    def make(dtype: torch.dtype) -> Any:
        return _patcher(config({**unet_config, **more, "dtype": dtype}), dtype)

    return make


def _anima(dtype: torch.dtype, **more: Any) -> Any:
    """With a narrow adapter: the host's is of one size."""
    narrow = functools.partial(
        comfy.ldm.anima.model.LLMAdapter, source_dim=16, target_dim=WIDTH, model_dim=WIDTH, num_layers=1, num_heads=2
    )
    with patch.object(comfy.ldm.anima.model, "LLMAdapter", narrow):
        return making(comfy.supported_models.Anima, _COSMOS, image_model="anima", **more)(dtype)


def _cross(denoiser: Any) -> list[torch.nn.Module]:
    return [block.cross_attn for block in denoiser.blocks]


def _layers(denoiser: Any) -> list[torch.nn.Module]:
    return [layer.attention for layer in denoiser.layers]


def _both(denoiser: Any) -> list[torch.nn.Module]:
    return [*denoiser.double_blocks, *denoiser.single_blocks]


def _blocks(denoiser: Any) -> list[torch.nn.Module]:
    return [block.attn for block in denoiser.transformer_blocks]


def _at_once(tokens: int) -> int:
    return tokens


_MODELS = comfy.supported_models
ANIMA = Kind("Anima", _anima, (16, 1, 8, 8), _cross)
COSMOS = Kind(
    "Cosmos-Predict2", making(_MODELS.CosmosT2IPredict2, _COSMOS, image_model="cosmos_predict2"), (16, 1, 8, 8), _cross
)
Z_IMAGE = Kind(
    "Z-Image",
    making(_MODELS.ZImage, _LUMINA, **_OF_Z_IMAGE),
    (16, 8, 8),
    _layers,
    lambda tokens: -(-tokens // 32) * 32,
)
LUMINA_2 = Kind("Lumina 2", making(_MODELS.Lumina2, _LUMINA, n_kv_heads=2), (16, 8, 8), _layers, _at_once)
FLUX = Kind("Flux.1", making(_MODELS.Flux, _FLUX), (16, 8, 8), _both, _at_once)
FLUX_2 = Kind("Flux.2", making(_MODELS.Flux2, _FLUX, **_OF_FLUX_2), (128, 4, 4), _both, _at_once, padded_to=512)
CHROMA = Kind("Chroma", making(_MODELS.Chroma, _CHROMA), (16, 8, 8), _both, _at_once)
WAN = Kind("Wan", making(_MODELS.WAN21_T2V, _WAN), (16, 2, 8, 8), _cross)
WAN_FROM_IMAGES = Kind("Wan from images", making(_MODELS.WAN21_I2V, _WAN, model_type="i2v"), (16, 2, 8, 8), _cross)
QWEN_IMAGE = Kind("Qwen-Image", making(_MODELS.QwenImage, _QWEN_IMAGE), (16, 1, 8, 8), _blocks, _at_once)

# Of one layer each, for what takes long for every layer.
SHALLOW_ANIMA = replace(ANIMA, make=functools.partial(_anima, num_blocks=1))
SHALLOW_FLUX = replace(FLUX, make=making(_MODELS.Flux, _FLUX, depth=1, depth_single_blocks=1))
SHALLOW_Z_IMAGE = replace(Z_IMAGE, make=making(_MODELS.ZImage, _LUMINA, **_OF_Z_IMAGE, n_layers=1))

KINDS = (ANIMA, COSMOS, Z_IMAGE, LUMINA_2, FLUX, FLUX_2, CHROMA, WAN, QWEN_IMAGE)


each_kind = pytest.mark.parametrize("kind", KINDS, ids=str)
one_of_each = pytest.mark.parametrize("kind", [ANIMA, FLUX], ids=str)
"""With attention to the text in a layer of its own, and together with the image's."""


@functools.cache
def small(kind: Kind, dtype: torch.dtype = torch.float32) -> Any:
    """A MODEL of a kind; the same weights in every type, rounded. Tests share it and don't change it."""
    return kind.make(dtype)


def prompt(
    words: Sequence[str], seed: int, tokens: int = 9, rows: int = 1, width: int = WIDTH, **extras: Any
) -> Conditioning:
    """A conditioning of so many tokens whose words are the first of them, one token each, behind a first token."""
    generator = torch.Generator().manual_seed(seed)
    own = {"pooled_output": torch.randn(rows, 16, generator=generator), "guidance": 3.5, **extras}
    placed = tuple(PromptWord(word, (number,)) for number, word in enumerate(words, start=1))
    own[TOKEN_MAP_KEY] = TokenMap(" ".join(words), placed, tokens)
    return [[torch.randn(rows, tokens, width, generator=generator), own]]


@dataclass(frozen=True)
class Row:
    """One row of one call of a denoiser: what it was asked for and what it gave, at which step."""

    step: int
    negative: bool
    context: torch.Tensor = field(repr=False)  # [T, C], as the model gets it
    output: torch.Tensor = field(repr=False)


def rows_of(
    model: Any,
    positive: Conditioning,
    negative: Conditioning,
    latent: tuple[int, ...],
    *,
    cfg: float = 4.0,
    seeds: Sequence[int] = (5,),
    steps: int = 2,
) -> list[Row]:
    """Every row that a model computes when a run evaluates it at ``steps`` noise levels of one and the same x."""
    rows: list[Row] = []
    given: list[torch.Tensor] = []
    step = 0

    def watch(executor: Any, x: Any, t: Any, c_concat: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
        result = executor(x, t, c_concat, context, *args, **kwargs)
        lists, output = args[1]["cond_or_uncond"], given.pop()
        share = len(output) // len(lists)
        for row, (asked, of_row) in enumerate(zip(context, output, strict=True)):
            rows.append(Row(step, lists[row // share] == 1, asked.clone(), of_row.clone()))
        return result

    def keep(executor: Any, *args: Any, **kwargs: Any) -> Any:
        given.append(executor(*args, **kwargs))
        return given[-1]

    def evaluate(model_k: Any, x: Any, sigmas: Any, extra_args: Any, callback: Any, disable: Any) -> Any:
        nonlocal step
        for sigma in sigmas[:-1]:
            model_k(x, sigma.expand(len(x)), **extra_args)
            step += 1
        return x

    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "watch", watch)
    watched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "keep", keep)
    guider = CFGGuider(watched)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    noise = torch.cat([torch.randn(1, *latent, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    sigmas = calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)
    # As the host's executor runs nodes: Anima makes its text then, before the model is called.
    with torch.inference_mode():
        guider.sample(noise, torch.zeros_like(noise), KSAMPLER(evaluate), sigmas, disable_pbar=True, seed=seeds[0])
    return rows


@dataclass(frozen=True)
class Rescaling:
    """What a control shall do: rows with ``context`` [T, C] get factors [H] at token positions, in these steps."""

    context: torch.Tensor
    positions: tuple[int, ...]
    factors: np.ndarray
    steps: tuple[int, ...] = (0, 1)


def _weights(
    layout: HeadLayout,
    layer: int,
    keys: int,
    kind: Kind,
    contexts: Sequence[torch.Tensor],
    rescalings: Sequence[Rescaling],
    step: int,
) -> torch.Tensor:
    """What columns of a layer's maps are multiplied by, float64 [B, heads, keys]."""
    found = torch.ones(len(contexts), layout.layers[layer].heads, keys, dtype=torch.float64)
    if kind.image_start is None and keys != len(contexts[0]):
        return found  # models that start from an image read its features too, in the same module
    for row, context in enumerate(contexts):
        for rescaling in rescalings:
            if torch.equal(context, rescaling.context) and step in rescaling.steps:
                of_layer = torch.tensor(rescaling.factors[layout.head_slice(layout.layers[layer].key)])
                for position in rescaling.positions:
                    found[row, :, position] *= of_layer
    return found


@contextmanager
def attending(
    model: Any,
    kind: Kind,
    attend: Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor | None],
    others: Sequence[torch.nn.Module] = (),
) -> Iterator[Any]:
    """A clone of a MODEL whose layers in which the image attends to the text do it by a function.

    It is given the layer's number, told by the modules that run, and q, k and v [B, L, heads x d], and gives what is
    found [B, L, heads x d], or None to leave it to the host. ``others`` of its modules do it too, numbered behind the
    layers.
    """
    now: list[int] = []

    def override(attention: Any, q: Any, k: Any, v: Any, *args: Any, **kwargs: Any) -> Any:
        found = None
        if now:
            flat = (part.transpose(1, 2).flatten(2) if kwargs.get("skip_reshape") else part for part in (q, k, v))
            found = attend(now[-1], *flat)
        return attention(q, k, v, *args, **kwargs) if found is None else found

    clone = model.clone()
    clone.model_options["transformer_options"][SLOT] = override
    hooks = []
    for number, module in enumerate([*kind.attentions(model.model.diffusion_model), *others]):
        hooks.append(module.register_forward_pre_hook(lambda *_, number=number: now.append(number)))
        hooks.append(module.register_forward_hook(lambda *_: now.clear()))
    try:
        yield clone
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def explicitly(model: Any, kind: Kind, rescalings: Sequence[Rescaling]) -> Iterator[Any]:
    """A clone of a MODEL whose layers form their maps in float64 and multiply the text's columns for image queries.

    It knows nothing of how controls travel: layers are told by the modules that run, rows by their context.
    """
    layout = head_layout(model)
    contexts: list[torch.Tensor] = []
    sigmas: list[float] = []

    def note(executor: Any, x: Any, t: Any, c_concat: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
        contexts[:] = list(context)
        if not sigmas or sigmas[-1] != float(t[0]):
            sigmas.append(float(t[0]))
        return executor(x, t, c_concat, context, *args, **kwargs)

    def attend(number: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        heads = layout.layers[number].heads
        maps = explicit_maps(q, k, heads)
        values = v.double().unflatten(-1, (heads, -1)).transpose(1, 2)
        start = kind.image_start(contexts[0].shape[0]) if kind.image_start else 0
        scaled = (
            maps[:, :, start:]
            * _weights(layout, number, k.shape[1], kind, contexts, rescalings, len(sigmas) - 1)[:, :, None]
        )
        found = torch.cat([maps[:, :, :start], scaled], dim=2) @ values
        return found.transpose(1, 2).flatten(2).to(q.dtype)

    with attending(model, kind, attend) as clone:
        clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "note", note)
        yield clone


def _small_clip(tokenizer: type, model: type, **sizes: dict[str, int]) -> Any:
    """A CLIP with the host's real tokenizers and narrow text models of two layers."""
    options = {f"{encoder}_model_config": size for encoder, size in sizes.items()}
    clip = comfy.sd.CLIP(ClipTarget(tokenizer, model), model_options={"dtype": torch.float32, **options})
    randomise(clip.cond_stage_model, seed=2)
    return clip


def clip_flux(width: int) -> Any:
    """A CLIP with T5, whose states have so many features, and CLIP for the pooled vector."""
    return _small_clip(
        comfy.text_encoders.flux.FluxTokenizer,
        comfy.text_encoders.flux.flux_clip(),
        clip_l={"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2},
        t5xxl={"d_ff": 32, "d_kv": 16, "d_model": width, "num_heads": 2, "num_layers": 2},
    )


def clip_anima(width: int) -> Any:
    """A CLIP with Qwen, whose states have so many features, and T5's tokens."""
    size = {"hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return _small_clip(
        comfy.text_encoders.anima.AnimaTokenizer,
        comfy.text_encoders.anima.te(),
        qwen3_06b={**size, "num_key_value_heads": 1},
    )


@functools.cache
def small_clip_z_image() -> Any:
    """A CLIP for :data:`Z_IMAGE`: Qwen."""
    size = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    return _small_clip(
        comfy.text_encoders.z_image.ZImageTokenizer,
        comfy.text_encoders.z_image.te(),
        qwen3_4b={**size, "num_key_value_heads": 1},
    )


@functools.cache
def small_clip_flux() -> Any:
    """A CLIP for :data:`FLUX`, and a stand-in for all others that read so many features."""
    return clip_flux(WIDTH)


@functools.cache
def small_clip_anima() -> Any:
    """A CLIP for :data:`ANIMA`."""
    return clip_anima(16)


# Models that live until the interpreter ends would be taken down after the host's modules.
for _kept in (small, small_clip_flux, small_clip_anima, small_clip_z_image):
    atexit.register(_kept.cache_clear)


def with_changed_weight(model: Any) -> Any:
    """A clone of a MODEL with a patch like a LoRA's on a weight of its attention."""
    patched = model.clone()
    changed = ("v_proj.weight", "attn.qkv.weight", "attention.qkv.weight", "cross_attn.v.weight", "attn.to_v.weight")
    name, weight = next(one for one in model.model.named_parameters() if one[0].endswith(changed))
    difference = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
    patched.add_patches({name: ("diff", (difference,))})
    return patched


def with_changed_clip(clip: Any) -> Any:
    """A clone of a CLIP with a patch like a LoRA's on a weight of each text encoder's attention."""
    patched = clip.clone()
    weights = dict(clip.cond_stage_model.named_parameters())
    generator = torch.Generator().manual_seed(4)
    changed = [name for name in weights if name.endswith(("SelfAttention.v.weight", "v_proj.weight"))]
    assert changed
    patched.add_patches({name: ("diff", (torch.randn(weights[name].shape, generator=generator),)) for name in changed})
    return patched


def with_backend(model: Any) -> tuple[Any, list[int]]:
    """A clone of a MODEL with another pack's attention in the host's slot, as sage and flash selectors put one there.

    It does what the host does, and notes the rows of each call.
    """
    calls: list[int] = []

    def backend(attention: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(len(args[0]))
        found: torch.Tensor = attention(*args, **kwargs)
        return found

    clone = model.clone()
    clone.model_options["transformer_options"][SLOT] = backend
    return clone, calls
