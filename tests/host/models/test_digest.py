"""The digest of a MODEL or a CLIP: the same wherever the same is computed, another wherever something else is."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import comfy.hooks
import comfy.model_base
import comfy.model_management
import comfy.quant_ops
import numpy as np
import pytest
import torch
from comfy.patcher_extension import CallbacksMP, PatcherInjection, WrappersMP
from comfy.weight_adapter.lora import LoRAAdapter
from comfy_extras.nodes_freelunch import FreeU_V2
from comfy_extras.nodes_hooks import SetClipHooks
from comfy_extras.nodes_model_advanced import ModelComputeDtype, ModelSamplingDiscrete, RescaleCFG
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from hrv_pack.host.attend_and_excite.subjects import excite
from hrv_pack.host.building.concept_words import ConceptWords
from hrv_pack.host.building.recording import Recorder
from hrv_pack.host.mechanism import with_mechanism
from hrv_pack.host.models.digest import clip_digest, model_digest
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.models.ours import is_ours
from hrv_pack.host.prompts.encoding import encode_prompt
from hrv_pack.hrv.attend_and_excite.settings import ExcitementSettings
from hrv_pack.hrv.controls.control import Control
from hrv_pack.hrv.relevance.vocabulary import Vocabulary
from hrv_pack.tests.support.small_host import (
    latents,
    picture_of_model,
    randomise,
    small_clip_sd15,
    small_clip_sdxl,
    small_sd15,
    small_sdxl,
)
from launcher.paths import PACK_ROOT

QUERY = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_q.weight"
CLIP_QUERY = "clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight"


def lora_of(patcher: Any, key: str, seed: int = 0) -> dict[str, Any]:
    """Patches as the host reads them from a LoRA's file, of rank 2."""
    rows, columns = dict(patcher.model.named_parameters())[key].shape
    generator = torch.Generator().manual_seed(seed)
    up, down = (torch.randn(shape, generator=generator) for shape in ((rows, 2), (2, columns)))
    return {key: LoRAAdapter({"up", "down"}, (up, down, 2.0, None, None, None))}


def with_lora(model: Any, strength: float, seed: int = 0) -> Any:
    clone = model.clone()
    assert clone.add_patches(lora_of(clone, QUERY, seed), strength)
    return clone


def with_sampling(model: Any, sampling: str, zsnr: bool = False) -> Any:
    return ModelSamplingDiscrete().patch(model, sampling, zsnr)[0]


def with_freeu(model: Any, b1: float) -> Any:
    return FreeU_V2.execute(model, b1, 1.4, 0.9, 0.2).result[0]


def with_pag(model: Any, scale: float) -> Any:
    return PerturbedAttentionGuidance.execute(model, scale).result[0]


def with_rescaling(model: Any, multiplier: float) -> Any:
    return RescaleCFG().patch(model, multiplier)[0]


def with_precision(model: Any, dtype: str) -> Any:
    return ModelComputeDtype().patch(model, dtype)[0]


def with_everything(model: Any) -> Any:
    return with_pag(with_freeu(with_sampling(with_lora(model, 0.7), "v_prediction", True), 1.3), 3.0)


def with_value(model: Any, value: Any) -> Any:
    """A clone with any value where other nodes put theirs."""
    clone = model.clone()
    clone.model_options["transformer_options"]["of another node"] = value
    return clone


def with_replacer(model: Any, *place: Any) -> Any:
    clone = model.clone()
    clone.set_model_attn2_replace(torch.add, *place)
    return clone


def with_wrapper(model: Any, kind: str) -> Any:
    clone = model.clone()
    clone.add_wrapper_with_key(kind, "other pack", torch.add)
    return clone


def with_callback(model: Any, kind: str) -> Any:
    clone = model.clone()
    clone.add_callback_with_key(kind, "other pack", torch.add)
    return clone


def with_attachment(model: Any, value: Any) -> Any:
    clone = model.clone()
    clone.set_attachments("other pack", value)
    return clone


