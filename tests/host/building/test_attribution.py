"""Integrated attribution through the host against an explicit float64 network, and what it must leave alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import comfy.hooks
import comfy.model_management
import comfy.sd
import numpy as np
import pytest
import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from comfy.model_management import InterruptProcessingException
from comfy.patcher_extension import WrappersMP
from comfy.quant_ops import QuantizedTensor
from comfy_extras.nodes_hooks import SetClipHooks
from hrv_pack.host.building.attribution import Attribution, PairEffects, Pairs
from hrv_pack.host.building.patching import Patch
from hrv_pack.host.models.architectures import unet_of
from hrv_pack.host.models.families.replacers import plain_attention
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.runs.gradients import NoRoomError, gradients
from hrv_pack.host.work.sampling import stacked
from hrv_pack.hrv.errors import HRVError
from hrv_pack.tests.support.small_host import (
    explicit_maps,
    latents,
    picture_of_model,
    relative_error,
    small_clip_refiner,
    small_clip_sd15,
    small_clip_sd20,
    small_clip_sdxl,
    small_refiner,
    small_sd15,
    small_sd15_inpainting,
    small_sd20,
    small_sdxl,
)

# Three pairs; "cat" and "dog" are the fourth tokens behind the start.
PROMPTS = [("a red cat", "a blue cat"), ("a small cat, night", "a small dog, night"), ("one cat", "two cat")]
SIGMA = 2.0
TOLERANCE = 1e-4


class Small(NamedTuple):
    """A MODEL with its CLIP."""

    model: Any
    clip: Any

    def pairs(self, which: slice = slice(None), side: int = 8) -> Pairs:
        texts = PROMPTS[which]
        generator = torch.Generator().manual_seed(0)
        drawn = [torch.randn(len(PROMPTS), 4, side, side, generator=generator)[which] for _ in range(2)]
        a, b = (stacked([self.encoded(text) for text in of_all]) for of_all in zip(*texts, strict=True))
        return Pairs([f"'{one}' and '{other}'" for one, other in texts], a, b, *drawn)

    def encoded(self, text: str) -> list[Any]:
        (entry,) = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))
        return list(entry)


@pytest.fixture(scope="module")
def sd15() -> Small:
    return Small(small_sd15(), small_clip_sd15())


SMALL: dict[str, Callable[[], Small]] = {
    "SD 1.x": lambda: Small(small_sd15(), small_clip_sd15()),
    "SD 2.x": lambda: Small(small_sd20(), small_clip_sd20()),
    "SDXL": lambda: Small(small_sdxl(), small_clip_sdxl()),
    "SDXL refiner": lambda: Small(small_refiner(), small_clip_refiner()),
    "SD 1.x for inpainting": lambda: Small(small_sd15_inpainting(), small_clip_sd15()),
}


@pytest.fixture(scope="module", params=SMALL)
def small(request: pytest.FixtureRequest) -> Small:
    return SMALL[request.param]()


class Call(NamedTuple):
    """One call of the network, as the host makes it."""

    given: tuple[Any, ...]  # x, timesteps, context, y
    output: torch.Tensor


def watched(model: Any) -> tuple[Any, list[Call]]:
    """A clone of a MODEL, and every call that its network gets."""
    calls: list[Call] = []

    def watch(executor: Any, x: Any, timesteps: Any, context: Any, y: Any, *more: Any) -> Any:
        output = executor(x, timesteps, context, y, *more)
        calls.append(Call((x, timesteps, context, y), output.detach().clone()))
        return output

    clone = model.clone()
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "watch", watch)
    return clone, calls


class Explicit:
    """The gated network written down a second time, in float64 and in the network's own output."""

    def __init__(self, small: Small, pairs: Pairs):
        self.layout = head_layout(small.model)
        model, calls = watched(small.model)
        Attribution(model, room=0.0).patched(pairs, SIGMA, [])
        (x, times, context_b, y), (_, _, context_a, _) = calls[0].given, calls[1].given
        self.unet = copy.deepcopy(small.model.model.diffusion_model).double()
        self.given = x.double(), times, context_a.double(), None if y is None else y.double()
        modules = unet_of(small.model).cross_attention
        self.of_b = {
            key: [context_b.double() @ part.weight.double().T for part in (modules[key].to_k, modules[key].to_v)]
            for key in modules
        }
        self.a, self.b = (self(torch.full((len(x), self.layout.head_count), float(end))) for end in (0, 1))
        self.difference = self.b - self.a

    def __call__(self, gates: torch.Tensor) -> torch.Tensor:
        """Outputs with ``gates`` [P, H]."""

        def replacer(key: Any) -> Callable[..., torch.Tensor]:
            def attend(q: Any, k: Any, v: Any, extra: dict[str, Any]) -> torch.Tensor:
                heads = extra["n_heads"]
                own = gates[:, self.layout.head_slice(key), None, None].double()
                outs = [
                    explicit_maps(q, keys, heads) @ values.unflatten(-1, (heads, -1)).transpose(1, 2)
                    for keys, values in ((k, v), self.of_b[key])
                ]
                return (outs[0] + own * (outs[1] - outs[0])).transpose(1, 2).flatten(2)

            return attend

        x, times, context, y = self.given
        replaced = {layer.key: replacer(layer.key) for layer in self.layout.layers}
        more = {} if y is None else {"y": y}
        options = {"patches_replace": {"attn2": replaced}}
        return self.unet(x, times, context=context, transformer_options=options, **more)

    def along(self, output: torch.Tensor) -> torch.Tensor:
        return ((output - self.a) * self.difference).flatten(1).sum(1)

    def by_gates(self, alpha: float) -> torch.Tensor:
        """Derivatives [P, H] by all gates at ``alpha``."""
        gates = torch.full((len(self.a), self.layout.head_count), alpha, dtype=torch.float64, requires_grad=True)
        (found,) = torch.autograd.grad(self.along(self(gates)).sum(), gates)
        return found

    @property
    def squares(self) -> torch.Tensor:
        return self.difference.square().flatten(1).sum(1)


