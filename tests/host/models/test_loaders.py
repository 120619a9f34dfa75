"""Published transformers through the host's own loaders: their names, widths and layouts, and controls in them.

Whole models have no memory behind their weights. Files of one block of each kind have random weights, and run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.cli_args
import comfy.model_detection
import comfy.model_management
import comfy.sd
import comfy.supported_models
import comfy.text_encoders.anima
import comfy.utils
import folder_paths
import pytest
import torch
from hrv_pack.host.building.attribution import Attribution, Pairs
from hrv_pack.host.models.architectures import architecture_of
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.prompts.carried import Conditioning
from hrv_pack.hrv.errors import HRVError
from hrv_pack.nodes.controls import ConceptStrengthen
from hrv_pack.tests.support.documented_families import UNET, documented
from hrv_pack.tests.support.full_size_transformers import FULL_SIZE, LAYOUTS, FullSize, layout_of, without_memory
from hrv_pack.tests.support.random_files import assert_complete, write_random
from hrv_pack.tests.support.small_host import encoded, random_hrv, relative_error
from hrv_pack.tests.support.small_transformers import prompt, rows_of

from nodes import KSampler, UNETLoader

# What takes more than ten seconds where cores are slow, most of all Flux.2's 512 tokens and Chroma's 344 modulations.
SLOW = ("Z-Image", "Flux.1 dev", "Flux.2 klein 4B", "Chroma")
# One of each family: a block of its larger ones is a file of 1 to 4.6 GB.
LARGER = ("Cosmos-Predict2 14B", "Flux.2 dev", "Flux.2 klein 9B", "Wan 2.1 14B", "Wan 2.2 5B")
RUNNING = [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in FULL_SIZE if name not in LARGER
]
WAN = FULL_SIZE["Wan 2.1 1.3B"]
FP8 = torch.float8_e4m3fn
WORDS = ("a", "red", "car")


def loaded_without_memory(tensors: Mapping[str, torch.Tensor]) -> Any:
    """The MODEL that the host makes of a file with these names and shapes."""
    with torch.device("meta"):
        return comfy.sd.load_diffusion_model_state_dict(dict(tensors))


@pytest.mark.parametrize("name", FULL_SIZE)
def test_layouts_are_those_of_the_published_models(name: str, caplog: pytest.LogCaptureFixture) -> None:
    published = FULL_SIZE[name]
    model = loaded_without_memory(published.file())
    assert_complete(caplog.messages)
    found = model.model.model_config
    sizes = {key: size for key, size in found.unet_config.items() if key in published.sizes}
    assert (type(found).__name__, sizes) == (published.config, published.sizes)
    numbers = sum(weight.numel() for weight in model.model.diffusion_model.parameters())
    assert 2 * numbers == pytest.approx(published.gigabytes * 1e9, rel=2e-3)

    architecture = architecture_of(model)
    assert (architecture.name, architecture.layout) == (published.kind.name, layout_of(name))
    assert architecture.layout.signature == layout_of(name).signature
    width = 96 if name == "Lumina 2" else 128
    for layer in architecture.layout.layers:
        found_by_heads = torch.empty(1, layer.heads * width, device="meta")
        assert architecture.written(layer, found_by_heads).shape == found_by_heads.shape


def test_the_documents_list_these_layouts_and_no_other() -> None:
    """Whatever its table names, the test above has the loader make."""
    found: dict[str, list[str]] = {}
    for name, published in FULL_SIZE.items():
        _, sections = LAYOUTS[name]
        (heads,) = {heads for _, heads in sections.values()}
        layers = " + ".join(str(count) for count, _ in sections.values())
        listed = found.setdefault(published.kind.name, [])
        if (layout := f"{layers} x {heads}") not in listed:
            listed.append(layout)
    listed_there = {name: family.layouts for name, family in documented().items()}
    assert listed_there == {UNET: listed_there[UNET], **found}


@pytest.mark.parametrize(
    ("name", "converter", "tensors"),
    [("Flux.1 dev", comfy.utils.flux_to_diffusers, 1160), ("Z-Image", comfy.utils.z_image_to_diffusers, 521)],
)
def test_layouts_are_the_same_where_queries_keys_and_values_are_apart(
    name: str, converter: Callable[[Mapping[str, Any]], dict[str, Any]], tensors: int
) -> None:
    """As in files for diffusers, whose weights the host puts together."""
    published = FULL_SIZE[name]
    together = without_memory(published).model.diffusion_model.state_dict()
    apart, covered = {}, set()
    for other, target in converter({**published.sizes, **published.uncounted}).items():
        own, part = (target, None) if isinstance(target, str) else target[:2]
        if own not in together or (part is None and own in covered):
            continue  # another spelling
        covered.add(own)
        apart[other] = together[own] if part is None else together[own].narrow(*part)
    assert covered == set(together) and len(apart) == tensors
    assert head_layout(loaded_without_memory(apart)) == layout_of(name)


def test_stable_diffusion_3_is_refused_with_the_reason() -> None:
    config = comfy.supported_models.SD3(
        {
            "in_channels": 16,
            "out_channels": 16,
            "patch_size": 2,
            "depth": 24,
            "input_size": None,
            "adm_in_channels": 2048,
            "context_embedder_config": {
                "target": "torch.nn.Linear",
                "params": {"in_features": 4096, "out_features": 1536},
            },
            "num_patches": 36864,
            "pos_embed_max_size": 192,
            "pos_embed_scaling_factor": None,
            "dtype": torch.float16,
        }
    )
    weights = config.get_model({}, device=torch.device("meta")).diffusion_model.state_dict()
    model = loaded_without_memory(weights)
    assert type(model.model.model_config) is comfy.supported_models.SD3
    with pytest.raises(HRVError, match=r"^Stable Diffusion 3 can't be used with HRVs: its text has each word twice"):
        head_layout(model)


@contextmanager
def loaded(
    folder: Path,
    patch: pytest.MonkeyPatch,
    published: FullSize,
    tensors: Mapping[str, torch.Tensor] | None = None,
    weight_dtype: str = "default",
) -> Iterator[Any]:
    """The MODEL of a file of one block of each kind, by the host's Load Diffusion Model; no file is left."""
    detect = comfy.model_detection.detect_unet_config

    def told(*args: Any, **kwargs: Any) -> Any:
        return {**detect(*args, **kwargs), **dict.fromkeys(published.uncounted, 1)}

    patch.setattr(comfy.model_detection, "detect_unet_config", told)
    patch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", ([str(folder)], {".safetensors"}))
    # As on a GPU; without it the host widens the weights to float32 on a CPU.
    patch.setattr(comfy.cli_args.args, "bf16_unet", True)
    path = folder / "random.safetensors"
    try:
        write_random(path, published.file_of_one_block() if tensors is None else tensors)
        with torch.inference_mode():  # as the host's executor runs nodes
            (model,) = UNETLoader().load_unet(path.name, weight_dtype)
        yield model
    finally:
        path.unlink(missing_ok=True)
        comfy.model_management.unload_all_models()


