"""Edits beside other packs on the same hooks: what composes, and what is left out and said so."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from comfy_execution.utils import CurrentNodeContext
from comfy_extras.nodes_hypertile import HyperTile
from hrv_pack.host.models.architectures import unet_of
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.tests.host.controls.test_other_packs import image_attention, negpip, with_adapter, with_couple
from hrv_pack.tests.host.editing.test_run import SOURCE, TARGET, run
from hrv_pack.tests.support.explicit_edits import empty_latent, prompt_edit, with_explicit_edits
from hrv_pack.tests.support.small_host import encoded, random_hrv, relative_error

TOLERANCE = 1e-4
Shown = list[tuple[str, str, str]]
Both = Callable[..., tuple[Any, Any]]


def beside_couple(model: Any, clip: Any) -> tuple[Any, Any]:
    return with_couple(model, "cond_or_uncond_couple", encoded(clip, "a red bird")), clip


def beside_negpip(model: Any, clip: Any) -> tuple[Any, Any]:
    return negpip(model, clip, -1.0, marked=True)


def beside_hypertile(model: Any, clip: Any) -> tuple[Any, Any]:
    return HyperTile.execute(model, 32, 1, 0, False)[0], clip


# Each changes the rows or the tokens of one kind of attention, which the edit would take from its source.
LEFT_OUT: dict[str, tuple[Both, dict[str, float]]] = {
    "attention couple": (beside_couple, {"cross_end": 0.9}),
    "NegPip": (beside_negpip, {"cross_end": 0.9}),
    "HyperTile": (beside_hypertile, {"self_end": 0.9, "self_size": 1.0}),
}


@pytest.mark.parametrize(("beside", "windows"), LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_where_rows_or_tokens_are_others_edits_are_left_out_and_said_once(
    model: Any, clip: Any, shown: Shown, caplog: pytest.LogCaptureFixture, beside: Both, windows: dict[str, float]
) -> None:
    changed, its = beside(model, clip)
    source, target, negative = (encoded(its, text) for text in (SOURCE, TARGET, "ugly"))
    # Tiles of a latent of this size are smaller than it.
    latent = empty_latent(size=16)
    edited = prompt_edit(changed, source, target, latent, **windows)
    closed = prompt_edit(changed, source, target, latent)
    with caplog.at_level(logging.WARNING), CurrentNodeContext("a prompt", "7"):
        found = run(edited, negative)
        ((text, node, _),) = shown
        assert text.startswith("HRV: Another node changed how prompts share") and "prompt edits have no effect" in text
        assert node == "7" and caplog.text.count("prompt edits have no effect") == 1
        shown.clear()
        # With nothing to exchange there is nothing to leave out.
        expected = run(closed, negative)
    assert shown == []
    if beside is beside_hypertile:
        # Layers that are not in tiles still take their source's self-attention.
        assert relative_error(found[:1], expected[:1]) <= TOLERANCE
    else:
        assert torch.equal(found, expected)


@pytest.mark.parametrize("concept", [None, "Color"])
@pytest.mark.parametrize("parts", [2, 3])
def test_image_adapters_and_edits_are_both_in_effect(model: Any, clip: Any, parts: int, concept: str | None) -> None:
    """In both orders on the model, also where a second adapter joins the first one's object."""
    source, target, negative = (encoded(clip, text) for text in (SOURCE, TARGET, "ugly"))
    hrv = random_hrv(head_layout(model))
    how: dict[str, Any] = {"cross_end": 0.6} if concept is None else {"cross_end": 0.6, "hrv": hrv, "concept": concept}

    def adapted(model: Any) -> Any:
        return with_adapter(model, 0.7, parts)

    edited = prompt_edit(model, source, target, **how)
    found = run(edited, negative, adapted(adapted(edited[0])))
    for model_with in (
        prompt_edit(adapted(adapted(model)), source, target, **how)[0],
        adapted(prompt_edit(adapted(model), source, target, **how)[0]),
    ):
        assert torch.equal(run(edited, negative, model_with), found)
    assert relative_error(run(edited, negative), found) > 0.01
    assert relative_error(run(edited, negative, adapted(adapted(model))), found) > 0.01

    # The oracle: explicit maps with the edit, plus what the images add once, from each row's own queries.
    factors = torch.from_numpy(hrv.row("Color").astype("float64"))

    def change(maps: torch.Tensor, own: torch.Tensor, heads: slice, progress: float) -> torch.Tensor:
        if progress >= 0.6:
            return own
        maps = maps.clone()
        if concept is not None:
            maps[..., 2] = own[..., 2] * factors[heads, None]
        return maps

    exact = with_explicit_edits(model, {1: change})
    replacers = exact.model_options["transformer_options"]["patches_replace"]["attn2"]
    for key in unet_of(model).cross_attention:
        maps = replacers[key]

        def both(q: Any, k: Any, v: Any, extra: Any, maps: Any = maps) -> torch.Tensor:
            return maps(q, k, v, extra) + 2 * image_attention(q, q, k, v, extra, 0.7)

        exact.set_model_attn2_replace(both, *key)
    assert relative_error(found, run(edited, negative, exact)) <= TOLERANCE