def shares(effects: PairEffects) -> torch.Tensor:
    """c [P, H]."""
    return torch.from_numpy(effects.heads / effects.squares[:, None])


@pytest.fixture(autouse=True)
def no_graph_is_kept_by_tests() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_effects_are_those_of_the_explicit_network(small: Small) -> None:
    pairs = small.pairs(slice(0, 2))
    explicit = Explicit(small, pairs)
    with torch.enable_grad():
        expected = sum(explicit.by_gates(alpha) for alpha in (1 / 6, 1 / 2, 5 / 6)) / 3 / explicit.squares[:, None]
    found = shares(Attribution(small.model, room=0.0).effects(pairs, SIGMA))
    assert found.shape == (2, head_layout(small.model).head_count)
    assert relative_error(found, expected) <= TOLERANCE


def test_effects_are_finite_differences() -> None:
    small = Small(small_sd15(torch.float64), small_clip_sd15())
    pairs = small.pairs(slice(0, 2))
    explicit = Explicit(small, pairs)
    found = shares(Attribution(small.model, alphas=1, room=0.0).effects(pairs, SIGMA))
    h = 1e-4
    for head in range(0, explicit.layout.head_count, 5):
        moved = torch.zeros(1, explicit.layout.head_count, dtype=torch.float64)
        moved[:, head] = h
        change = explicit.along(explicit(0.5 + moved)) - explicit.along(explicit(0.5 - moved))
        assert torch.allclose(found[:, head], change / (2 * h) / explicit.squares, rtol=1e-5, atol=1e-7)


def test_true_patching_is_the_explicit_networks(small: Small) -> None:
    pairs = small.pairs(slice(0, 2))
    explicit = Explicit(small, pairs)
    heads = frozenset(range(1, explicit.layout.head_count, 3))
    gates = torch.zeros(2, explicit.layout.head_count)
    gates[:, list(heads)] = 1.0
    found = Attribution(small.model, room=0.0).patched(pairs, SIGMA, [Patch(heads)])
    expected = explicit.along(explicit(gates)) / explicit.squares
    assert relative_error(torch.from_numpy(found.patches[:, 0] / found.squares), expected) <= TOLERANCE
    assert found.heads.shape == (2, 0)


