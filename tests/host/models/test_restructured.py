"""Transformers that other packs have restructured: what can't be used is refused in a sentence, never left out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from hrv_pack.host.building.attribution import Attribution
from hrv_pack.host.building.value_contrast import instant_hrv
from hrv_pack.host.models.architectures import architecture_of
from hrv_pack.host.models.capabilities import Capability
from hrv_pack.host.models.families.overriding import SLOT
from hrv_pack.host.models.families.transformer import Transformer
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
from hrv_pack.nodes.controls import ConceptStrengthen
from hrv_pack.tests.host.attend_and_excite.test_transformers import HRV_SUBJECTS, found_in, latents_of
from hrv_pack.tests.host.building.test_transformer_recording import clip_of, recorded
from hrv_pack.tests.host.building.test_transformers import SIGMA, pairs_of
from hrv_pack.tests.host.controls.test_transformer_readings import gates_of, reading
from hrv_pack.tests.host.controls.test_transformers import (
    WORDS,
    assert_changed,
    assert_close,
    controlled,
    rescaling,
)
from hrv_pack.tests.support.explicit_transformer_edits import edit_of
from hrv_pack.tests.support.small_host import random_hrv
from hrv_pack.tests.support.small_transformers import Kind, each_kind, explicitly, prompt, rows_of, small

EXCHANGED = r"^Another node has exchanged the attention of this model, so its heads can't be told\."
IN_ITS_OWN_WAY = r"^Another node runs the attention of this model in its own way, so .* can't act on its heads\. Ta"
NOT_SEEN = r"another node replaces (it|cross-attention)( there)? or skips the model"


def transformer(model: Any) -> Transformer:
    architecture = architecture_of(model)
    assert isinstance(architecture, Transformer)
    return architecture


class Around(torch.nn.Module):
    """A denoiser around another one, as packs have that bring kernels of their own."""

    def __init__(self, denoiser: torch.nn.Module):
        super().__init__()
        self.denoiser = denoiser


class WithoutOptions(torch.nn.Module):
    """A block around another one that drops a call's options, as forwards that packs once copied from the host do."""

    def __init__(self, block: torch.nn.Module):
        super().__init__()
        self.block = block

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("block"), name)

    def forward(self, *args: Any, transformer_options: Any, **kwargs: Any) -> Any:
        return self.block(*args, transformer_options={}, **kwargs)


def without_blocks(denoiser: Any, architecture: Transformer) -> Any:
    for name in architecture.blocks.values():
        delattr(denoiser, name)
    return denoiser


def with_empty_blocks(denoiser: Any, architecture: Transformer) -> Any:
    for name in architecture.blocks.values():
        setattr(denoiser, name, torch.nn.ModuleList())
    return denoiser


def with_one_block_for_all(denoiser: Any, architecture: Transformer) -> Any:
    for name in architecture.blocks.values():
        setattr(denoiser, name, torch.nn.ModuleList([torch.nn.Identity()]))
    return denoiser


def with_blocks_renamed(denoiser: Any, architecture: Transformer) -> Any:
    for name in architecture.blocks.values():
        setattr(denoiser, f"their_{name}", getattr(denoiser, name))
        setattr(denoiser, name, None)
    return denoiser


def with_another_attention(denoiser: Any, architecture: Transformer) -> Any:
    """In the last block, as if its heads were not known any more."""
    *_, name = architecture.blocks.values()
    *path, heads = architecture.heads.split(".")
    last = getattr(denoiser, name)[-1]
    if path:
        setattr(last, path[0], torch.nn.Identity())
    else:
        delattr(last, heads)
    return denoiser


@each_kind
@pytest.mark.parametrize(
    "change",
    [without_blocks, with_empty_blocks, with_one_block_for_all, with_blocks_renamed, with_another_attention],
    ids=lambda change: change.__name__,
)
def test_what_is_left_of_exchanged_blocks_is_refused(kind: Kind, change: Callable[..., Any]) -> None:
    model = small(kind).clone()
    model.add_object_patch("diffusion_model", change(copy.deepcopy(model.model.diffusion_model), transformer(model)))
    with pytest.raises(HRVError, match=EXCHANGED):
        head_layout(model)


@each_kind
def test_a_denoiser_around_a_known_one_is_another_model(kind: Kind) -> None:
    model = small(kind).clone()
    model.add_object_patch("diffusion_model", Around(model.model.diffusion_model))
    with pytest.raises(HRVError, match=r"^This model \(Around\) has no cross-attention heads that this pack can find"):
        head_layout(model)


