"""Published transformers through the host's own loaders: their names, widths and layouts, and what is done with them.

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
import numpy as np
import pytest
import torch
from hrv_pack.host.building.attribution import Attribution, Pairs
from hrv_pack.host.building.patching import Patch
from hrv_pack.host.building.value_contrast import instant_hrv
from hrv_pack.host.models.architectures import architecture_of
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.prompts.carried import Conditioning
from hrv_pack.hrv.errors import HRVError
from hrv_pack.nodes.controls import ConceptStrengthen
from hrv_pack.nodes.reading import ReadByConcept
from hrv_pack.tests.host.building.test_transformer_recording import counted, recorded
from hrv_pack.tests.host.building.test_transformer_values import FRAMES, OUTPUTS, VOCABULARY, expected
from hrv_pack.tests.host.controls.test_transformers import rescaling
from hrv_pack.tests.host.editing.test_transformers import SOURCE, TARGET, by_words, plainly, run
from hrv_pack.tests.support.documented_families import UNET, documented
from hrv_pack.tests.support.explicit_transformer_edits import edit_of, explicitly_edited
from hrv_pack.tests.support.full_size_transformers import FULL_SIZE, LAYOUTS, FullSize, layout_of, without_memory
from hrv_pack.tests.support.random_files import assert_complete, write_random
from hrv_pack.tests.support.small_host import TOLERANCE, encoded, random_hrv, relative_error
from hrv_pack.tests.support.small_transformers import Row, clip_anima, clip_flux, explicitly, prompt, rows_of

from nodes import KSampler, UNETLoader

# What takes more than ten seconds where cores are slow, most of all Flux.2's 512 tokens and Chroma's 344 modulations.
SLOW = ("Z-Image", "Flux.1 dev", "Flux.2 klein 4B", "Chroma", "Qwen-Image")
# One of each family: a block of its larger ones is a file of 1 to 4.6 GB.
LARGER = ("Cosmos-Predict2 14B", "Flux.2 dev", "Flux.2 klein 9B", "Wan 2.1 14B", "Wan 2.2 5B")
RUNNING = [
    pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in FULL_SIZE if name not in LARGER
]
WAN = FULL_SIZE["Wan 2.1 1.3B"]
FP8 = torch.float8_e4m3fn


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
        words="car",
        concept="Color",
        strength=strength,
        start=0.0,
        end=1.0,
        clamp=0.0,
    ).result
    return made


def two_prompts(published: FullSize) -> tuple[Conditioning, Conditioning]:
    """Of equally many tokens, and with one pooled vector."""
    pooled = torch.randn(1, 768, generator=torch.Generator().manual_seed(0))
    own, other = (
        prompt(words, seed=seed, width=published.text, pooled_output=pooled)
        for words, seed in ((SOURCE, 1), (TARGET, 2))
    )
    return own, other


def assert_changed_to(expected: Row, found: Row, before: Row) -> None:
    """A row is the expected one, and not as it was."""
    assert relative_error(found.output, expected.output) <= TOLERANCE
    assert relative_error(found.output, before.output) > 100 * TOLERANCE


def assert_a_word_can_be_strengthened(model: Any, published: FullSize) -> tuple[Row, Row]:
    """As explicit maps say, in one step with two prompts: the other's control has the strength 0 and changes no bit.

    The rows of both without a control.
    """
    own, other = two_prompts(published)
    kind = published.kind
    how: dict[str, Any] = {"latent": kind.latent, "cfg": 1.0, "steps": 1}
    steered, controlled = strengthened(model, own, 1.5)
    steered, off = strengthened(steered, other, 0.0)
    plain = rows_of(model, [*own, *other], other, **how)
    found = rows_of(steered, [*controlled, *off], other, **how)
    rows = sorted(zip(plain, found, strict=True), key=lambda both: torch.equal(both[0].output, both[1].output))
    (before, after), (of_other, still) = rows
    place = max(0, kind.padded_to - own[0][0].shape[1]) + 1 + SOURCE.index("car")
    with explicitly(model, kind, [rescaling(model, before, (place,))]) as explicit:
        (expected,) = rows_of(explicit, own, other, **how)
    assert torch.equal(after.context, expected.context)
    assert_changed_to(expected, after, before)
    assert torch.equal(still.output, of_other.output)
    return before, of_other


def assert_another_prompt_can_be_read(model: Any, published: FullSize, before: Row, expected: Row) -> None:
    """With all heads it is as if that prompt were sampled."""
    own, other = two_prompts(published)
    hrv = random_hrv(head_layout(model))
    graph: tuple[Any, Conditioning] = ReadByConcept.execute(
        model=model,
        conditioning=own,
        other=other,
        hrv=hrv,
        concept="Shape",
        heads=hrv.layout.head_count,
        strength=1.0,
        start=0.0,
        end=1.0,
    ).result
    read, found = rows_of(*graph, own, published.kind.latent, cfg=1.0, steps=1)
    assert torch.equal(found.context, before.context) and torch.equal(read.context, expected.context)
    assert_changed_to(expected, found, before)


def assert_a_prompt_can_be_edited(model: Any, published: FullSize, of_source: Row, of_target: Row) -> None:
    """As explicit maps say; its source stays as it is."""
    own, other = two_prompts(published)
    kind = published.kind
    edited = edit_of(model, kind, own, other, cross_end=1.0, self_end=1.0, self_size=1.0)
    source, target = run(edited, own, kind, cfg=1.0, steps=1)
    with explicitly_edited(model, kind, target.context, by_words(model, kind), itself=True) as explicit:
        _, expected = run((explicit, plainly(edited[1])), own, kind, cfg=1.0, steps=1)
    assert relative_error(source.output, of_source.output) <= TOLERANCE
    assert_changed_to(expected, target, of_target)


@pytest.mark.parametrize("name", RUNNING)
def test_words_are_strengthened_read_and_edited_in_blocks_of_the_published_width(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    published = FULL_SIZE[name]
    with loaded(tmp_path, monkeypatch, published) as model:
        assert_complete(caplog.messages)
        assert type(model.model.model_config).__name__ == published.config
        assert comfy.utils.weight_dtype(model.model.diffusion_model.state_dict()) == torch.bfloat16
        assert head_layout(model).signature == layout_of(name, layers=1).signature
        plain = assert_a_word_can_be_strengthened(model, published)
        assert_another_prompt_can_be_read(model, published, *plain)
        assert_a_prompt_can_be_edited(model, published, *plain)


def pairs(published: FullSize) -> Pairs:
    """One pair of prompts."""
    generator = torch.Generator().manual_seed(0)
    noise, latent = (torch.randn(1, *published.kind.latent, generator=generator) for _ in range(2))
    return Pairs(["one"], *two_prompts(published), noise, latent)


@pytest.mark.parametrize("name", [name for name in FULL_SIZE if name not in (*SLOW, *LARGER)])
def test_heads_of_the_published_width_together_do_what_the_other_prompt_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loaded(tmp_path, monkeypatch, FULL_SIZE[name]) as model:
        effects = Attribution(model, alphas=4).effects(pairs(FULL_SIZE[name]), 0.7, [Patch()])
        np.testing.assert_allclose(effects.patches[:, 0], effects.squares, rtol=1e-4)
        np.testing.assert_allclose(effects.heads.sum(1), effects.squares, rtol=0.02)


@pytest.mark.parametrize("name", ["Anima", "Cosmos-Predict2 2B", "Wan 2.1 1.3B"])
def test_hrvs_are_built_in_blocks_of_the_published_width(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By weights, and by what heads look at; one joint attention with the 256 tokens of T5 would take a minute."""
    published = FULL_SIZE[name]
    kind = published.kind
    clip = (clip_anima if name == "Anima" else clip_flux)(published.text)
    with loaded(tmp_path, monkeypatch, published) as model, torch.inference_mode():
        values = instant_hrv(model, clip, VOCABULARY, frames=FRAMES).values
        by_definition = expected(model, kind, clip, OUTPUTS[kind](model.model.diffusion_model))
        np.testing.assert_allclose(values, by_definition, rtol=1e-3)
        found, _ = recorded(model, clip)
        by_maps = counted(model, kind, clip)
        assert found.sum() == by_maps.sum() and np.abs(found - by_maps).sum() <= 2


def test_plain_fp8_weights_are_controlled_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    weights = {name: weight.to(FP8) for name, weight in WAN.file_of_one_block().items()}
    with loaded(tmp_path, monkeypatch, WAN, weights, weight_dtype="fp8_e4m3fn") as model:
        assert_complete(caplog.messages)
        assert comfy.utils.weight_dtype(model.model.diffusion_model.state_dict()) == FP8
        assert_a_word_can_be_strengthened(model, WAN)
        effects = Attribution(model, alphas=2).effects(pairs(WAN), 0.7)
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