def test_closed_gates_read_a_and_open_gates_b_bit_for_bit(small: Small) -> None:
    pairs = small.pairs(slice(0, 2))
    model, calls = watched(small.model)
    every = frozenset(range(head_layout(small.model).head_count))
    effects = Attribution(model, room=math.inf)._measured(
        pairs, SIGMA, [Patch(frozenset()), Patch(), Patch(every)], [0.0, 1.0]
    )
    b, a, closed, opened, none, whole, each = (call.output for call in calls)
    assert torch.equal(closed, a) and torch.equal(none, a)
    assert torch.equal(opened, b) and torch.equal(whole, b) and torch.equal(each, b)
    assert not torch.equal(a, b)
    assert np.array_equal(effects.patches, np.stack([effects.squares * share for share in (0, 1, 1)], axis=1))
    # What the user's model gives by itself, with the same attention.
    plain, alone = watched(small.model)
    plain.model_options["transformer_options"]["optimized_attention_override"] = _pytorch_attention
    wanted = calls[0].given[0]
    _call(plain, pairs, wanted)
    assert torch.equal(alone[0].output, a)


def _pytorch_attention(_: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    return comfy.ldm.modules.attention.attention_pytorch(*args, **kwargs)


def _call(model: Any, pairs: Pairs, expected: torch.Tensor) -> None:
    """One plain evaluation of the first prompts at the pairs' noisy latents."""
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": pairs.a})

    def evaluate(model_k: Any, x: Any, sigmas: Any, extra_args: Any, callback: Any, disable: Any) -> Any:
        return model_k(x, sigmas[:1].expand(len(x)), **extra_args)

    sampler = comfy.samplers.KSAMPLER(evaluate)
    guider.sample(pairs.noise, pairs.latents, sampler, torch.tensor([SIGMA, 0.0]), disable_pbar=True, seed=0)


def linear_in_heads() -> Any:
    """A small SD 1.x whose output is a sum of what its heads give, whatever the others do.

    No transformer sees what came before it (``proj_in`` gives its bias alone), and what adds to the image on the way
    (residual blocks, self-attention, feed-forward) or bends it at the end is taken out.
    """
    model = small_sd15()
    unet = model.model.diffusion_model
    for module in unet.modules():
        if isinstance(module, ResBlock):
            module.out_layers[-1].weight.data.zero_()
        if isinstance(module, SpatialTransformer):
            module.proj_in.weight.data.zero_()
            for block in module.transformer_blocks:
                block.attn1.to_out[0].weight.data.zero_()
                block.ff.net[2].weight.data.zero_()
    unet.out = torch.nn.Sequential(torch.nn.Conv2d(32, 4, 1))
    return model


@pytest.mark.parametrize("alphas", [1, 3])
def test_effects_are_complete_where_heads_add_up(sd15: Small, alphas: int) -> None:
    small = Small(linear_in_heads(), sd15.clip)
    pairs = small.pairs()
    count = head_layout(small.model).head_count
    some = [Patch(frozenset([head])) for head in range(0, count, 5)]
    found = Attribution(small.model, alphas=alphas, room=0.0).effects(pairs, SIGMA, some)
    assert np.allclose(found.heads.sum(1), found.squares, rtol=1e-4)
    # And each head's share is what exchanging it alone does.
    assert np.allclose(found.heads[:, ::5], found.patches, rtol=1e-3, atol=1e-4 * found.squares.max())
    assert np.abs(found.heads / found.squares[:, None]).max() > 0.01


def test_pairs_do_not_see_each_other(sd15: Small) -> None:
    attribution = Attribution(sd15.model, alphas=1, room=0.0)
    positions = np.arange(77) < 4
    patches = [Patch(frozenset([3, 20])), Patch(positions=positions)]
    together = attribution.effects(sd15.pairs(), SIGMA, patches)
    for number in range(3):
        alone = attribution.effects(sd15.pairs(slice(number, number + 1)), SIGMA, patches)
        for found, expected in zip(alone, together, strict=True):
            assert np.allclose(found[0], expected[number], rtol=1e-4, atol=1e-5 * together.squares[number])


def test_measuring_again_gives_the_same_and_checkpointing_changes_nothing(small: Small) -> None:
    pairs = small.pairs(slice(0, 2))
    some = [Patch(frozenset([1]))]
    first, again = (Attribution(small.model, alphas=1, room=0.0).effects(pairs, SIGMA, some) for _ in range(2))
    kept = Attribution(small.model, alphas=1, room=math.inf).effects(pairs, SIGMA, some)
    with torch.inference_mode():
        inside = Attribution(small.model, alphas=1, room=0.0).effects(pairs, SIGMA, some)
    for other in (again, kept, inside):
        assert all(np.array_equal(one, two) for one, two in zip(first, other, strict=True))


def test_layers_run_twice_only_where_a_graph_has_no_room(small: Small) -> None:
    """Two plain passes and a gated one for each alpha; the pass that finds no room is made again, and once only."""
    pairs = small.pairs(slice(0, 2))
    expected = Attribution(small.model, alphas=2, room=0.0).effects(pairs, SIGMA)
    for room, first, then in ((None, 4, 4), (1e4, 4, 4), (0.0, 4, 4)):
        model, calls = watched(small.model)
        attribution = Attribution(model, alphas=2, room=room)
        for passes in (first, then):
            calls.clear()
            found = attribution.effects(pairs, SIGMA)
            assert all(np.array_equal(one, two) for one, two in zip(found, expected, strict=True))
            assert len(calls) == passes


def test_a_graph_is_given_up_before_it_takes_more_than_its_room() -> None:
    """4000 bytes for each result that is kept, once however often it is; the memory of weights doesn't count."""
    weight = torch.full((1000,), 2.0)
    with gradients(room=9000, weights=[weight]):
        x = torch.zeros(1000, requires_grad=True)
        y = (weight * x).exp()
        z = (y * y).exp()
        with pytest.raises(NoRoomError):
            z.exp()
        assert torch.autograd.grad(z.sum(), x)[0].allclose(torch.full((1000,), 4 * np.e))


def test_a_device_without_memory_for_a_graph_gets_a_smaller_one(sd15: Small) -> None:
    """What the host itself raises when a device's memory ends, in the first pass with a gradient."""
    pairs = sd15.pairs(slice(0, 2))
    expected = Attribution(sd15.model, alphas=2, room=0.0).effects(pairs, SIGMA)
    full: list[bool] = []

    def run_full(executor: Any, *given: Any) -> Any:
        output = executor(*given)
        if output.requires_grad and not full:
            full.append(True)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return output

    model = sd15.model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "full", run_full)
    found = Attribution(model, alphas=2).effects(pairs, SIGMA)
    assert full and all(np.array_equal(one, two) for one, two in zip(found, expected, strict=True))
    full.clear()
    # With nothing left to save it is an error as any other.
    with pytest.raises(torch.cuda.OutOfMemoryError):
        Attribution(model, alphas=2, room=0.0).effects(pairs, SIGMA)


