"""Living with others on the same layers: whoever was there is still called, and gets the scaled values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from comfy.ldm.modules.attention import optimized_attention
from hrv_pack.host.models.architectures import unet_of
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.hrv.controls.control import adjust, strengthen
from hrv_pack.hrv.heads.layout import LayerKey
from hrv_pack.hrv.progress import Window
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.nodes.controls import ConceptAdjust, ConceptStrengthen
from hrv_pack.tests.support.small_host import (
    encoded,
    latents,
    relative_error,
)

STEPS = 2
RED = 2

Seen = list[tuple[str, LayerKey, torch.Tensor, dict[str, Any]]]


@pytest.fixture(scope="module")
def prompts(clip: Any) -> tuple[Any, Any]:
    return encoded(clip, "a red car"), encoded(clip, "ugly")


def foreign(seen: Seen, name: str) -> Callable[..., torch.Tensor]:
    """Another pack's replacer: keeps what it gets and gives half of the attention."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
        seen.append((name, (*extra["block"], extra["block_index"]), v.clone(), extra))
        return optimized_attention(q, k, v, extra["n_heads"]) * 0.5

    return attend


def with_foreign(model: Any, seen: Seen, keys: str) -> Any:
    """A clone with foreign replacers at every layer, under two-part or three-part keys or both."""
    clone = model.clone()
    for block, number, index in unet_of(model).cross_attention:
        if keys in ("two", "both"):
            clone.set_model_attn2_replace(foreign(seen, "two"), block, number)
        if keys in ("three", "both"):
            clone.set_model_attn2_replace(foreign(seen, "three"), block, number, index)
    return clone


def with_controls(model: Any, positive: Any, hrv: HRV) -> tuple[Any, Any]:
    """Two controls on one word, one node after the other."""
    model, positive = ConceptStrengthen.execute(
        model=model,
        conditioning=positive,
        hrv=hrv,
        words="red",
        concept="Color",
        strength=1.0,
        start=0.0,
        end=1.0,
        clamp=0.0,
    ).result
    return ConceptAdjust.execute(
        model=model,
        conditioning=positive,
        hrv=hrv,
        words="red",
        desired="Shape",
        undesired="Size",
        strength=0.5,
        start=0.0,
        end=1.0,
        clamp=0.0,
        desired_weight=2.0,
        undesired_weight=-1.0,
    ).result


@pytest.mark.parametrize("keys", ["two", "three", "both"])
@pytest.mark.parametrize("ours_first", [False, True])
def test_a_replacer_that_is_there_gets_the_scaled_values(
    model: Any, hrv: HRV, prompts: Any, keys: str, ours_first: bool
) -> None:
    layout = head_layout(model)
    plain: Seen = []
    latents(with_foreign(model, plain, keys), prompts[0], prompts[1], steps=STEPS)
    seen: Seen = []
    if ours_first:
        patched, positive = with_controls(model, prompts[0], hrv)
        patched = with_foreign(patched, seen, keys)
    else:
        patched, positive = with_controls(with_foreign(model, seen, keys), prompts[0], hrv)
    found = latents(patched, positive, prompts[1], steps=STEPS)
    other_way, positive = with_controls(with_foreign(model, [], keys), prompts[0], hrv)
    assert torch.equal(found, latents(other_way, positive, prompts[1], steps=STEPS))

    # Each layer once an evaluation, by the replacer that the host would have called.
    expected_name = "two" if keys == "two" else "three"
    assert len(seen) == len(plain) == STEPS * len(layout.layers)
    assert {name for name, *_ in seen} == {expected_name}
    controls = [
        strengthen(hrv, "Color", [RED], 1.0, Window(), None),
        adjust(hrv, "Shape", "Size", [RED], 0.5, Window(), None),
    ]
    for (_, key, values, extra), (_, plain_key, plain_values, _) in zip(seen, plain, strict=True):
        assert key == plain_key
        heads = layout.head_slice(key)
        factors = torch.from_numpy(controls[0].weights[heads] * controls[1].weights[heads])
        expected = plain_values.clone()
        row = extra["cond_or_uncond"].index(0)
        width = values.shape[-1] // len(factors)
        expected[row, RED] *= factors.repeat_interleave(width)
        assert relative_error(values, expected) <= 1e-6
        others = [position for position in range(values.shape[1]) if position != RED]
        assert torch.equal(values[:, others], plain_values[:, others])
        assert torch.equal(values[1 - row], plain_values[1 - row])
        assert not torch.equal(values[row, RED], plain_values[row, RED])


def test_replacers_of_some_layers_do_not_keep_controls_from_the_others(model: Any, hrv: HRV, prompts: Any) -> None:
    seen: Seen = []
    some = model.clone()
    some.set_model_attn2_replace(foreign(seen, "two"), "middle", 0)
    some.set_model_attn2_replace(foreign(seen, "three"), "output", 1, 0)
    patched, positive = with_controls(some, prompts[0], hrv)
    found = latents(patched, positive, prompts[1], steps=STEPS)
    assert {(name, key) for name, key, *_ in seen} == {("two", ("middle", 0, 0)), ("three", ("output", 1, 0))}
    assert relative_error(latents(some, prompts[0], prompts[1], steps=STEPS), found) > 1e-3
    alone, positive = with_controls(model, prompts[0], hrv)
    assert relative_error(latents(alone, positive, prompts[1], steps=STEPS), found) > 1e-3


def test_a_chosen_attention_backend_stays_chosen(model: Any, hrv: HRV, prompts: Any) -> None:
    calls: list[tuple[int, int]] = []

    def override(backend: Any, q: torch.Tensor, k: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append((q.shape[1], k.shape[1]))
        return backend(q, k, *args, **kwargs)

    chosen = model.clone()
    chosen.model_options["transformer_options"]["optimized_attention_override"] = override
    plain = latents(chosen, prompts[0], prompts[1], steps=STEPS)
    expected, calls[:] = list(calls), []
    patched, positive = with_controls(chosen, prompts[0], hrv)
    assert not torch.equal(latents(patched, positive, prompts[1], steps=STEPS), plain)
    assert calls == expected and sum(tokens == 77 for _, tokens in calls) == STEPS * len(head_layout(model).layers)
