"""The adapter of a model's architecture: what it says of the model is what the host does with it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import pytest
import torch
from hrv_pack.host.models import architectures
from hrv_pack.host.models.architectures import UNREACHABLE, architecture_of, unet_of
from hrv_pack.host.models.capabilities import Capability
from hrv_pack.host.models.families.architecture import Architecture
from hrv_pack.host.models.families.attention_call import Wrap
from hrv_pack.host.models.families.replacers import LayerWrapping, Replacer, ReplacerKey, plain_attention
from hrv_pack.host.models.families.unet import UNet
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.tests.support.documented_families import UNET, documented, short_table
from hrv_pack.tests.support.oracles import OF_TRANSFORMERS, OF_UNETS, kinds_of
from hrv_pack.tests.support.small_host import small_sd15, small_sd20, small_sdxl
from hrv_pack.tests.support.small_transformers import Kind, each_kind, small
from pack_import import PACK_ROOT

MODELS: list[Callable[[], Any]] = [small_sd15, small_sd20, small_sdxl]
each_model = pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)


def once_through(model: Any, options: dict[str, Any], kind: str) -> dict[int, torch.Tensor]:
    """The queries, by the id of a layer's module, that ``kind`` ("attn1", "attn2") projects in one pass."""
    unet = model.model.diffusion_model
    found: dict[int, torch.Tensor] = {}
    hooks = [
        part.to_q.register_forward_hook(lambda _, __, made, part=part: found.update({id(part): made}))
        for name, part in unet.named_modules()
        if name.endswith(f".{kind}")
    ]
    config = model.model.model_config.unet_config
    classes = torch.zeros(1, config["adm_in_channels"]) if config.get("adm_in_channels") else None
    x, context = torch.ones(1, config["in_channels"], 16, 16), torch.ones(1, 77, config["context_dim"])
    with torch.no_grad():
        unet(x, torch.tensor([500.0]), context=context, y=classes, transformer_options=options)
    for hook in hooks:
        hook.remove()
    return found


@each_model
def test_modules_and_layout_speak_of_the_same_layers(make: Any) -> None:
    architecture = unet_of(make())
    assert [layer.key for layer in architecture.layout.layers] == list(architecture.cross_attention)
    for layer, module in zip(architecture.layout.layers, architecture.cross_attention.values(), strict=True):
        width = layer.heads * module.dim_head
        assert layer.heads == module.heads
        q, k, v = (next(part.parameters()).shape for part in (module.to_q, module.to_k, module.to_v))
        assert q[0] == k[0] == width and k == v


@each_model
@pytest.mark.parametrize("kind", ["attn1", "attn2"])
def test_of_the_replacers_at_a_layers_keys_the_host_calls_the_first(make: Any, kind: str) -> None:
    model = make()
    architecture = unet_of(model)
    modules = {layer.key: architecture.cross_attention[layer.key] for layer in architecture.layout.layers}
    if kind == "attn1":
        names = dict(model.model.diffusion_model.named_modules())
        place = {id(part): name for name, part in names.items()}
        modules = {key: names[place[id(part)].replace("attn2", "attn1")] for key, part in modules.items()}
    for number in range(len(architecture.replacer_keys(architecture.layout.layers[0]))):
        keys = {layer.key: architecture.replacer_keys(layer)[number:] for layer in architecture.layout.layers}
        called: dict[ReplacerKey, list[torch.Tensor]] = {}
        replacers = {key: listening(key, called) for each in keys.values() for key in each}
        queries = once_through(model, {"patches_replace": {kind: replacers}}, kind)
        assert called.keys() == {each[0] for each in keys.values()}
        for layer, (first, *_) in keys.items():
            assert any(q is queries[id(modules[layer])] for q in called[first])