def test_tokens_are_exchanged_where_they_are(sd15: Small) -> None:
    """Keys and values of a token come from its own embedding, so a mixed text is a text of its own."""
    pairs = sd15.pairs(slice(0, 2))
    positions = np.zeros((2, 77), dtype=bool)
    positions[0, 2], positions[1, 3:] = True, True
    (a, extras), ((b, _),) = pairs.a[0], pairs.b
    mixed = torch.where(torch.from_numpy(positions)[..., None], b, a)
    attribution = Attribution(sd15.model, alphas=1, room=0.0)
    found = attribution.patched(pairs, SIGMA, [Patch(positions=positions), Patch(positions=~positions)])
    model, calls = watched(sd15.model)
    Attribution(model, alphas=1, room=0.0).patched(pairs._replace(b=[[mixed, extras]]), SIGMA, [])
    of_mixed, of_a = calls[0].output, calls[1].output
    model, calls = watched(sd15.model)
    Attribution(model, alphas=1, room=0.0).patched(pairs, SIGMA, [])
    difference = (calls[0].output - of_a).double()
    expected = ((of_mixed - of_a).double() * difference).flatten(1).sum(1) / difference.square().flatten(1).sum(1)
    assert relative_error(torch.from_numpy(found.patches[:, 0] / found.squares), expected) <= TOLERANCE
    # The second pair's texts begin alike, so its rest does nothing and the tokens everything.
    assert found.patches[1, 1] == 0 and found.patches[1, 0] == found.squares[1]
    assert abs(found.patches[0, 0]) > 1e-3 * found.squares[0]