def strengthened(model: Any, conditioning: Conditioning, strength: float) -> tuple[Any, Conditioning]:
    """What Apply Concept Strengthen makes of a word."""
    made: tuple[Any, Conditioning] = ConceptStrengthen.execute(
        model=model,
        conditioning=conditioning,
        hrv=random_hrv(head_layout(model)),
        words="red",
        concept="Color",
        strength=strength,
        start=0.0,
        end=1.0,
        clamp=0.0,
    ).result
    return made


def assert_a_word_can_be_strengthened(model: Any, published: FullSize) -> None:
    """In one step with two prompts: one changes, the other's control has the strength 0 and changes no bit."""
    pooled = torch.randn(1, 768, generator=torch.Generator().manual_seed(0))
    own, other = (prompt(WORDS, seed=seed, width=published.text, pooled_output=pooled) for seed in (1, 2))
    plain = rows_of(model, [*own, *other], other, published.kind.latent, cfg=1.0, steps=1)
    steered, controlled = strengthened(model, own, 1.5)
    steered, off = strengthened(steered, other, 0.0)
    found = rows_of(steered, [*controlled, *off], other, published.kind.latent, cfg=1.0, steps=1)
    changes = []
    for before, after in zip(plain, found, strict=True):
        assert torch.isfinite(after.output).all() and torch.equal(before.context, after.context)
        changes.append(relative_error(after.output, before.output))
    assert min(changes) == 0.0 and 1e-3 < max(changes) < 1.0 and len(changes) == 2