def with_weight_wrapper(model: Any) -> Any:
    clone = model.clone()
    clone.add_weight_wrapper(QUERY, torch.nn.functional.relu)
    return clone


def hooked(clip: Any, strength: float, seed: int = 0, keyframe: float | None = None) -> Any:
    """A CLIP behind the host's Set CLIP Hooks, with a hook of a LoRA for it alone."""
    hook = comfy.hooks.WeightHook(strength_clip=strength)
    hook.need_weight_init = False
    hook.weights, hook.weights_clip = {}, lora_of(clip.patcher, CLIP_QUERY, seed)
    hooks = comfy.hooks.HookGroup()
    hooks.add(hook)
    if keyframe is not None:
        schedule = comfy.hooks.HookKeyframeGroup()
        schedule.add(comfy.hooks.HookKeyframe(strength=keyframe, start_percent=0.25))
        hooks.set_keyframes_on_hooks(schedule)
    return SetClipHooks().apply_hooks(clip, True, True, hooks)[0]


def with_other_weights() -> Any:
    model = small_sd15()
    randomise(model.model.diffusion_model, seed=9)
    return model


def with_own_schedule() -> Any:
    """A model that is of another kind by itself, as v-prediction checkpoints are."""
    model = small_sd15()
    kind = comfy.model_base.ModelType.V_PREDICTION
    model.model.model_sampling = comfy.model_base.model_sampling(model.model.model_config, kind)
    return model


def with_other_heads() -> Any:
    model = small_sd15()
    model.model.model_config.unet_config["num_heads"] = 4
    return model


def different_models() -> dict[str, Any]:
    """Patchers of which each computes something else."""
    model, clip = small_sd15(), small_clip_sd15()
    return {
        "plain": model,
        "SDXL": small_sdxl(),
        "other weights": with_other_weights(),
        "own schedule": with_own_schedule(),
        "other heads": with_other_heads(),
        "LoRA": with_lora(model, 1.0),
        "LoRA at half strength": with_lora(model, 0.5),
        "other LoRA": with_lora(model, 1.0, seed=1),
        "two LoRAs": with_lora(with_lora(model, 1.0), 1.0, seed=1),
        "two LoRAs, other order": with_lora(with_lora(model, 1.0, seed=1), 1.0),
        "eps": with_sampling(model, "eps"),
        "eps, zero terminal SNR": with_sampling(model, "eps", True),
        "v-prediction": with_sampling(model, "v_prediction"),
        "LCM": with_sampling(model, "lcm"),
        "FreeU": with_freeu(model, 1.3),
        "other FreeU": with_freeu(model, 1.4),
        "PAG": with_pag(model, 3.0),
        "other PAG": with_pag(model, 3.5),
        "rescaled CFG": with_rescaling(model, 0.7),
        "otherwise rescaled CFG": with_rescaling(model, 0.8),
        "bfloat16": with_precision(model, "bf16"),
        "float16": with_precision(model, "fp16"),
        "replacer": with_replacer(model, "input", 1, 0),
        "replacer elsewhere": with_replacer(model, "input", 2, 0),
        "wrapper": with_wrapper(model, WrappersMP.APPLY_MODEL),
        "other wrapper": with_wrapper(model, WrappersMP.DIFFUSION_MODEL),
        "weight wrapper": with_weight_wrapper(model),
        "callback": with_callback(model, CallbacksMP.ON_PRE_RUN),
        "other callback": with_callback(model, CallbacksMP.ON_APPLY_HOOKS),
        "attachment": with_attachment(model, 1.3),
        "other attachment": with_attachment(model, 1.4),
        "everything": with_everything(model),
        "CLIP": clip.patcher,
        "CLIP of SDXL": small_clip_sdxl().patcher,
        "CLIP with hook": hooked(clip, 1.0).patcher,
        "CLIP with weaker hook": hooked(clip, 0.5).patcher,
        "CLIP with other hook": hooked(clip, 1.0, seed=1).patcher,
        "CLIP with hook on a schedule": hooked(clip, 1.0, keyframe=0.5).patcher,
        "CLIP with hook on another schedule": hooked(clip, 1.0, keyframe=0.75).patcher,
        "names": with_value(model, {f"name {number}" for number in range(20)}),
        "random": with_value(model, [uuid.uuid4(), object(), {"id": uuid.uuid4()}]),
    }