@each_kind
def test_of_a_model_with_fewer_blocks_the_others_are_controlled(kind: Kind) -> None:
    """And an HRV of the whole model is refused."""
    whole, model = small(kind), kind.make(torch.float32)
    for name in transformer(model).blocks.values():
        del getattr(model.model.diffusion_model, name)[-1]
    own, negative = prompt(WORDS, seed=1), prompt(("ugly",), seed=2)
    plain = rows_of(model, own, negative, kind.latent, cfg=1.0, steps=1)
    found = rows_of(*controlled(model, own, ["car"]), negative, kind.latent, cfg=1.0, steps=1)
    assert_changed(found, plain)
    place = max(0, kind.padded_to - own[0][0].shape[1]) + 3
    with explicitly(model, kind, [rescaling(model, plain[0], (place,), steps=(0,))]) as explicit:
        assert_close(found, rows_of(explicit, own, negative, kind.latent, cfg=1.0, steps=1))
    with pytest.raises(HRVError, match=rf"HRV: {head_layout(whole).head_count} heads .*; model: "):
        ConceptStrengthen.execute(
            model=model,
            conditioning=own,
            hrv=random_hrv(head_layout(whole)),
            words="car",
            concept="Color",
            strength=1.0,
            start=0.0,
            end=1.0,
            clamp=0.0,
        )


def with_blocks_that_drop_options(model: Any) -> Any:
    """A clone of a MODEL with object patches that are there while the model runs, and not before."""
    clone, architecture = model.clone(), transformer(model)
    for name in architecture.blocks.values():
        for number, block in enumerate(getattr(model.model.diffusion_model, name)):
            clone.add_object_patch(f"diffusion_model.{name}.{number}", WithoutOptions(block))
    return clone


def controls(model: Any, kind: Kind) -> None:
    own, negative = prompt(WORDS, seed=1), prompt(("ugly",), seed=2)
    rows_of(*controlled(model, own, ["car"]), negative, kind.latent)


def readings(model: Any, kind: Kind) -> None:
    own, other = prompt(WORDS, seed=1), prompt(WORDS, seed=3)
    rows_of(*reading(model, own, other, gates_of(model)), own, kind.latent)


def edits(model: Any, kind: Kind) -> None:
    source, target = prompt(WORDS, seed=1), prompt(WORDS, seed=3)
    rows_of(*edit_of(model, kind, source, target, cross_end=1.0), source, kind.latent, seeds=(5, 5))


def causal_builds(model: Any, kind: Kind) -> None:
    Attribution(model).effects(pairs_of(kind), SIGMA)


def builds_by_weights(model: Any, kind: Kind) -> None:
    with torch.inference_mode():
        instant_hrv(model, clip_of(kind), parse_vocabulary("Color: red, blue\nShape: circle, square"), ("{word}",))


def builds_by_maps(model: Any, kind: Kind) -> None:
    with torch.inference_mode():
        recorded(model, clip_of(kind), steps=1)


def excitement(model: Any, kind: Kind) -> None:
    found_in(model, prompt(WORDS, seed=1), latents_of(kind), HRV_SUBJECTS)


USES: dict[Capability, tuple[Callable[[Any, Kind], None], str]] = {
    Capability.CONTROLS: (controls, IN_ITS_OWN_WAY),
    Capability.READING: (readings, IN_ITS_OWN_WAY),
    Capability.EDITING: (edits, IN_ITS_OWN_WAY),
    Capability.CAUSAL: (causal_builds, NOT_SEEN),
    Capability.VALUES: (builds_by_weights, NOT_SEEN),
    Capability.RECORDING: (builds_by_maps, NOT_SEEN),
    Capability.EXCITEMENT: (excitement, NOT_SEEN),
}


@each_kind
@pytest.mark.parametrize("capability", USES, ids=lambda capability: capability.value)
def test_blocks_that_are_exchanged_while_the_model_runs_are_told(kind: Kind, capability: Capability) -> None:
    use, sentence = USES[capability]
    with pytest.raises(HRVError, match=sentence):
        use(with_blocks_that_drop_options(small(kind)), kind)
    use(small(kind), kind)


@each_kind
def test_a_slot_that_another_pack_empties_while_the_model_runs_is_told(kind: Kind) -> None:
    model, own = small(kind), prompt(WORDS, seed=1)

    def emptied(executor: Any, *args: Any, **kwargs: Any) -> Any:
        """Families take the options by place or by name."""
        every = [*args, *kwargs.values()]
        (options,) = (one for one in every if isinstance(one, dict) and SLOT in one)
        del options[SLOT]
        return executor(*args, **kwargs)

    graph = controlled(model, own, ["car"])
    graph[0].add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "another pack", emptied)
    with pytest.raises(HRVError, match=IN_ITS_OWN_WAY):
        rows_of(*graph, own, kind.latent)