def test_the_pooled_text_is_as_of_a_in_all_passes() -> None:
    small = SMALL["SDXL"]()
    pairs = small.pairs(slice(0, 2))
    other = pairs._replace(b=[[pairs.b[0][0], {"pooled_output": torch.full_like(pairs.b[0][1]["pooled_output"], 9.0)}]])
    found, expected = (Attribution(small.model, alphas=1, room=0.0).effects(given, SIGMA) for given in (other, pairs))
    assert np.array_equal(found.heads, expected.heads)


def random_lora(model: Any) -> dict[str, torch.Tensor]:
    """A LoRA of rank 2 for all of cross-attention."""
    lora = {}
    generator = torch.Generator().manual_seed(0)
    weights = model.model_state_dict()
    for name in [name for name in weights if ".attn2.to_" in name and name.endswith("weight")]:
        height, width = weights[name].shape
        lora[name.replace(".weight", ".lora_up.weight")] = torch.randn(height, 2, generator=generator)
        lora[name.replace(".weight", ".lora_down.weight")] = torch.randn(2, width, generator=generator) / 4
    return lora


def test_a_lora_counts_on_the_model_and_as_a_hook(sd15: Small) -> None:
    lora = random_lora(sd15.model)
    loaded, _ = comfy.sd.load_lora_for_models(sd15.model, None, lora, 0.7, 0.0)
    (clip,) = SetClipHooks().apply_hooks(sd15.clip, False, True, comfy.hooks.create_hook_lora(lora, 0.7, 0.0))
    merged = Small(small_sd15(), sd15.clip)
    # The host's own result, with the weights written down.
    for key, (_, weight) in _merged_weights(sd15.model, lora, 0.7).items():
        merged.model.model.state_dict(keep_vars=True)[key].data.copy_(weight)
    plain = Attribution(sd15.model, alphas=1, room=0.0).effects(sd15.pairs(), SIGMA)
    expected = Attribution(merged.model, alphas=1, room=0.0).effects(sd15.pairs(), SIGMA)
    for model, own in ((loaded, sd15.clip), (sd15.model, clip)):
        found = Attribution(model, alphas=1, room=0.0).effects(Small(model, own).pairs(), SIGMA)
        assert relative_error(shares(found), shares(expected)) <= TOLERANCE
    assert relative_error(shares(plain), shares(expected)) > 0.1
    assert np.array_equal(Attribution(sd15.model, alphas=1, room=0.0).effects(sd15.pairs(), SIGMA).heads, plain.heads)


def _merged_weights(model: Any, lora: dict[str, torch.Tensor], strength: float) -> dict[str, tuple[str, torch.Tensor]]:
    weights = model.model_state_dict()
    merged = {}
    for name, up in lora.items():
        if name.endswith("lora_up.weight"):
            key = name.replace("lora_up.", "")
            down = lora[name.replace("lora_up", "lora_down")]
            merged[key] = name, weights[key] + strength * up @ down
    return merged


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.15)])
def test_half_precision(sd15: Small, dtype: torch.dtype, tolerance: float) -> None:
    pairs = sd15.pairs()
    expected = shares(Attribution(sd15.model, alphas=1, room=0.0).effects(pairs, SIGMA))
    found = shares(Attribution(small_sd15(dtype), alphas=1, room=0.0).effects(pairs, SIGMA))
    assert relative_error(found, expected) <= tolerance