def listening(key: ReplacerKey, called: dict[ReplacerKey, list[torch.Tensor]]) -> Replacer:
    """A replacer that keeps the queries it gets."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
        called.setdefault(key, []).append(q)
        return plain_attention(q, k, v, extra)

    return attend


@each_model
def test_every_layer_is_inside_a_block_that_is_run_again_for_gradients(make: Any) -> None:
    model = make()
    architecture = unet_of(model)
    blocks = [part for part in model.model.diffusion_model.modules() if isinstance(part, architecture.checkpointed)]
    inside = {id(part) for block in blocks for part in block.modules()}
    assert all(id(module) in inside for module in architecture.cross_attention.values())


class Pixels(torch.nn.Module):
    """A denoiser of a family of its own, with one layer that reads text."""


class OtherFamily(Architecture):
    name = "pixels"
    supported = "models of pixels: this one"
    capabilities = frozenset({Capability.CONTROLS})
    checkpointed = (torch.nn.Linear,)

    @classmethod
    def adapts(cls, denoiser: Any) -> bool:
        return isinstance(denoiser, Pixels)

    @cached_property
    def layout(self) -> HeadLayout:
        return HeadLayout((AttentionLayer("middle", 0, 0, heads=2),))

    def written(self, layer: AttentionLayer, found: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def wrapping(self, wrap: Wrap) -> LayerWrapping:
        raise NotImplementedError

    def wrapping_itself(self, wrap: Wrap) -> None:
        raise NotImplementedError

    def places(self, latent: Sequence[int], options: Mapping[str, Any]) -> tuple[int, ...]:
        raise NotImplementedError


def with_denoiser(denoiser: torch.nn.Module) -> Any:
    model = small_sd15()
    model.add_object_patch("diffusion_model", denoiser)
    return model


def test_the_class_of_the_denoiser_chooses_the_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "FAMILIES", (UNet, OtherFamily))
    found = architecture_of(with_denoiser(Pixels()))
    assert isinstance(found, OtherFamily) and found.layout.describe() == ("2 heads in 1 cross-attention layer (1 mid)")
    assert isinstance(architecture_of(small_sd15()), UNet)


def test_what_a_family_lacks_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "FAMILIES", (UNet, OtherFamily))
    model = with_denoiser(Pixels())
    assert isinstance(architecture_of(model, Capability.CONTROLS), OtherFamily)
    with pytest.raises(HRVError) as told:
        architecture_of(model, Capability.EXCITEMENT)
    assert str(told.value) == "Attend and Excite isn't available for pixels yet, only for the UNet of Stable Diffusion."


def test_who_comes_with_another_architecture_is_told_which_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model = with_denoiser(Pixels())
    with pytest.raises(HRVError) as told:
        architecture_of(model)
    assert str(told.value) == (
        "This model (Pixels) has no cross-attention heads that this pack can find. Supported are models with the "
        "UNet of Stable Diffusion: SD 1.x, SD 2.x, SDXL and its refiner, pruned variants of these, and HRV-mini; "
        "Anima; Cosmos-Predict2; Z-Image; Lumina 2; Flux.2; Flux.1; Chroma; Wan 2.1 and 2.2; Qwen-Image."
    )
    monkeypatch.setattr(architectures, "FAMILIES", (UNet, OtherFamily))
    with pytest.raises(HRVError, match=r"and HRV-mini; models of pixels: this one\.$"):
        architecture_of(with_denoiser(torch.nn.Linear(1, 1)))


@pytest.mark.parametrize(
    ("denoiser", "sentence"),
    [
        ("comfy.ldm.pixart.pixartms.PixArtMS", "PixArt can't be used with HRVs: ComfyUI calls its attention without"),
        (
            "comfy.ldm.hydit.models.HunYuanDiT",
            "HunyuanDiT can't be used with HRVs: ComfyUI calls its attention without",
        ),
        ("comfy.ldm.ernie.model.ErnieImageModel", "ERNIE-Image can't be used with HRVs: ComfyUI calls its attention"),
        (
            "comfy.ldm.modules.diffusionmodules.mmdit.OpenAISignatureMMDITWrapper",
            "Stable Diffusion 3 can't be used with HRVs: its text has each word twice",
        ),
    ],
)
def test_of_what_cannot_be_reached_the_reason_is_said(denoiser: str, sentence: str) -> None:
    """By the host's own classes."""
    module, _, name = denoiser.rpartition(".")
    made = getattr(importlib.import_module(module), name).__new__(getattr(importlib.import_module(module), name))
    torch.nn.Module.__init__(made)
    with pytest.raises(HRVError, match=f"^{sentence}"):
        architecture_of(with_denoiser(made))
    assert UNREACHABLE.keys() >= {name} and len(UNREACHABLE) == 4


@pytest.mark.parametrize("family", architectures.FAMILIES, ids=lambda family: family.name)
def test_a_family_is_said_to_do_what_tests_pass_with_it_and_nothing_else(family: type[Architecture]) -> None:
    """What is documented is what it is said to do."""
    passed = {
        capability
        for capability, test in (OF_UNETS if family is UNet else OF_TRANSFORMERS).items()
        if family is UNet or family.name in {kind.name for kind in kinds_of(test)}
    }
    assert passed == family.capabilities


def test_the_documents_say_what_each_family_can_do() -> None:
    for family, told in zip(architectures.FAMILIES, documented().items(), strict=True):
        name, (_, capabilities) = told
        assert name == (UNET if family is UNet else family.name)
        assert capabilities == [one.value for one in Capability if one in family.capabilities]
    assert short_table() in (PACK_ROOT / "README.md").read_text(encoding="utf-8")


@each_kind
def test_every_layer_of_a_transformer_is_a_module_that_is_run_again_for_gradients(kind: Kind) -> None:
    model = small(kind)
    architecture = architecture_of(model)
    blocks = [part for part in model.model.diffusion_model.modules() if isinstance(part, architecture.checkpointed)]
    inside = {id(part) for block in blocks for part in block.modules()}
    attentions = kind.attentions(model.model.diffusion_model)
    assert len(attentions) == len(architecture.layout.layers) and all(id(part) in inside for part in attentions)
    assert architecture.name == kind.name


def test_a_unet_that_reads_no_text_is_told_the_same() -> None:
    model = small_sd15()
    for part in list(model.model.diffusion_model.modules()):
        if hasattr(part, "transformer_blocks"):
            part.transformer_blocks = torch.nn.ModuleList()
    with pytest.raises(HRVError, match=r"This model \(UNetModel\) has no cross-attention heads"):
        architecture_of(model)
