"""HRV-mini-T as it ships: the node loads it, it draws what captions say, and its HRV names the heads that count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import comfy.sample
import pytest
import torch
from hrv_pack.host.mechanism import add_reading
from hrv_pack.host.mini.loader import MINI_TRANSFORMER, TRANSFORMER_WEIGHTS
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.prompts.encoding import encode_prompt
from hrv_pack.hrv.controls.reading import Reading, read_concept
from hrv_pack.hrv.progress import WHOLE
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.mini.scorer import read_pictures
from hrv_pack.nodes.mini import LoadMini

PICTURES, STEPS, CFG = 8, 8, 4.0


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    # The host's nodes run without gradients.
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def mini() -> tuple[Any, Any, Any]:
    return LoadMini.execute(weights=MINI_TRANSFORMER).result


@pytest.fixture(scope="module")
def causal() -> HRV:
    return load_hrv(TRANSFORMER_WEIGHTS.parents[1] / "hrvs" / "hrv-mini-t-causal.safetensors")


def shapes(mini: tuple[Any, Any, Any], prompt: str, other: str = "", reading: Reading | None = None) -> list[Any]:
    """The colors and shapes in pictures of a prompt, of which a reading takes some heads from another prompt."""
    model, clip, vae = mini
    positive = encode_prompt(clip, prompt)[0]
    if reading is not None:
        model, positive = add_reading(model, positive, encode_prompt(clip, other)[0], lambda _: reading)
    noise = torch.randn(PICTURES, 12, 16, 16, generator=torch.Generator().manual_seed(3))
    samples = comfy.sample.sample(
        model, noise, STEPS, CFG, "dpmpp_2m", "simple", positive, encode_prompt(clip, "")[0], torch.zeros_like(noise),
        disable_pbar=True, seed=0,
    )  # fmt: skip
    readings = read_pictures(vae.decode(samples).movedim(-1, 1))
    return [[(thing.color, thing.shape) for thing in one.shapes] for one in readings]


def test_the_node_loads_a_transformer_of_64_heads_that_its_hrv_belongs_to(
    mini: tuple[Any, Any, Any], causal: HRV
) -> None:
    layout = head_layout(mini[0])
    assert layout.family == "lumina2" and layout.head_count == 64
    assert causal.layout == layout
    assert causal.concepts == ("Color", "Shape", "Pattern", "Size", "Position", "Scene", "Plants")


def test_it_draws_two_shapes_in_their_colors_where_the_caption_says(mini: tuple[Any, Any, Any]) -> None:
    found = shapes(mini, "a green square and a yellow cross, snow")
    assert found.count([("green", "square"), ("yellow", "cross")]) >= PICTURES - 1


def test_the_heads_of_shape_take_the_shape_of_another_prompt_and_leave_the_color(
    mini: tuple[Any, Any, Any], causal: HRV
) -> None:
    reading = read_concept(causal, "Shape", 16, 1.0, WHOLE)
    prompt, other = "a large red circle, snow", "a large blue star, snow"
    assert shapes(mini, prompt).count([("red", "circle")]) >= PICTURES - 2
    assert shapes(mini, prompt, other, reading).count([("red", "star")]) >= PICTURES // 2
