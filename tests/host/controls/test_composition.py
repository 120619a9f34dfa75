"""Controls beside what else the host offers: both in effect, whichever node came first.

Every case is compared with the same thing on a model that multiplies explicit float64 maps, and has to differ from
each of the two alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import comfy.cldm.cldm
import comfy.conds
import comfy.controlnet
import comfy.hooks
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import node_helpers
import pytest
import torch
from comfy.ldm.modules.attention import REGISTERED_ATTENTION_FUNCTIONS
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras.nodes_attention_multiply import UNetCrossAttentionMultiply, UNetSelfAttentionMultiply
from comfy_extras.nodes_cfg import CFGZeroStar
from comfy_extras.nodes_freelunch import FreeU, FreeU_V2
from comfy_extras.nodes_hooks import (
    ConditioningSetProperties,
    CreateHookKeyframe,
    PairConditioningSetDefaultAndCombine,
    SetHookKeyframes,
)
from comfy_extras.nodes_hypernetwork import load_hypernetwork_patch
from comfy_extras.nodes_hypertile import HyperTile
from comfy_extras.nodes_model_advanced import RescaleCFG
from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
from comfy_extras.nodes_nag import NAGuidance
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_sag import SelfAttentionGuidance
from comfy_extras.nodes_tomesd import TomePatchModel
from hrv_pack.host.models.architectures import unet_of
from hrv_pack.nodes.controls import ConceptStrengthen
from hrv_pack.tests.support.compiling import compiled_and_counted
from hrv_pack.tests.support.small_host import (
    Rescaling,
    Setup,
    encoded,
    latents,
    randomise,
    relative_error,
    shallow_sd15,
    small_clip_sd15,
    small_sd15,
    small_sd15_inpainting,
    with_explicit_maps,
)

from nodes import ConditioningAverage, ConditioningZeroOut, ControlNetApplyAdvanced

RED = (2,)
# Steps carry the rounding of the steps before.
TOLERANCE = 1e-4

Graph = tuple[Any, Any, Any]


@dataclass(frozen=True)
class Composed(Setup):
    @property
    def graph(self) -> Graph:
        return self.model, self.prompt, self.negative

    def controlled(self, graph: Graph) -> Graph:
        """Behind Apply Concept Strengthen."""
        model, positive, negative = graph
        model, positive = ConceptStrengthen.execute(
            model=model,
            conditioning=positive,
            hrv=self.hrv,
            words="red",
            concept="Color",
            strength=1.0,
            start=0.0,
            end=0.8,
            clamp=0.0,
        ).result
        return model, positive, negative

    def explicit(self, context: torch.Tensor | None = None, dtype: torch.dtype = torch.float64) -> Graph:
        """The same control on explicit maps, of rows with this context (the prompt's own by default)."""
        rows = self.prompt[0][0][0] if context is None else context
        rescaling = Rescaling(rows, RED, self.hrv.row("Color"), (0.0, 0.8))
        return with_explicit_maps(self.model, [rescaling], dtype), self.prompt, self.negative


@pytest.fixture(scope="module")
def setup() -> Composed:
    return Composed.of(small_sd15(), small_clip_sd15(), "a red car")


@pytest.fixture(scope="module")
def shallow() -> Composed:
    """For what goes through every layer alike and takes long, as compilers do."""
    return Composed.of(shallow_sd15(), small_clip_sd15(), "a red car")


def on_model(change: Callable[[Any], Any]) -> Callable[[Graph], Graph]:
    """A node that takes the MODEL alone."""
    return lambda graph: (change(graph[0]), *graph[1:])


def v3(node: Any, **inputs: Any) -> Callable[[Graph], Graph]:
    return on_model(lambda model: node.execute(model=model, **inputs).result[0])


def random_lora(model: Any, *layers: str) -> dict[str, torch.Tensor]:
    """A LoRA of rank 2 under the names of its file."""
    generator = torch.Generator().manual_seed(4)
    weights = {}
    for layer in layers:
        outputs, inputs = model.model.state_dict()[f"diffusion_model.{layer}.weight"].shape
        name = "lora_unet_" + layer.replace(".", "_")
        weights[f"{name}.lora_up.weight"] = torch.randn(outputs, 2, generator=generator)
        weights[f"{name}.lora_down.weight"] = torch.randn(2, inputs, generator=generator)
    return weights


TO_V = "middle_block.1.transformer_blocks.0.attn2.to_v"


def with_lora(graph: Graph) -> Graph:
    model = graph[0]
    return comfy.sd.load_lora_for_models(model, None, random_lora(model, TO_V), 1.0, 0.0)[0], *graph[1:]


def with_lora_hook(graph: Graph) -> Graph:
    """A LoRA on the positive prompt alone, at three strengths through the run."""
    model, positive, negative = graph
    hooks = comfy.hooks.create_hook_lora(random_lora(model, TO_V), 1.0, 0.0)
    frames = None
    for strength, start in ((0.2, 0.0), (1.0, 0.4), (0.5, 0.7)):
        (frames,) = CreateHookKeyframe().create_hook_keyframe(strength, start, frames)
    (hooks,) = SetHookKeyframes().set_hook_keyframes(hooks, frames)
    (positive,) = ConditioningSetProperties().set_properties(positive, 1.0, "default", hooks=hooks)
    return model, positive, negative


def with_hypernetwork(graph: Graph, folder: Any) -> Graph:
    """A hypernetwork of the host's own format, for the width of the text encoder."""
    width = graph[1][0][0].shape[-1]
    generator = torch.Generator().manual_seed(9)
    parts = {
        f"linear.{number}.{kind}": torch.randn(*shape, generator=generator) * 0.1
        for number in (0, 1)
        for kind, shape in (("weight", (width, width)), ("bias", (width,)))
    }
    path = folder / "hypernetwork.pt"
    torch.save({"activation_func": "linear", "is_layer_norm": False, "use_dropout": False, width: [parts, parts]}, path)
    patch = load_hypernetwork_patch(str(path), 1.0)
    model = graph[0].clone()
    model.set_model_attn1_patch(patch)
    model.set_model_attn2_patch(patch)
    return model, *graph[1:]


def with_controlnet(graph: Graph) -> Graph:
    """The host's ControlNet in the model's own layout, with random weights."""
    model, positive, negative = graph
    config = {
        key: value
        for key, value in model.model.model_config.unet_config.items()
        if key not in ("out_channels", "transformer_depth_output", "legacy", "dtype")
    }
    network = comfy.cldm.cldm.ControlNet(
        **config, legacy=False, hint_channels=3, dtype=torch.float32, operations=comfy.ops.disable_weight_init
    )
    randomise(network, seed=6)
    control = comfy.controlnet.ControlNet(network, load_device=torch.device("cpu"), manual_cast_dtype=None)
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(7))
    return model, *ControlNetApplyAdvanced().apply_controlnet(positive, negative, control, image, 0.3, 0.0, 1.0)