def digests() -> dict[str, str]:
    return {name: model_digest(patcher) for name, patcher in different_models().items()}


@pytest.fixture(scope="module")
def found() -> dict[str, str]:
    return digests()


def test_another_model_has_another_digest(found: dict[str, str]) -> None:
    names: dict[str, list[str]] = {}
    for name, digest in found.items():
        assert len(digest) == 64 and int(digest, 16)
        names.setdefault(digest, []).append(name)
    assert [same for same in names.values() if len(same) > 1] == []


def test_the_same_made_anew_has_the_same_digest(found: dict[str, str]) -> None:
    assert digests() == found


def test_another_process_finds_the_same(found: dict[str, str]) -> None:
    script = (
        f"import json, sys\nsys.path.append({str(PACK_ROOT / 'scripts')!r})\n"
        "from pack_import import import_pack\nimport_pack()\n"
        "import hrv_pack.tests.host.conftest\n"
        "from hrv_pack.tests.host.models.test_digest import digests\n"
        "print(json.dumps(digests()))\n"
    )
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == found


@pytest.mark.parametrize("in_place", [False, True])
def test_loading_makes_no_difference(in_place: bool) -> None:
    plain = small_sd15()
    changed = with_everything(plain)
    changed.weight_inplace_update = in_place
    # As nodes of other packs do: the function knows the model that it was made for, and a part of it.
    changed.set_model_attn2_patch(lambda q, k, v, extra, own=changed, part=plain.model.diffusion_model: (q, k, v))
    before = model_digest(plain), model_digest(changed), model_digest(plain.clone())
    weight = plain.model.state_dict()[QUERY].clone()
    comfy.model_management.load_models_gpu([changed])
    try:
        assert not torch.equal(plain.model.state_dict()[QUERY], weight)
        assert changed.backup and changed.object_patches_backup
        # The clone that is loaded, and one that shares its modules but not what was done to them.
        assert (model_digest(plain), model_digest(changed), model_digest(plain.clone())) == before
        # Where the host loads weights one by one, it keeps all buffers, also those of exchanged objects.
        changed.backup_buffers["model_sampling.sigmas"] = changed.model.model_sampling.sigmas
        assert (model_digest(plain), model_digest(changed), model_digest(plain.clone())) == before
    finally:
        changed.backup_buffers.clear()
        comfy.model_management.unload_all_models()
    assert torch.equal(plain.model.state_dict()[QUERY], weight)
    assert (model_digest(plain), model_digest(changed), model_digest(plain.clone())) == before


def test_hooks_that_act_at_the_moment_make_no_difference() -> None:
    patcher = hooked(small_clip_sd15(), 1.0).patcher
    before = model_digest(patcher)
    weight = patcher.model.state_dict()[CLIP_QUERY].clone()
    patcher.patch_hooks(patcher.forced_hooks)
    assert patcher.hook_backup and not torch.equal(patcher.model.state_dict()[CLIP_QUERY], weight)
    assert model_digest(patcher) == before
    patcher.unpatch_hooks()
    assert model_digest(patcher) == before


def test_buffers_that_loading_converted_make_no_difference() -> None:
    patcher = small_sd15()
    unet, frequencies = patcher.model.diffusion_model, torch.linspace(0.0, 1.0, 7)
    unet.register_buffer("frequencies", frequencies)
    before = model_digest(patcher)
    unet.frequencies = frequencies.bfloat16()
    assert model_digest(patcher) != before
    patcher.backup_buffers["diffusion_model.frequencies"] = frequencies
    assert model_digest(patcher) == before