def test_weights_that_the_host_casts_for_every_call(sd15: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Attribution(sd15.model, alphas=1, room=0.0).effects(sd15.pairs(), SIGMA)
    for module in sd15.model.model.modules():
        if hasattr(module, "comfy_cast_weights"):
            monkeypatch.setattr(module, "comfy_cast_weights", True)
    found = Attribution(sd15.model, alphas=1, room=0.0).effects(sd15.pairs(), SIGMA)
    assert np.array_equal(found.heads, expected.heads)


def test_another_packs_replacer_and_patch_stay_in_charge(sd15: Small) -> None:
    seen: list[int] = []

    def louder(q: Any, k: Any, v: Any, extra: dict[str, Any]) -> torch.Tensor:
        seen.append(len(q))
        return plain_attention(q, k, 2.0 * v, extra)

    def halved(n: Any, context: Any, value: Any, extra: dict[str, Any]) -> tuple[Any, Any, Any]:
        return n, context, 0.5 * value

    both = sd15.model.clone()
    layer = head_layout(both).layers[3].key
    both.set_model_attn2_replace(louder, *layer)
    found = Attribution(both, alphas=1, room=0.0).effects(sd15.pairs(), SIGMA)
    assert seen
    plain = Attribution(sd15.model, alphas=1, room=0.0).effects(sd15.pairs(), SIGMA)
    assert relative_error(shares(found), shares(plain)) > 0.01
    # Halving the values of every layer, and doubling them again where the replacer is.
    for other in head_layout(both).layers:
        both.set_model_attn2_replace(louder, *other.key)
    both.set_model_attn2_patch(halved)
    found = Attribution(both, alphas=1, room=0.0).effects(sd15.pairs(), SIGMA)
    assert relative_error(shares(found), shares(plain)) <= TOLERANCE


class StoppedError(Exception):
    """Raised by a node of the user's."""


# Of the third layer's calls the first two are the plain passes', the next two the gated one's, which run again in the
# backward pass, and the last two a patch's.
@pytest.mark.parametrize("call", [0, 1, 3, 5, 7])
def test_an_exception_leaves_nothing_behind(sd15: Small, call: int) -> None:
    pairs = sd15.pairs()
    layer = head_layout(sd15.model).layers[2]
    patches = [Patch(frozenset(range(layer.heads * 2, layer.heads * 3, 2)))]
    expected = Attribution(sd15.model, alphas=1, room=0.0).effects(pairs, SIGMA, patches)
    before = picture_of_model(sd15.model)
    count = 0

    def stop(q: Any, k: Any, v: Any, extra: dict[str, Any]) -> torch.Tensor:
        nonlocal count
        count += 1
        if count > call:
            raise StoppedError
        return plain_attention(q, k, v, extra)

    broken = sd15.model.clone()
    broken.set_model_attn2_replace(stop, *layer.key)
    with pytest.raises(StoppedError):
        Attribution(broken, alphas=1, room=0.0).effects(pairs, SIGMA, patches)
    assert picture_of_model(sd15.model) == before
    again = Attribution(sd15.model, alphas=1, room=0.0).effects(pairs, SIGMA, patches)
    assert all(np.array_equal(one, two) for one, two in zip(again, expected, strict=True))
    assert torch.isfinite(latents(sd15.model, [sd15.encoded("a cat")], [sd15.encoded("")])).all()


def test_a_cancel_takes_effect_at_the_next_pass(sd15: Small) -> None:
    model, calls = watched(sd15.model)

    def cancel(executor: Any, *args: Any) -> Any:
        output = executor(*args)
        if len(calls) == 3:
            comfy.model_management.interrupt_current_processing()
        return output

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "cancel", cancel)
    with pytest.raises(InterruptProcessingException):
        Attribution(model, room=0.0).effects(sd15.pairs(), SIGMA)
    # Those of both prompts and two alphas.
    assert len(calls) == 4


