"""Training that teaches words to speak for themselves: how captions are encoded, and that runs repeat and resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hrv_pack.host.mini.loader import WEIGHTS, load_mini
from hrv_pack.host.prompts.encoding import encode_prompt
from hrv_pack.mini.batches import Batch, Reading, TrainingSettings, Vocabulary, draw_batch, draw_reading
from hrv_pack.mini.kinds import KINDS, Kind
from hrv_pack.mini.networks import LARGE_MAPS, MiniNetwork, explicit_attention
from hrv_pack.mini.training import load_weights, train
from hrv_pack.mini.unet import UNetNetwork

CAPTIONS = ["the forest circle", "a small red striped circle on the left, night", "huge", "a mint and a circle"]
COUNT = len(CAPTIONS)
PLAIN = Reading(torch.zeros(COUNT, dtype=torch.bool), torch.arange(COUNT))
CURE: Any = {"alone": 0.35, "ends_empty": 0.4, "ends_other": 0.3}


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary()


@pytest.fixture(scope="module")
def network(vocabulary: Vocabulary) -> MiniNetwork:
    """The shipped weights."""
    made = UNetNetwork(len(vocabulary.token_ids))
    load_weights(made, WEIGHTS)
    return made.requires_grad_(False)


@pytest.fixture(scope="module")
def rows(vocabulary: Vocabulary) -> torch.Tensor:
    return vocabulary.rows(CAPTIONS)


@pytest.fixture(scope="module")
def lengths(rows: torch.Tensor) -> list[int]:
    """Tokens of the captions, with the start and without the end."""
    return [int(count) for count in (rows != rows[:, -1:]).sum(1)]


def test_captions_are_encoded_as_the_host_does(network: MiniNetwork, rows: torch.Tensor) -> None:
    clip = load_mini()[1]
    found = network.encode(rows)
    for row, caption in enumerate(CAPTIONS):
        torch.testing.assert_close(encode_prompt(clip, caption)[0][0][0], found[row : row + 1], atol=1e-4, rtol=1e-4)


def test_a_reading_that_changes_nothing_changes_nothing(network: MiniNetwork, rows: torch.Tensor) -> None:
    torch.testing.assert_close(network.encode(rows, PLAIN), network.encode(rows))


def test_end_and_padding_are_those_of_the_empty_prompt(
    network: MiniNetwork, vocabulary: Vocabulary, rows: torch.Tensor, lengths: list[int]
) -> None:
    found = network.encode(rows, PLAIN._replace(ends=torch.full((COUNT,), COUNT)))
    plain, empty = network.encode(rows), network.encode(vocabulary.rows([""]))[0]
    for row, length in enumerate(lengths):
        torch.testing.assert_close(found[row, :length], plain[row, :length])
        torch.testing.assert_close(found[row, length:], empty[length:])


def test_end_and_padding_are_those_of_another_caption_and_never_its_words(
    network: MiniNetwork, vocabulary: Vocabulary, rows: torch.Tensor, lengths: list[int]
) -> None:
    order = [1, 0, 3, 2]
    found = network.encode(rows, PLAIN._replace(ends=torch.tensor(order)))
    plain, empty = network.encode(rows), network.encode(vocabulary.rows([""]))[0]
    for row, (length, other) in enumerate(zip(lengths, order, strict=True)):
        until = max(length, lengths[other])
        torch.testing.assert_close(found[row, :length], plain[row, :length])
        torch.testing.assert_close(found[row, length:until], empty[length:until])
        torch.testing.assert_close(found[row, until:], plain[other, until:])


def test_words_read_alone_do_not_depend_on_the_others(network: MiniNetwork, vocabulary: Vocabulary) -> None:
    one, other = "a red circle on the left", "a blue circle, snow, huge"
    for alone in (True, False):
        reading = Reading(torch.tensor([alone, alone]), torch.arange(2))
        found = network.encode(vocabulary.rows([one, other]), reading)
        assert bool(torch.isclose(found[0, 3], found[1, 3]).all()) == alone
    plain = network.encode(vocabulary.rows(["red"]))
    alone_states = network.encode(vocabulary.rows(["red circle"]), Reading(torch.tensor([True]), torch.arange(1)))
    torch.testing.assert_close(alone_states[0, :2], plain[0, :2])


def test_readings_come_in_their_shares() -> None:
    settings = TrainingSettings(steps=1, **CURE)
    reading = draw_reading(settings, 20_000, np.random.default_rng(0))
    own, empty = reading.ends == torch.arange(20_000), reading.ends == 20_000
    shares = [float(part.float().mean()) for part in (reading.alone, empty, ~(own | empty))]
    assert shares == pytest.approx([0.35, 0.4, 0.3], abs=0.015)
    assert int(reading.ends.min()) >= 0 and int(reading.ends.max()) <= 20_000
    neutral = draw_reading(TrainingSettings(steps=1), 100, np.random.default_rng(0))
    assert not neutral.alone.any() and torch.equal(neutral.ends, torch.arange(100))


def test_large_maps_are_made_picture_by_picture_with_the_same_result() -> None:
    random = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 160, 16, generator=random) for _ in range(3))
    assert q.shape[1] * k.shape[1] >= LARGE_MAPS
    found = explicit_attention(q, k, v, 2)
    heads = [part.unflatten(-1, (2, 8)).transpose(1, 2) for part in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    torch.testing.assert_close(found, expected)


def test_a_step_is_drawn_from_its_number_alone(vocabulary: Vocabulary) -> None:
    settings = TrainingSettings(steps=9, batch=6, **CURE)
    first, again, next_one = (draw_batch(vocabulary, settings, step) for step in (4, 4, 5))
    assert torch.equal(first.latents, again.latents) and torch.equal(first.rows, again.rows)
    assert all(torch.equal(*pair) for pair in zip(first.reading, again.reading, strict=True))
    assert not torch.equal(first.latents, next_one.latents)


def test_the_loss_reaches_words_and_heads(network: MiniNetwork, vocabulary: Vocabulary) -> None:
    batch: Batch = draw_batch(vocabulary, TrainingSettings(steps=1, batch=4, **CURE), 0)
    network.requires_grad_(True)
    try:
        loss = network.loss(batch, half=False)
        loss.backward()
        rows = network.text.text_model.embeddings.token_embedding.weight.grad
        assert 0 < loss.item() < 0.5
        assert rows is not None and bool(rows[batch.rows.unique()].any())
    finally:
        network.zero_grad(set_to_none=True)
        network.requires_grad_(False)


def test_rates_warm_up_stay_and_fall() -> None:
    settings = TrainingSettings(steps=100, rate=1.0, warm_up=10, decay=50)
    assert [settings.rate_at(step) for step in (0, 9, 30, 50, 75, 100)] == pytest.approx([0.1, 1, 1, 1, 0.5, 0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_run_that_was_interrupted_gives_the_same_weights(kind: Kind, tmp_path: Path) -> None:
    settings = TrainingSettings(steps=2, batch=2, warm_up=1, decay=1, **CURE)
    whole = train(kind, settings, tmp_path / "whole.pt", lambda *_: None, start=WEIGHTS)

    def stop(step: int, loss: float, rate: float) -> None:
        if step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(kind, settings, tmp_path / "parts.pt", stop, save_every=1, start=WEIGHTS)
    resumed = train(kind, settings, tmp_path / "parts.pt", lambda *_: None, start=WEIGHTS)
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), resumed.parameters(), strict=True))