def test_injected_models_are_read_without_what_is_injected() -> None:
    patcher = small_sd15()
    bias = patcher.model.diffusion_model.out[2].bias

    def set_to(number: float) -> Callable[[Any], None]:
        def inject(patcher: Any) -> None:
            torch.nn.init.constant_(bias, number)

        return inject

    set_to(0.0)(patcher)
    patcher.set_injections("other pack", [PatcherInjection(set_to(1.0), set_to(0.0))])
    before = model_digest(patcher)
    patcher.inject_model()
    assert model_digest(patcher) == before
    assert patcher.is_injected and (bias == 1.0).all()
    patcher.set_injections("other pack", [PatcherInjection(set_to(2.0), set_to(0.0))])
    assert model_digest(patcher) != before


def test_sampling_makes_no_difference(model: Any) -> None:
    changed, clip = with_everything(model), hooked(small_clip_sd15(), 1.0, keyframe=0.5)
    before = model_digest(changed), clip_digest(clip)
    prompts = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a red car", "ugly"))
    latents(changed, *prompts)
    assert clip.apply_hooks_to_conds.hooks[0].hook_keyframe.keyframes[0].start_t < 1e6, "the run has left no trace"
    assert (model_digest(changed), clip_digest(clip)) == before


def test_what_lies_on_the_clip_itself_counts() -> None:
    clip = small_clip_sd15()
    skipping, weighting, scheduled = clip.clone(), clip.clone(), clip.clone()
    skipping.clip_layer(-2)
    weighting.set_tokenizer_option("min_length", 154)
    scheduled.use_clip_schedule = True
    clips = (clip, skipping, weighting, scheduled, hooked(clip, 1.0), hooked(clip, 0.5))
    assert len({clip_digest(other) for other in clips}) == len(clips)
    assert clip_digest(clip.clone()) == clip_digest(clip) == clip_digest(small_clip_sd15())


def test_clones_are_the_same(model: Any) -> None:
    changed = with_everything(model)
    changed.add_callback(CallbacksMP.ON_CLONE, lambda old, new: None)
    changed.set_model_attn2_patch(lambda q, k, v, extra, own=changed: (q, k, v))
    assert model_digest(changed.clone()) == model_digest(changed.clone().clone()) == model_digest(changed)


def test_nothing_is_changed() -> None:
    changed = with_everything(small_sd15())
    before = picture_of_model(changed), changed.patches_uuid
    model_digest(changed)
    assert (picture_of_model(changed), changed.patches_uuid) == before


def test_nothing_is_loaded() -> None:
    changed = with_everything(small_sd15())
    model_digest(changed)
    assert changed.loaded_size() == 0
    assert not any(loaded.model is changed for loaded in comfy.model_management.current_loaded_models)


def controlled(model: Any) -> Any:
    factors = np.full(head_layout(model).head_count, 2.0)
    return with_mechanism(model, [Control(factors, (2,), head_layout(model), label="all")])


def excited(model: Any) -> Any:
    prompt, _ = encode_prompt(small_clip_sd15(), "a red car")
    return excite(model, prompt, [("car", "")], None, ExcitementSettings())[0]


def recorded(model: Any) -> Any:
    words = ConceptWords(small_clip_sd15(), Vocabulary((("Color", ("red",)), ("Things", ("car",)))))
    return Recorder(model, words, 0, "paper").model


@pytest.mark.parametrize("clone_with_ours", [controlled, excited, recorded])
def test_what_this_pack_puts_on_a_model_has_our_keys_and_makes_no_difference(model: Any, clone_with_ours: Any) -> None:
    found = clone_with_ours(model)
    wrappers = {key for by_key in found.wrappers.values() for key in by_key}
    assert wrappers and all(map(is_ours, wrappers | found.attachments.keys()))
    assert model_digest(found) == model_digest(model)