@pytest.mark.parametrize("name", RUNNING)
def test_a_word_is_strengthened_in_blocks_of_the_published_width(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    published = FULL_SIZE[name]
    with loaded(tmp_path, monkeypatch, published) as model:
        assert_complete(caplog.messages)
        assert type(model.model.model_config).__name__ == published.config
        assert comfy.utils.weight_dtype(model.model.diffusion_model.state_dict()) == torch.bfloat16
        assert head_layout(model).signature == layout_of(name, layers=1).signature
        assert_a_word_can_be_strengthened(model, published)


def pairs() -> Pairs:
    """One pair of prompts for Wan."""
    a, b = (prompt(WORDS, seed=seed, width=WAN.text) for seed in (1, 2))
    return Pairs(["one"], a, b, *(torch.randn(1, *WAN.kind.latent) for _ in range(2)))


def test_plain_fp8_weights_are_controlled_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    weights = {name: weight.to(FP8) for name, weight in WAN.file_of_one_block().items()}
    with loaded(tmp_path, monkeypatch, WAN, weights, weight_dtype="fp8_e4m3fn") as model:
        assert_complete(caplog.messages)
        assert comfy.utils.weight_dtype(model.model.diffusion_model.state_dict()) == FP8
        assert_a_word_can_be_strengthened(model, WAN)
        effects = Attribution(model, alphas=2).effects(pairs(), 0.7)
        assert (effects.squares > 0).all() and (effects.heads != 0).any()


def test_scaled_fp8_weights_are_controlled_and_for_gradients_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The numbers of every matrix have a scale beside them, as in files that say so with ``scaled_fp8``."""
    weights = WAN.file_of_one_block()
    matrices = [name for name, weight in weights.items() if name.endswith(".weight") and weight.ndim == 2]
    weights.update({name: weights[name].to(FP8) for name in matrices})
    weights.update({name.removesuffix("weight") + "scale_weight": torch.tensor([1.5]) for name in matrices})
    weights["scaled_fp8"] = torch.zeros(2).to(FP8)
    with loaded(tmp_path, monkeypatch, WAN, weights) as model:
        assert_complete(caplog.messages)
        assert_a_word_can_be_strengthened(model, WAN)
        with pytest.raises(
            HRVError, match=r"^This model's weights are quantised \(text_embedding\.0\.weight: .*Load the checkpoint in"
        ):
            Attribution(model)


def test_anima_and_its_text_encoder_from_files_to_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Both at their published widths: one block with the adapter of the text, and one layer of Qwen3 0.6B."""
    one_layer = {"qwen3_06b_model_config": {"num_hidden_layers": 1}}
    encoder = comfy.text_encoders.anima.te()(device="meta", dtype=torch.bfloat16, model_options=one_layer)
    path = tmp_path / "qwen.safetensors"
    write_random(path, encoder.qwen3_06b.transformer.state_dict())
    latent = {"samples": torch.zeros(1, 16, 1, 8, 8)}

    def picture(model: Any, positive: Conditioning, negative: Conditioning) -> torch.Tensor:
        found: torch.Tensor = KSampler().sample(model, 5, 1, 4.0, "euler", "simple", positive, negative, latent)[0][
            "samples"
        ]
        return found

    with loaded(tmp_path, monkeypatch, FULL_SIZE["Anima"]) as model, torch.inference_mode():
        clip = comfy.sd.load_clip([str(path)], model_options=one_layer)
        path.unlink()
        assert_complete(caplog.messages)
        positive, negative = encoded(clip, "a red car"), encoded(clip, "ugly")
        assert positive[0][0].shape[-1] == FULL_SIZE["Anima"].text
        plain, off, steered = (
            picture(*made, negative)
            for made in ((model, positive), *(strengthened(model, positive, strength) for strength in (0.0, 1.5)))
        )
    assert torch.isfinite(steered).all() and torch.equal(off, plain)
    assert relative_error(steered, plain) > 1e-3