def in_tiles(graph: Graph) -> Graph:
    """Tiled diffusion's way: a wrapper around the model that calls it for each half of the latent."""

    def tiled(apply_model: Any, call: Any) -> torch.Tensor:
        halves = [apply_model(half, call["timestep"], **call["c"]) for half in call["input"].chunk(2, dim=-1)]
        return torch.cat(halves, dim=-1)

    model = graph[0].clone()
    model.set_model_unet_function_wrapper(tiled)
    return model, *graph[1:]


def with_backend(name: str) -> Callable[[Graph], Graph]:
    """An attention backend chosen the way that selector nodes choose it."""

    def choose(model: Any) -> Any:
        clone = model.clone()
        backend = REGISTERED_ATTENTION_FUNCTIONS[name]
        clone.model_options["transformer_options"]["optimized_attention_override"] = lambda _, *a, **k: backend(*a, **k)
        return clone

    return on_model(choose)


def compiled(graph: Graph) -> Graph:
    """Torch Compile, with the backend that needs no compiler on the machine."""
    model = graph[0].clone()
    set_torch_compile_wrapper(model, "eager")
    return model, *graph[1:]


WITH_OTHERS: dict[str, Callable[[Graph], Graph]] = {
    "LoRA": with_lora,
    "LoRA hook with keyframes": with_lora_hook,
    "ControlNet": with_controlnet,
    "FreeU": v3(FreeU, b1=1.1, b2=1.2, s1=0.9, s2=0.2),
    "FreeU V2": v3(FreeU_V2, b1=1.3, b2=1.4, s1=0.9, s2=0.2),
    "PAG": v3(PerturbedAttentionGuidance, scale=3.0),
    "SAG": v3(SelfAttentionGuidance, scale=0.5, blur_sigma=2.0),
    "NAG": v3(NAGuidance, nag_scale=5.0, nag_alpha=0.5, nag_tau=1.5),
    "cross-attention multiply": v3(UNetCrossAttentionMultiply, q=1.2, k=1.1, v=0.9, out=1.1),
    "self-attention multiply": v3(UNetSelfAttentionMultiply, q=1.2, k=1.1, v=0.9, out=1.1),
    # A swap size of 1 leaves one way to cut into tiles; more draws it at random.
    "hypertile": on_model(lambda model: HyperTile.execute(model, 32, 1, 0, False)[0]),
    "token merging": v3(TomePatchModel, ratio=0.4),
    "deep shrink": v3(
        PatchModelAddDownscale,
        block_number=2,
        downscale_factor=2.0,
        start_percent=0.0,
        end_percent=0.6,
        downscale_after_skip=True,
        downscale_method="bilinear",
        upscale_method="bilinear",
    ),
    "rescale CFG": on_model(lambda model: RescaleCFG().patch(model, 0.7)[0]),
    "CFG zero star": v3(CFGZeroStar),
    "tiles": in_tiles,
}

