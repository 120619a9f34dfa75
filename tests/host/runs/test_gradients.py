"""Graphs that keep tensors which are changed in place afterwards, as the host and other nodes do with activations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from comfy.ldm.modules.diffusionmodules import openaimodel
from hrv_pack.host.models.architectures import architecture_of
from hrv_pack.host.runs.gradients import checkpointed, gradients
from hrv_pack.tests.support.small_host import relative_error, small_sd15

SIDE = 64


def drawn() -> torch.Tensor:
    return torch.linspace(1.0, 2.0, SIDE * SIDE).reshape(SIDE, SIDE).requires_grad_(True)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.add_(1.0),
        lambda h: h[:, 1:].mul_(3.0),
        lambda h: h.t()[5:].zero_(),
        lambda h: torch.neg(h.detach(), out=h.detach()),
        lambda h: torch._foreach_add_([h[0], h[1]], 1.0),
    ],
    ids=["whole", "from the second column on", "transposed", "out", "several"],
)
@pytest.mark.parametrize("inference", [False, True])
def test_what_is_kept_is_copied_before_it_changes(change: Callable[[torch.Tensor], None], inference: bool) -> None:
    with torch.inference_mode(inference), gradients():
        x = drawn()
        h = x * 1.0
        squares = h**2
        change(h)
        (found,) = torch.autograd.grad(squares.sum(), x)
    assert torch.equal(found, 2 * x)


def test_one_copy_serves_all_who_kept_a_tensor() -> None:
    with gradients() as kept:
        h = torch.ones(4)
        first, second, other = kept.keep(h), kept.keep(h), kept.keep(h[1:])
        h += 1.0
    assert first.tensor is second.tensor and other.tensor.shape == (3,)
    assert all(bool((one.tensor == 1).all()) for one in (first, second, other))


def test_a_tensor_in_the_place_of_one_that_changed_is_another() -> None:
    """Memory and Python's ids are used again as soon as the tensor that changed is gone."""
    with gradients():
        x = drawn()
        total: torch.Tensor | float = 0.0
        for factor in range(1, 200):
            h = x * factor
            total = total + (h**2).sum()
            h += 1.0
            del h
        assert isinstance(total, torch.Tensor)
        (found,) = torch.autograd.grad(total, x)
    expected = 2 * x.detach().double() * sum(factor**2 for factor in range(1, 200))
    assert relative_error(found, expected) <= 1e-5


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_controlnet_changes_what_other_blocks_got(checkpointing: bool) -> None:
    """The host adds to skip connections in place, which the blocks after them got before."""
    model = small_sd15()
    context = torch.randn(1, 77, 16, generator=torch.Generator().manual_seed(2))
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    hints = [torch.full((1, 1, 1, 1), 0.3)] * 20

    def loss(latent: torch.Tensor, unet: torch.nn.Module) -> torch.Tensor:
        control = {name: list(hints) for name in ("input", "middle", "output")}
        times = torch.full((1,), 500.0)
        return unet(latent, times, context=context, control=control, transformer_options={}).square().sum()

    with torch.inference_mode(), gradients() as kept:
        latent = x.clone().requires_grad_(True)
        view = checkpointed(model.model, architecture_of(model).checkpointed, kept) if checkpointing else model.model
        (found,) = torch.autograd.grad(loss(latent, view.diffusion_model), latent)
    exact = small_sd15(torch.float64).model.diffusion_model
    latent = x.double().requires_grad_(True)
    context, hints = context.double(), [hint.double() for hint in hints]
    # Out of place: every activation is another tensor.
    with torch.enable_grad():
        (expected,) = torch.autograd.grad(without_changes(lambda: loss(latent, exact)), latent)
    assert relative_error(found, expected) <= 1e-4


def without_changes(compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    """Run the host's network with sums of controls that make new tensors."""

    def added(h: torch.Tensor, control: dict[str, list[torch.Tensor]], name: str) -> torch.Tensor:
        return h + control[name].pop()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(openaimodel, "apply_control", added)
        return compute()