def test_bad_numbers_are_named(sd15: Small) -> None:
    model = small_sd15()
    layer = head_layout(model).layers[4]
    broken = next(unet_of(model).cross_attention[layer.key].to_v.parameters())
    broken.data[0, 0] = float("nan")
    with pytest.raises(HRVError, match=rf"the first prompt of 'a red cat' and 'a blue cat', first at {layer.name}"):
        Attribution(model, room=0.0).effects(sd15.pairs(), SIGMA)


def test_one_bad_pair_is_named(sd15: Small) -> None:
    pairs = sd15.pairs()
    pairs.latents[1, 0, 0, 0] = float("inf")
    with pytest.raises(HRVError, match="of 'a small cat, night' and 'a small dog, night', first at down"):
        Attribution(sd15.model, room=0.0).effects(pairs, SIGMA)


def test_a_pair_without_a_difference_has_no_effects_and_leaves_others_alone(sd15: Small) -> None:
    pairs = sd15.pairs()
    found = Attribution(sd15.model, room=0.0).effects(pairs, SIGMA)
    same = pairs.b[0][0].clone()
    same[1] = pairs.a[0][0][1]
    without = Attribution(sd15.model, room=0.0).effects(pairs._replace(b=[[same, {}]]), SIGMA)
    others = np.arange(len(same)) != 1
    assert not without.heads[1].any() and without.squares[1] == 0
    assert np.array_equal(without.heads[others], found.heads[others])
    assert np.array_equal(without.squares[others], found.squares[others])


def test_pairs_of_different_length_are_refused(sd15: Small) -> None:
    pairs = sd15.pairs()
    longer = [[torch.cat([pairs.b[0][0]] * 2, dim=1), {}]]
    with pytest.raises(HRVError, match="must have equally many tokens, but these have 77 and 154"):
        Attribution(sd15.model, room=0.0).effects(pairs._replace(b=longer), SIGMA)
    with pytest.raises(HRVError, match="Turn 'schedule_clip' off"):
        Attribution(sd15.model, room=0.0).effects(pairs._replace(b=pairs.b * 2), SIGMA)


def test_positions_that_do_not_fit_are_refused(sd15: Small) -> None:
    with pytest.raises(HRVError, match="Positions of 78 tokens for 1 pairs don't fit 3 pairs"):
        Attribution(sd15.model, room=0.0).patched(sd15.pairs(), SIGMA, [Patch(positions=np.zeros(78, dtype=bool))])


def test_nodes_that_hide_heads_are_named(sd15: Small) -> None:
    def twice(executor: Any, *args: Any) -> Any:
        executor(*args)
        return executor(*args)

    def skip(executor: Any, x: Any, *args: Any) -> Any:
        return torch.zeros_like(x)

    for wrapper, words in ((twice, "down1.0 ran twice"), (skip, "no attention to exchange at down1.0")):
        model = sd15.model.clone()
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "hide", wrapper)
        with pytest.raises(HRVError, match=words):
            Attribution(model, room=0.0).effects(sd15.pairs(), SIGMA)


def test_models_without_gradients_are_refused(sd15: Small) -> None:
    model = small_sd15()
    layer = next(iter(unet_of(model).cross_attention.values())).to_q
    quantised = QuantizedTensor.from_float(layer.weight.data, "TensorCoreFP8Layout")
    layer.weight = torch.nn.Parameter(quantised, requires_grad=False)
    with pytest.raises(HRVError, match=r"but measuring what heads do needs one\. Load the checkpoint in half"):
        Attribution(model, room=0.0)
    silent = sd15.model.clone()
    silent.set_model_unet_function_wrapper(
        lambda apply, args: torch.no_grad()(apply)(args["input"], args["timestep"], **args["c"])
    )
    with pytest.raises(HRVError, match="another node on this model computes without gradients"):
        Attribution(silent, room=0.0).effects(sd15.pairs(), SIGMA)
