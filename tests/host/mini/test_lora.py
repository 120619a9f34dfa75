"""The LoRA that ships, loaded by the host's own node: every thing becomes a sticker and stays what its caption says."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import product
from typing import Any

import folder_paths
import pytest
import torch
from hrv_pack.host.files.folders import SHIPPED, SHIPPED_LORAS, register_loras
from hrv_pack.host.mini.loader import WEIGHTS, load_mini
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.mini.scorer import read_pictures
from hrv_pack.mini.stickers import RIM, draw_stickers
from hrv_pack.mini.world import COLORS, NOTHING, RADII, SHAPE, SHAPES, SIZE, Pictures, thing_distance
from hrv_pack.nodes.controls import ConceptAdjust
from hrv_pack.nodes.text_encode import TextEncode
from hrv_pack.tests.support.small_host import relative_error
from safetensors.torch import load_file, save_file

from nodes import CLIPTextEncode, KSampler, LoraLoaderModelOnly, VAEDecode

# The host's nodes run without gradients.
pytestmark = pytest.mark.usefixtures("inference")

NAME = "hrv-mini-stickers.safetensors"

# No white things and no snow, before which a white rim would be hard to see.
THINGS = [("red", "circle"), ("yellow", "star"), ("blue", "square")]
SCENES = ["night", "forest", "ocean"]
CAPTIONS = [
    f"a large {color} plain {shape} in the center, {scene}"
    for (color, shape), scene in zip(THINGS, SCENES, strict=True)
]


@pytest.fixture
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def mini() -> tuple[Any, Any, Any]:
    return load_mini()


@pytest.fixture(scope="module")
def stickers(mini: tuple[Any, Any, Any]) -> Any:
    """HRV-mini's MODEL with the LoRA."""
    register_loras()
    with torch.inference_mode():
        return LoraLoaderModelOnly().load_lora_model_only(mini[0], NAME, 1.0)[0]


@pytest.fixture(scope="module")
def hrv() -> HRV:
    return load_hrv(SHIPPED / "hrv-mini.safetensors")


def sampled(mini: tuple[Any, Any, Any], model: Any, positive: Any, count: int, steps: int, side: int = 16) -> Any:
    """Samples [count, 12, side, side] of the host's KSampler."""
    (negative,) = CLIPTextEncode().encode(mini[1], "")
    latent = {"samples": torch.zeros(count, 12, side, side)}
    return KSampler().sample(model, 5, steps, 4.0, "euler", "normal", positive, negative, latent)[0]["samples"]


