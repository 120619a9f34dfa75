"""HRV-mini-T with random weights: the host computes and samples what was trained, and controls act on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.sample
import numpy as np
import pytest
import torch
from hrv_pack.host.building.build import BuildSettings, build_hrv
from hrv_pack.host.building.causal import CausalSettings, build_causal_hrv
from hrv_pack.host.building.value_contrast import instant_hrv
from hrv_pack.host.mechanism import add_reading, with_mechanism
from hrv_pack.host.mini.loader import WEIGHTS, load_mini
from hrv_pack.host.mini.model import TRANSFORMER_TOKENS
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.prompts.carried import CONTROLS_KEY
from hrv_pack.host.prompts.encoding import encode_prompt
from hrv_pack.hrv.building.pairs import examples_of
from hrv_pack.hrv.controls.control import strengthen
from hrv_pack.hrv.controls.reading import read_concept
from hrv_pack.hrv.progress import WHOLE, Window
from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
from hrv_pack.mini.batches import TrainingSettings, Vocabulary, draw_batch
from hrv_pack.mini.captions import draw_samples
from hrv_pack.mini.kinds import KINDS, kind_of
from hrv_pack.mini.training import export, load_weights, train
from hrv_pack.mini.transformer import TransformerNetwork
from hrv_pack.tests.support.small_host import random_hrv
from safetensors.torch import load_file

CAPTIONS = ["a large red striped circle on the left, night", "a tulip, snow"]
STEPS, CFG = 4, 4.0


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary()


@pytest.fixture(scope="module")
def weights(vocabulary: Vocabulary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HRV-mini's text model and a random transformer, no gate of which is closed."""
    torch.manual_seed(0)
    network = TransformerNetwork(len(vocabulary.token_ids))
    load_weights(network, WEIGHTS)
    with torch.no_grad():
        for weight in network.transformer.parameters():
            if not weight.any():
                weight.normal_(std=0.05)
    path = tmp_path_factory.mktemp("transformer") / "model.safetensors"
    export(network, path)
    return path


@pytest.fixture(scope="module")
def network(vocabulary: Vocabulary, weights: Path) -> TransformerNetwork:
    made = TransformerNetwork(len(vocabulary.token_ids)).eval()
    load_weights(made, weights)
    return made


@pytest.fixture(scope="module")
def mini(weights: Path) -> tuple[Any, Any, Any]:
    return load_mini(weights)


@pytest.fixture
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    return torch.randn(len(CAPTIONS), 12, 16, 16, generator=torch.Generator().manual_seed(1))


def prompts_of(mini: tuple[Any, Any, Any]) -> Any:
    """A conditioning of both captions, a row each."""
    return [[torch.cat([encode_prompt(mini[1], caption)[0][0][0] for caption in CAPTIONS]), {}]]


def sampled(mini: tuple[Any, Any, Any], noise: torch.Tensor, model: Any = None, positive: Any = None) -> torch.Tensor:
    """Scaled latents out of the host's sampler."""
    model = model or mini[0]
    negative, _ = encode_prompt(mini[1], "")
    samples: torch.Tensor = comfy.sample.sample(
        model, noise, STEPS, CFG, "euler", "simple", positive or prompts_of(mini), negative, torch.zeros_like(noise),
        disable_pbar=True, seed=0,
    )  # fmt: skip
    scaled: torch.Tensor = mini[0].model.process_latent_in(samples)
    return scaled


def test_its_heads_are_lumina_2s_in_fewer_layers(mini: tuple[Any, Any, Any], weights: Path) -> None:
    layout = head_layout(mini[0])
    assert layout.family == "lumina2" and [layer.heads for layer in layout.layers] == [8] * 8
    assert weights.stat().st_size <= 16 * 2**20
    assert KINDS["transformer"] is kind_of(load_file(weights)) is TransformerNetwork
    assert KINDS["unet"] is kind_of(load_file(WEIGHTS))


def test_no_caption_is_longer_than_its_prompts() -> None:
    vocabulary = Vocabulary()
    captions = [sample.caption for sample in draw_samples(3000, np.random.default_rng(0))[0]]
    rows = vocabulary.rows(captions)
    # With the start, an end, and an unknown word that training may put in.
    assert int((rows != rows[:, -1:]).sum(1).max()) + 2 <= TRANSFORMER_TOKENS


