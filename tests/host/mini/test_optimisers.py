"""Who trains which weights of HRV-mini and HRV-mini-T, and by what kind of step."""

from __future__ import annotations

import pytest
import torch
from hrv_pack.mini.kinds import KINDS, Kind
from hrv_pack.mini.optimisers import MUON_FACTOR, Optimisers

RATE = 1e-3


def moved_by_random_gradients(kind: Kind) -> tuple[dict[str, torch.Tensor], set[str], set[str]]:
    """Of a network with 9 tokens: what one step added to its weights, the matrices' names, and those that learn."""
    torch.manual_seed(0)
    network = kind(9)
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    matrices = {id(weight) for weight in network.matrices()}
    optimisers = Optimisers(network, RATE)
    for weight in optimisers.learning:
        weight.grad = torch.randn_like(weight)
    optimisers.step(RATE)
    named = dict(network.named_parameters())
    moved = {name: weight.detach() - before[name] for name, weight in named.items()}
    learning = {name for name, weight in named.items() if weight.requires_grad}
    return moved, {name for name, weight in named.items() if id(weight) in matrices}, learning


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_weight_that_learns_moves_once(kind: Kind) -> None:
    moved, matrices, learning = moved_by_random_gradients(kind)
    assert {name for name, change in moved.items() if bool(change.any())} == learning
    for name in learning - matrices:
        # AdamW's first step moves every number by its rate, besides the decay.
        assert float(moved[name].abs().median()) == pytest.approx(RATE, rel=0.05), name


def test_matrices_of_blocks_turn_and_all_others_do_not() -> None:
    moved, matrices, _ = moved_by_random_gradients(KINDS["transformer"])
    # Queries, keys and values in one; out; three of the feed-forward: in each of 8 blocks.
    assert len(matrices) == 8 * 5 and all(".layers." in name for name in matrices)
    for name in matrices:
        singular = torch.linalg.svdvals(moved[name])
        size = 0.2 * max(moved[name].shape) ** 0.5 * MUON_FACTOR * RATE
        assert float(singular.max()) < 1.5 * size and float(singular.quantile(0.05)) > 0.5 * size, name


def test_hrv_mini_is_trained_by_adamw_alone() -> None:
    assert moved_by_random_gradients(KINDS["unet"])[1] == set()


def test_gradients_are_forgotten() -> None:
    network = KINDS["transformer"](9)
    optimisers = Optimisers(network, RATE)
    for weight in optimisers.learning:
        weight.grad = torch.ones_like(weight)
    optimisers.forget_gradients()
    assert all(weight.grad is None for weight in network.parameters())