def test_what_others_put_on_a_model_is_not_ours(model: Any) -> None:
    with_wrapper, with_attachment = model.clone(), model.clone()
    with_wrapper.add_wrapper_with_key("outer_sample", "their_hrv_wrapper", range)
    with_attachment.set_attachments("theirs", 1)
    digests = {model_digest(one) for one in (model, with_wrapper, with_attachment)}
    assert len(digests) == 3 and not is_ours("their_hrv_wrapper") and not is_ours(None)


def test_copies_for_further_devices_make_no_difference_other_models_do(model: Any) -> None:
    copied, helped, helped_otherwise = model.clone(), model.clone(), model.clone()
    copied.set_additional_models("multigpu", [model.clone()])
    helped.set_additional_models("helper", [small_sdxl()])
    helped_otherwise.set_additional_models("helper", [with_lora(small_sdxl(), 1.0)])
    assert model_digest(copied) == model_digest(model)
    assert len({model_digest(model), model_digest(helped), model_digest(helped_otherwise)}) == 3


def test_a_wider_type_for_the_same_numbers_makes_no_difference() -> None:
    narrow, wide = small_sd15(), small_sd15()
    narrow.model.diffusion_model.half()
    narrow.model.model_config.unet_config["dtype"] = torch.float16
    before = model_digest(wide)
    wide.model.diffusion_model.half().float()
    assert model_digest(narrow) == model_digest(wide) != before


def test_the_order_of_elements_in_memory_makes_no_difference(model: Any) -> None:
    other = small_sd15()
    other.model.diffusion_model.to(memory_format=torch.channels_last)
    assert not other.model.diffusion_model.input_blocks[0][0].weight.is_contiguous()
    assert model_digest(other) == model_digest(model)


def quantised(scale: float, number: float = 0.5) -> Any:
    layout = "TensorCoreFP8E4M3Layout"
    return comfy.quant_ops.QuantizedTensor.from_float(torch.full((32, 32), number), layout, scale=torch.tensor(scale))


def test_quantised_weights_count_by_numbers_and_scale() -> None:
    found = set()
    for weight in (quantised(1.0), quantised(2.0), quantised(1.0, 0.25), quantised(1.0)):
        patcher = small_sd15()
        layer = patcher.model.diffusion_model.middle_block[1].transformer_blocks[0].attn2
        layer.to_q.weight = torch.nn.Parameter(weight, requires_grad=False)
        found.add(model_digest(patcher))
    assert len(found) == 3


def test_weights_that_have_no_data_yet_count_by_shape() -> None:
    patcher = small_sd15()
    patcher.model.diffusion_model.to("meta")
    assert model_digest(patcher) != model_digest(small_sd15())


def test_a_weight_that_cannot_be_read_is_an_error() -> None:
    patcher = small_sd15()
    patcher.model.diffusion_model.out[2].bias = torch.nn.Parameter(torch.zeros(4).to_sparse())
    with pytest.raises(NotImplementedError, match="storage"):
        model_digest(patcher)


def scaled_by(number: float) -> Callable[[float], float]:
    return lambda given: given * number


class Strength:
    def __init__(self, number: float):
        self.number = number

    def scale(self, given: float) -> float:
        return given * self.number


class Slotted:
    __slots__ = "number"

    def __init__(self, number: float):
        self.number = number


class Child(Slotted):
    __slots__ = ("other",)


class Unreadable:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError("look away")


def module(factor: float, bias: float = 0.0) -> torch.nn.Module:
    made = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(made.weight, 1.0)
    torch.nn.init.constant_(made.bias, bias)
    outer = torch.nn.Sequential(made)
    outer.factor = factor  # type: ignore[assignment]
    return outer


def mask(hole: int) -> torch.Tensor:
    made = torch.ones(128, 128, dtype=torch.bool)
    made.view(-1)[hole] = False
    return made