# What computes the same in another way, so that it cannot be told from the plain model.
SAME_RESULT: dict[str, Callable[[Graph], Graph]] = {
    **{f"{name} attention": with_backend(name) for name in ("split", "sub_quad", "pytorch")},
    "torch.compile": compiled,
}


def assert_both_in_effect(setup: Composed, other: Callable[[Graph], Graph]) -> None:
    found = latents(*other(setup.controlled(setup.graph)))
    assert torch.equal(found, latents(*setup.controlled(other(setup.graph))))
    assert relative_error(found, latents(*other(setup.explicit()))) <= TOLERANCE
    assert relative_error(found, latents(*other(setup.graph))) > 100 * TOLERANCE


@pytest.mark.parametrize("other", WITH_OTHERS.values(), ids=WITH_OTHERS.keys())
def test_controls_and_what_else_the_host_offers(setup: Composed, other: Callable[[Graph], Graph]) -> None:
    assert_both_in_effect(setup, other)
    found = latents(*other(setup.controlled(setup.graph)))
    assert relative_error(found, latents(*setup.controlled(setup.graph))) > 10 * TOLERANCE


def test_controls_and_a_hypernetwork(setup: Composed, tmp_path: Any) -> None:
    assert_both_in_effect(setup, lambda graph: with_hypernetwork(graph, tmp_path))
    plain = latents(*setup.controlled(setup.graph))
    assert relative_error(latents(*with_hypernetwork(setup.controlled(setup.graph), tmp_path)), plain) > 10 * TOLERANCE


@pytest.mark.parametrize("other", SAME_RESULT.values(), ids=SAME_RESULT.keys())
def test_every_backend_gives_the_same(shallow: Composed, other: Callable[[Graph], Graph]) -> None:
    found = latents(*other(shallow.controlled(shallow.graph)))
    assert torch.equal(found, latents(*shallow.controlled(other(shallow.graph))))
    assert relative_error(found, latents(*shallow.explicit())) <= TOLERANCE
    assert relative_error(found, latents(*shallow.graph)) > 100 * TOLERANCE


def test_every_backend_of_the_host_on_a_cpu_is_there() -> None:
    named = {name.removesuffix(" attention") for name in SAME_RESULT if name.endswith("attention")}
    # These need a GPU.
    assert set(REGISTERED_ATTENTION_FUNCTIONS) - {"sage", "sage3", "flash", "xformers", "optimized"} == named


def test_a_compiled_model_is_compiled_once(shallow: Composed) -> None:
    model, positive, negative = shallow.controlled(shallow.graph)
    model, count = compiled_and_counted(model)
    latents(model, positive, negative, steps=2)
    first = count.graphs
    latents(model, positive, negative, steps=6)
    assert first > 0 and count.graphs == first