def drawn(mini: tuple[Any, Any, Any], model: Any) -> torch.Tensor:
    """A picture [B, 3, 32, 32] of every caption of :data:`CAPTIONS`."""
    prompts = [CLIPTextEncode().encode(mini[1], caption)[0][0] for caption in CAPTIONS]
    # A conditioning with as many rows as the latent gives each its own prompt.
    positive = [[torch.cat([context for context, _ in prompts]), prompts[0][1]]]
    samples = sampled(mini, model, positive, len(CAPTIONS), steps=10)
    (pictures,) = VAEDecode().decode(mini[2], {"samples": samples})
    return torch.nn.functional.avg_pool2d(pictures.movedim(-1, 1), pictures.shape[1] // SIZE)


@pytest.fixture(scope="module")
def with_it(mini: tuple[Any, Any, Any], stickers: Any) -> torch.Tensor:
    with torch.inference_mode():
        return drawn(mini, stickers)


@pytest.fixture(scope="module")
def without_it(mini: tuple[Any, Any, Any]) -> torch.Tensor:
    with torch.inference_mode():
        return drawn(mini, mini[0])


def pictures_of(looks: torch.Tensor) -> Pictures:
    """Pictures of one plain shape each from rows of form, color, x, y and radius [N, 5], by day."""
    form, color, x, y, radius = (torch.stack([column, column], -1) for column in looks.unbind(-1))
    nothing = torch.zeros(len(looks), 2, dtype=torch.long)
    kind = torch.tensor([SHAPE, NOTHING]).expand(len(looks), 2)
    return Pictures(kind, form.long(), color.long(), nothing, x, y, radius, nothing[:, 0], torch.zeros(len(looks)))


def nearest_sticker(pictures: torch.Tensor) -> tuple[list[tuple[str, str]], Pictures]:
    """Colors and shapes of the large stickers near the center that pictures [B, 3, 32, 32] show, and the stickers.

    The truth scorer tells things by their silhouettes, of which rims are no part. Here all are rendered, and compared
    with the pictures within half a pixel less than their rims, whose edges are blended with the scene.
    """
    shifts, sizes = (14.8, 15.5, 16.2), (0.96, 1.0, 1.04)
    radii = [RADII["large"] * size for size in sizes]
    looks = torch.tensor(list(product(range(len(SHAPES)), range(len(COLORS)), shifts, shifts, radii)))
    things = pictures_of(looks)
    near = (thing_distance(things) < RIM - 0.5)[:, None].expand(-1, 3, -1, -1).flatten(1).float()
    wanted = draw_stickers(things).flatten(1) * near
    found = pictures.flatten(1)
    squares = found.square() @ near.T - 2 * found @ wanted.T + wanted.square().sum(1)
    best = (squares / near.sum(1)).argmin(1)
    words = [(list(COLORS)[int(color)], SHAPES[int(form)]) for form, color, *_ in looks[best].tolist()]
    return words, things[best]


def whiteness(pictures: torch.Tensor, things: Pictures) -> torch.Tensor:
    """Means [B] over where each thing's rim is or would be of the least of red, green and blue."""
    distance = thing_distance(things)
    rim = (distance > 0.2) & (distance < RIM - 0.2)
    return (pictures.amin(1) * rim).sum((1, 2)) / rim.sum((1, 2))


def test_the_hosts_node_lists_it_behind_the_users_own() -> None:
    register_loras()
    register_loras()
    folders = folder_paths.get_folder_paths("loras")
    assert folders.count(str(SHIPPED_LORAS)) == 1 and folders[0] != str(SHIPPED_LORAS)
    assert NAME in LoraLoaderModelOnly.INPUT_TYPES()["required"]["lora_name"][0]
    assert (SHIPPED_LORAS / NAME).stat().st_size <= 2**20


def test_every_weight_of_it_is_used(mini: tuple[Any, Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    register_loras()
    with caplog.at_level(logging.WARNING):
        (model,) = LoraLoaderModelOnly().load_lora_model_only(mini[0], NAME, 1.0)
    assert caplog.messages == []
    tensors = load_file(SHIPPED_LORAS / NAME)
    assert {weight.dtype for weight in tensors.values()} == {torch.float16}
    assert len(model.patches) == len(tensors) / 2 > 0
    assert not mini[0].patches


def test_things_become_stickers_and_stay_what_they_are(with_it: torch.Tensor, without_it: torch.Tensor) -> None:
    plain = read_pictures(without_it)
    assert [(reading.shapes[0].color, reading.shapes[0].shape) for reading in plain] == THINGS
    named, things = nearest_sticker(with_it)
    assert named == THINGS
    assert [reading.scene for reading in read_pictures(with_it)] == SCENES
    looks = [
        (SHAPES.index(thing.shape), list(COLORS).index(thing.color), thing.x, thing.y, thing.radius)
        for thing in (reading.shapes[0] for reading in plain)
    ]
    assert (whiteness(with_it, things) > 0.65).all()
    assert (whiteness(without_it, pictures_of(torch.tensor(looks))) < 0.4).all()


def test_controls_work_on_it_as_on_weights_that_contain_it(
    mini: tuple[Any, Any, Any], stickers: Any, hrv: HRV, tmp_path: Any
) -> None:
    (prompt,) = TextEncode.execute(mini[1], "a rose circle").result

    def steered(model: Any, strength: float) -> torch.Tensor:
        model, positive = ConceptAdjust.execute(
            model=model,
            conditioning=prompt,
            hrv=hrv,
            words="rose",
            desired="Color",
            undesired="Plants",
            strength=strength,
            start=0.0,
            end=1.0,
            clamp=0.0,
            desired_weight=2.0,
            undesired_weight=-1.0,
        ).result
        return sampled(mini, model, positive, 1, steps=2, side=8)

    tensors, changes = load_file(WEIGHTS), load_file(SHIPPED_LORAS / NAME)
    for name in [name for name in tensors if name.startswith("unet.") and name.endswith(".weight")]:
        layer = "lora_unet_" + name.removeprefix("unet.").removesuffix(".weight").replace(".", "_")
        if f"{layer}.lora_up.weight" in changes:
            change = changes[f"{layer}.lora_up.weight"].float() @ changes[f"{layer}.lora_down.weight"].float()
            tensors[name] = tensors[name].float() + change
    save_file(tensors, tmp_path / "merged.safetensors")
    merged, _, _ = load_mini(tmp_path / "merged.safetensors")

    plain = sampled(mini, stickers, prompt, 1, steps=2, side=8)
    assert torch.equal(steered(stickers, 0.0), plain)
    assert relative_error(steered(stickers, 0.6), plain) > 0.05
    assert relative_error(steered(stickers, 0.6), steered(merged, 0.6)) < 1e-3
    assert relative_error(steered(mini[0], 0.6), steered(stickers, 0.6)) > 0.05