def knot(number: float) -> list[Any]:
    made: list[Any] = [number]
    made.append({"inside": made})
    return made


DIFFERENT_VALUES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "number": (lambda: 1.3, lambda: 1.4),
    "type of number": (lambda: 1, lambda: 1.0),
    "nothing or no": (lambda: None, lambda: False),
    "text": (lambda: "a", lambda: "b"),
    "key": (lambda: {"a": 1}, lambda: {"b": 1}),
    "order of list": (lambda: [1, 2], lambda: [2, 1]),
    "nesting": (lambda: [[1], 2], lambda: [[1, 2]]),
    "set": (lambda: {1, 2}, lambda: {1, 3}),
    "dtype": (lambda: torch.float16, lambda: torch.bfloat16),
    "array": (lambda: np.arange(3), lambda: np.arange(1, 4)),
    "array's shape": (lambda: np.zeros((2, 3)), lambda: np.zeros((3, 2))),
    "complex tensor": (lambda: torch.tensor([1 + 2j]), lambda: torch.tensor([1 + 3j])),
    "one pixel of a mask": (lambda: mask(5000), lambda: mask(5001)),
    "class": (lambda: Strength, lambda: Slotted),
    "closure": (lambda: scaled_by(1.3), lambda: scaled_by(1.4)),
    "code": (lambda: lambda given: given + 1, lambda: lambda given: given - 1),
    "constant": (lambda: lambda given: given + 1, lambda: lambda given: given + 2),
    "inner function": (lambda: lambda: lambda given: given + 1, lambda: lambda: lambda given: given + 2),
    "called function": (lambda: lambda given: min(given), lambda: lambda given: max(given)),
    "default": (lambda: lambda given, by=1: given, lambda: lambda given, by=2: given),
    "keyword default": (lambda: lambda given, *, by=1: given, lambda: lambda given, *, by=2: given),
    "built-in function": (lambda: torch.add, lambda: torch.sub),
    "function of torch": (lambda: torch.nn.functional.relu, lambda: torch.nn.functional.silu),
    "method": (lambda: Strength(1.3).scale, lambda: Strength(1.4).scale),
    "partial": (lambda: functools.partial(scaled_by, 1.3), lambda: functools.partial(scaled_by, 1.4)),
    "attribute": (lambda: Strength(1.3), lambda: Strength(1.4)),
    "slot": (lambda: Slotted(1.3), lambda: Slotted(1.4)),
    "inherited slot": (lambda: Child(1.3), lambda: Child(1.4)),
    "cycle": (lambda: knot(1.3), lambda: knot(1.4)),
    "module's setting": (lambda: module(1.3), lambda: module(1.4)),
    "module's weight": (lambda: module(1.3), lambda: module(1.3, 0.5)),
    "unreadable": (Unreadable, object),
    "item beside it": (lambda: [Unreadable(), 1.3], lambda: [Unreadable(), 1.4]),
    "values beside it": (lambda: {"a": Unreadable(), "b": 1.3}, lambda: {"a": Unreadable(), "b": 1.4}),
}


@pytest.mark.parametrize(("make", "make_other"), DIFFERENT_VALUES.values(), ids=DIFFERENT_VALUES)
def test_values_of_other_nodes_count(model: Any, make: Callable[[], Any], make_other: Callable[[], Any]) -> None:
    made, again, other = (model_digest(with_value(model, value)) for value in (make(), make(), make_other()))
    assert made == again != other


def test_what_is_of_one_process_or_device_does_not_count(model: Any) -> None:
    def digest(device: str, order: int) -> str:
        settings = {"device": torch.device(device), "id": uuid.uuid4(), "lock": SimpleNamespace(owner=device)}
        failed = {} if device == "cpu" else {torch.device(device): True}
        items = [("settings", settings), ("failed", failed), ("number", 1)][::order]
        return model_digest(with_value(model, dict(items)))

    assert digest("cpu", 1) == digest("cuda:1", -1)