def test_averaged_prompts_keep_the_controls_of_the_first(setup: Composed) -> None:
    tree = encoded(setup.clip, "a tree")

    def averaged(graph: Graph) -> Graph:
        return graph[0], ConditioningAverage().addWeighted(graph[1], tree, 0.7)[0], graph[2]

    expected = averaged(setup.explicit(averaged(setup.graph)[1][0][0][0]))
    for found in (averaged(setup.controlled(setup.graph)), setup.controlled(averaged(setup.graph))):
        assert relative_error(latents(*found), latents(*expected)) <= TOLERANCE
    assert relative_error(latents(*averaged(setup.graph)), latents(*expected)) > 100 * TOLERANCE


def test_a_prompt_of_nothing_has_nothing_to_control(setup: Composed) -> None:
    """Zeros stay zeros however they are scaled, but for the bias-free projections that make them so."""

    def zeroed(graph: Graph) -> Graph:
        return graph[0], ConditioningZeroOut().zero_out(graph[1])[0], graph[2]

    assert torch.equal(latents(*zeroed(setup.controlled(setup.graph))), latents(*zeroed(setup.graph)))


def test_a_prompt_that_fills_what_others_leave_keeps_its_control(setup: Composed) -> None:
    """The host's default conditioning acts where no mask reaches."""
    mask = torch.zeros(1, 8, 8)
    mask[..., :4] = 1.0
    tree = encoded(setup.clip, "a tree")

    def filled(graph: Graph) -> Graph:
        model, positive, negative = graph
        (masked,) = ConditioningSetProperties().set_properties(tree, 1.0, "mask bounds", mask=mask)
        positive, negative = PairConditioningSetDefaultAndCombine().set_default_and_combine(
            masked, setup.negative, positive, negative
        )
        return model, positive, negative

    found = latents(*filled(setup.controlled(setup.graph)))
    assert relative_error(found, latents(*filled(setup.explicit()))) <= TOLERANCE
    assert relative_error(found, latents(*filled(setup.graph))) > 100 * TOLERANCE


def test_every_row_of_a_batch_may_have_its_own_prompt(setup: Composed) -> None:
    """A conditioning of as many rows as the latent: each is rescaled as if it ran alone."""
    other = encoded(setup.clip, "a red tree")

    def rows(graph: Graph) -> torch.Tensor:
        model, positive, negative = graph
        both = [[torch.cat([positive[0][0], other[0][0]]), positive[0][1]]]
        return latents(model, both, negative, seeds=(5, 6))

    found = rows(setup.controlled(setup.graph))
    for row, (prompt, seed) in enumerate(((setup.prompt, 5), (other, 6))):
        alone = setup.controlled((setup.model, prompt, setup.negative))
        assert relative_error(found[row : row + 1], latents(*alone, seeds=(seed,))) <= TOLERANCE
        assert relative_error(found[row : row + 1], latents(setup.model, prompt, setup.negative, seeds=(seed,))) > 0.01


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loses_no_more_than_explicit_maps_do(setup: Composed, dtype: torch.dtype) -> None:
    half = replace(setup, model=small_sd15(dtype))
    assert {weight.dtype for weight in half.model.model.diffusion_model.parameters()} == {dtype}
    exact = latents(*setup.explicit())
    by_maps = latents(*half.explicit(dtype=dtype))
    found = latents(*half.controlled(half.graph))
    assert relative_error(found, exact) <= 2 * relative_error(by_maps, exact)
    assert relative_error(latents(*half.graph), exact) > 2 * relative_error(found, exact)


def test_an_inpainting_model_and_a_mask(setup: Composed) -> None:
    inpainting = replace(setup, model=small_sd15_inpainting())
    generator = torch.Generator().manual_seed(2)
    mask = torch.zeros(1, 8, 8)
    mask[..., 2:6] = 1.0
    around = {"concat_latent_image": torch.randn(1, 4, 8, 8, generator=generator), "concat_mask": mask}

    def painted(graph: Graph) -> Graph:
        return graph[0], *(node_helpers.conditioning_set_values(prompt, around) for prompt in graph[1:])

    found = latents(*painted(inpainting.controlled(inpainting.graph)))
    assert torch.equal(found, latents(*inpainting.controlled(painted(inpainting.graph))))
    assert relative_error(found, latents(*painted(inpainting.explicit()))) <= TOLERANCE
    assert relative_error(found, latents(*painted(inpainting.graph))) > 100 * TOLERANCE
    assert relative_error(found, latents(*inpainting.controlled(inpainting.graph))) > 100 * TOLERANCE