@pytest.mark.usefixtures("inference")
def test_words_are_encoded_as_in_training_and_as_hrv_mini_does(
    mini: tuple[Any, Any, Any], network: TransformerNetwork, vocabulary: Vocabulary
) -> None:
    found = network.encode(vocabulary.rows(CAPTIONS))
    ((context, _),) = prompts_of(mini)
    assert context.shape == (len(CAPTIONS), TRANSFORMER_TOKENS, 128)
    torch.testing.assert_close(context, found, atol=1e-4, rtol=1e-4)
    of_mini = encode_prompt(load_mini()[1], CAPTIONS[0])[0][0][0]
    torch.testing.assert_close(context[:1], of_mini[:, :TRANSFORMER_TOKENS], atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("inference")
def test_the_host_samples_what_the_network_draws(
    mini: tuple[Any, Any, Any], network: TransformerNetwork, vocabulary: Vocabulary, noise: torch.Tensor
) -> None:
    drawn = network.draw(vocabulary.rows(CAPTIONS), vocabulary.rows([""]), noise, STEPS, CFG)
    assert drawn.std() > 0.1
    torch.testing.assert_close(sampled(mini, noise), drawn, atol=2e-3, rtol=2e-3)


@pytest.mark.usefixtures("inference")
def test_controls_and_readings_act_on_its_words(mini: tuple[Any, Any, Any], noise: torch.Tensor) -> None:
    model, clip, _ = mini
    hrv = random_hrv(head_layout(model))
    prompt, words = encode_prompt(clip, CAPTIONS[0])
    one = noise[:1]

    def steered(strength: float) -> torch.Tensor:
        control = strengthen(hrv, "Color", words.find("red"), strength, Window(), None)
        ((context, extras),) = prompt
        return sampled(mini, one, with_mechanism(model), [[context, {**extras, CONTROLS_KEY: (control,)}]])

    plain = sampled(mini, one, model, prompt)
    assert torch.equal(steered(0.0), plain)
    assert not torch.allclose(steered(3.0), plain, atol=1e-3)
    other, _ = encode_prompt(clip, "a large blue striped circle on the left, night")
    reading = read_concept(hrv, "Color", 8, 1.0, WHOLE)
    assert not torch.allclose(
        sampled(mini, one, *add_reading(model, prompt, other, lambda _: reading)), plain, atol=1e-3
    )


@pytest.mark.usefixtures("inference")
def test_every_kind_of_hrv_can_be_built_of_it(mini: tuple[Any, Any, Any]) -> None:
    model, clip, _ = mini
    vocabulary = parse_vocabulary("Color: red, blue\nShape: circle, star\n")
    examples = examples_of(vocabulary, ["a large {word} on the left"])
    sampler = (1.0, "euler", "simple", 128, 128)
    causal = build_causal_hrv(model, clip, examples, CausalSettings(1, 0, 2, *sampler, batch_size=2))
    counted = build_hrv(model, clip, vocabulary, CAPTIONS, BuildSettings(2, 0, 2, *sampler, batch_size=2))
    for hrv in (causal.hrv, counted, instant_hrv(model, clip, vocabulary)):
        assert hrv.concepts == ("Color", "Shape") and hrv.layout == head_layout(model)
        assert np.isfinite(hrv.values).all() and hrv.values.any(axis=1).all()


def test_training_changes_the_transformer_and_leaves_the_words(tmp_path: Path, vocabulary: Vocabulary) -> None:
    settings = TrainingSettings(steps=2, batch=4, warm_up=1, decay=1, ema=0.0, alone=0.3, ends_empty=0.4)
    losses: list[float] = []

    def report(step: int, loss: float, rate: float) -> None:
        losses.append(loss)

    made = train(TransformerNetwork, settings, tmp_path / "checkpoint.pt", report, start=WEIGHTS)
    shipped = load_file(WEIGHTS)
    for name, weight in made.text.state_dict().items():
        assert torch.equal(weight, shipped[f"text.{name}"][: len(weight)].float())
    torch.manual_seed(settings.seed)
    fresh = TransformerNetwork(len(vocabulary.token_ids))
    moved = {name for name, weight in fresh.named_parameters() if not torch.equal(weight, made.get_parameter(name))}
    assert len(losses) == 2 and {"transformer.final_layer.linear.weight"} <= moved
    assert all(name.startswith(("transformer.", "text.")) for name in moved)


def test_the_loss_reaches_every_weight_of_open_blocks(network: TransformerNetwork, vocabulary: Vocabulary) -> None:
    batch = draw_batch(vocabulary, TrainingSettings(steps=1, batch=4), 0)
    network.loss(batch, half=False).backward()
    try:
        missed = [name for name, weight in network.transformer.named_parameters() if weight.grad is None]
        assert not missed and not any(weight.grad is not None for weight in network.text.parameters())
    finally:
        network.zero_grad(set_to_none=True)