@pytest.mark.parametrize("split", [(1, 1, 1, 1), (3, 1), (1, 2, 1), (2, 2)], ids=str)
def test_any_split_of_a_batch_gives_the_same(setup: Composed, split: tuple[int, ...]) -> None:
    graph = setup.controlled(setup.graph)
    whole = latents(*graph, seeds=(5, 6, 7, 8))
    parts, first = [], 5
    for size in split:
        parts.append(latents(*graph, seeds=range(first, first + size)))
        first += size
    assert relative_error(torch.cat(parts), whole) <= TOLERANCE
    assert relative_error(latents(*setup.graph, seeds=(5, 6, 7, 8)), whole) > 100 * TOLERANCE


@pytest.mark.parametrize("seeds", [(5,), (5, 6)], ids=str)
def test_calls_that_the_host_splits_for_lack_of_memory_give_the_same(
    setup: Composed, monkeypatch: pytest.MonkeyPatch, seeds: tuple[int, ...]
) -> None:
    """Then the negative prompt, and every other one, is a call of its own."""
    tree = encoded(setup.clip, "a red tree")

    def sampled() -> tuple[torch.Tensor, list[list[int]]]:
        calls: list[list[int]] = []
        model, positive, negative = setup.controlled(setup.graph)
        model = model.clone()

        def count(apply_model: Any, call: Any) -> torch.Tensor:
            calls.append(call["cond_or_uncond"])
            return apply_model(call["input"], call["timestep"], **call["c"])

        model.set_model_unet_function_wrapper(count)
        return latents(model, [*positive, *tree], negative, seeds=seeds), calls

    together, calls = sampled()
    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda *_: 0)
    apart, more_calls = sampled()
    assert {len(call) for call in calls} == {3} and {len(call) for call in more_calls} == {1}
    assert relative_error(apart, together) <= TOLERANCE


@pytest.mark.parametrize("share", [0.0, 0.5], ids=["all of it", "half of it"])
def test_a_model_that_the_host_offloads_gives_the_same(
    setup: Composed, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """What lies elsewhere is fetched, and LoRAs are added to it, at every call."""
    expected = latents(*with_lora(setup.controlled(setup.graph)))
    load = comfy.model_patcher.ModelPatcher.load

    def in_part(self: Any, device_to: Any = None, **options: Any) -> Any:
        memory = share * self.model_size() or 0.1
        return load(self, device_to, **{**options, "lowvram_model_memory": memory, "full_load": False})

    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "load", in_part)
    offloaded = replace(setup, model=small_sd15())
    found = latents(*with_lora(offloaded.controlled(offloaded.graph)))
    assert offloaded.model.model.model_lowvram
    assert relative_error(found, expected) <= TOLERANCE
    assert torch.equal(found, latents(*offloaded.controlled(with_lora(offloaded.graph))))
    assert relative_error(latents(*with_lora(offloaded.graph)), expected) > 100 * TOLERANCE
    comfy.model_management.unload_all_models()
    assert torch.equal(found, latents(*with_lora(offloaded.controlled(offloaded.graph))))


def test_weights_that_the_host_casts_for_every_call_make_no_difference(setup: Composed) -> None:
    """What it does with weights that it offloads (comfy/ops.py, comfy_cast_weights)."""
    expected = latents(*setup.controlled(setup.graph))
    modules = [module for module in setup.model.model.modules() if hasattr(module, "comfy_cast_weights")]
    attentions = unet_of(setup.model).cross_attention.values()
    assert {id(attention.to_v) for attention in attentions} <= {id(module) for module in modules}
    before = [module.comfy_cast_weights for module in modules]
    try:
        for module in modules:
            module.comfy_cast_weights = True
        assert torch.equal(latents(*setup.controlled(setup.graph)), expected)
    finally:
        for module, cast in zip(modules, before, strict=True):
            module.comfy_cast_weights = cast
