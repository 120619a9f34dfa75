"""HRV-mini with the host's own nodes: it is a MODEL, a CLIP and a VAE like any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.cli_args
import comfy.utils
import folder_paths
import latent_preview
import pytest
import torch
from comfy.cli_args import LatentPreviewMethod
from hrv_pack.host.mini.loader import WEIGHTS, load_mini
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.prompts.encoding import encode_prompt
from hrv_pack.hrv.controls.control import strengthen
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.families import FAMILIES
from hrv_pack.hrv.heads.layout import HeadLayout
from hrv_pack.hrv.progress import Window
from hrv_pack.nodes.controls import ConceptStrengthen
from hrv_pack.nodes.mini import LoadMini
from hrv_pack.tests.support.small_host import random_hrv

from nodes import CLIPTextEncode, EmptyLatentImage, KSampler, LoraLoader, VAEDecode, VAEEncode

# The host's nodes run without gradients.
pytestmark = pytest.mark.usefixtures("inference")


@pytest.fixture
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def mini() -> tuple[Any, Any, Any]:
    return LoadMini.execute().result


@pytest.fixture(scope="module")
def squares() -> torch.Tensor:
    """Pictures [2, 64, 96, 3] in 0..1 made of squares of 4 x 4 pixels."""
    small = torch.rand(2, 16, 24, 3, generator=torch.Generator().manual_seed(0))
    return small.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)


def sampled(mini: tuple[Any, Any, Any], model: Any = None, positive: Any = None, size: int = 64) -> Any:
    """What the host's KSampler makes of an empty latent of its own node; the latent and its samples."""
    loaded, clip, _ = mini
    (latent,) = EmptyLatentImage().generate(size, size, 2)
    positive = positive or CLIPTextEncode().encode(clip, "a red circle")[0]
    (negative,) = CLIPTextEncode().encode(clip, "")
    return KSampler().sample(model or loaded, 3, 2, 4.0, "euler", "normal", positive, negative, latent)[0]


def test_the_layout_is_that_of_sd_1(mini: tuple[Any, Any, Any]) -> None:
    layout: HeadLayout = head_layout(mini[0])
    assert layout == FAMILIES[0].layout()
    assert layout.head_count == 128 and [layer.heads for layer in layout.layers] == [8] * 16


def test_the_hosts_nodes_make_pictures_with_it(mini: tuple[Any, Any, Any]) -> None:
    latent = sampled(mini)
    assert latent["samples"].shape == (2, 12, 8, 8)
    (pictures,) = VAEDecode().decode(mini[2], latent)
    assert pictures.shape == (2, 64, 64, 3)
    assert torch.isfinite(pictures).all() and 0 <= pictures.min() <= pictures.max() <= 1
    assert torch.equal(sampled(mini)["samples"], latent["samples"])


def test_decoding_what_was_encoded_gives_pictures_of_squares_back(
    mini: tuple[Any, Any, Any], squares: torch.Tensor
) -> None:
    (latent,) = VAEEncode().encode(mini[2], squares)
    assert latent["samples"].shape == (2, 12, 8, 12)
    (back,) = VAEDecode().decode(mini[2], latent)
    assert (back - squares).abs().max() <= 1e-6
    # Channel-major: the four pixels of a block's red first.
    red = squares[0, ::4, ::4, 0] * 2 - 1
    torch.testing.assert_close(latent["samples"][0, :4, 0, 0], red[:2, :2].flatten())


def test_an_encoded_picture_can_be_sampled_on(mini: tuple[Any, Any, Any], squares: torch.Tensor) -> None:
    (latent,) = VAEEncode().encode(mini[2], squares)
    model, clip, _ = mini
    (prompt,) = CLIPTextEncode().encode(clip, "a blue square")
    (result,) = KSampler().sample(model, 3, 4, 4.0, "euler", "normal", prompt, prompt, latent, denoise=0.25)
    (far,) = KSampler().sample(model, 3, 1, 4.0, "euler", "normal", prompt, prompt, latent, denoise=1.0)
    near_distance = (result["samples"] - latent["samples"]).square().mean()
    assert 0 < near_distance < (far["samples"] - latent["samples"]).square().mean()


def test_previews_show_the_picture_at_half_its_size(
    mini: tuple[Any, Any, Any], squares: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comfy.cli_args.args, "preview_method", LatentPreviewMethod.Auto)
    model, _, vae = mini
    latent_format = model.get_model_object("latent_format")
    previewer = latent_preview.get_previewer(model.load_device, latent_format)
    (latent,) = VAEEncode().encode(vae, squares)
    _, preview, longest = previewer.decode_latent_to_preview_image("JPEG", latent_format.process_in(latent["samples"]))
    assert preview.size == (12, 8) and longest >= 12
    shown = torch.frombuffer(bytearray(preview.tobytes()), dtype=torch.uint8).reshape(8, 12, 3)
    blocks = torch.nn.functional.avg_pool2d(squares[0].movedim(-1, 0), 8).movedim(0, -1)
    assert (shown.float() / 255 - blocks).abs().max() <= 1.5 / 255


def test_weight_patches_change_what_it_makes_and_leave_no_trace(mini: tuple[Any, Any, Any]) -> None:
    model = mini[0]
    weights = {name: weight.clone() for name, weight in model.model.state_dict().items()}
    plain = sampled(mini)["samples"]
    name = "diffusion_model.middle_block.1.transformer_blocks.0.attn2.to_v.weight"
    shape = model.model.state_dict()[name].shape
    generator = torch.Generator().manual_seed(1)
    patched = model.clone()
    assert patched.add_patches({name: (torch.randn(shape, generator=generator),)}, 0.5) == [name]
    assert not torch.equal(sampled(mini, patched)["samples"], plain)
    assert torch.equal(sampled(mini)["samples"], plain)
    after = model.model.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], weight) for name, weight in weights.items())


def test_the_hosts_lora_loader_finds_its_layers(
    mini: tuple[Any, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, clip, _ = mini
    generator = torch.Generator().manual_seed(2)
    unet = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    text = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    tensors = {}
    for layer, (outputs, inputs) in {unet: (64, 128), text: (128, 128)}.items():
        tensors[f"{layer}.lora_up.weight"] = torch.randn(outputs, 2, generator=generator)
        tensors[f"{layer}.lora_down.weight"] = torch.randn(2, inputs, generator=generator)
        tensors[f"{layer}.alpha"] = torch.tensor(2.0)
    comfy.utils.save_torch_file(tensors, str(tmp_path / "mine.safetensors"))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))
    patched_model, patched_clip = LoraLoader().load_lora(model, clip, "mine.safetensors", 1.0, 1.0)
    plain, (prompt,) = sampled(mini)["samples"], CLIPTextEncode().encode(clip, "a red circle")
    (other_prompt,) = CLIPTextEncode().encode(patched_clip, "a red circle")
    assert not torch.equal(other_prompt[0][0], prompt[0][0])
    assert not torch.equal(sampled(mini, patched_model)["samples"], plain)
    assert torch.equal(sampled(mini)["samples"], plain)


def test_controls_work_on_it(mini: tuple[Any, Any, Any]) -> None:
    model, clip, _ = mini
    hrv = random_hrv(head_layout(model))
    positive, words = encode_prompt(clip, "a red circle")
    assert strengthen(hrv, "Color", words.find("red"), 1.0, Window(), None).positions == (2,)

    def steered(strength: float) -> torch.Tensor:
        result = ConceptStrengthen.execute(
            model=model,
            conditioning=positive,
            hrv=hrv,
            words="red",
            concept="Color",
            strength=strength,
            start=0.0,
            end=1.0,
            clamp=0.0,
        ).result
        return sampled(mini, *result)["samples"]

    plain = sampled(mini, model, positive)["samples"]
    assert torch.equal(steered(0.0), plain)
    assert not torch.equal(steered(1.0), plain)


def test_loading_again_gives_the_same(mini: tuple[Any, Any, Any]) -> None:
    again = load_mini()
    assert all(one is not other for one, other in zip(again, mini, strict=True))
    assert torch.equal(sampled(again)["samples"], sampled(mini)["samples"])


def test_the_weights_are_small_and_their_absence_is_said(tmp_path: Path) -> None:
    assert WEIGHTS.stat().st_size <= 24 * 2**20
    with pytest.raises(HRVError, match=r"weights of HRV-mini are missing at .*none\.safetensors\. Install the pack"):
        load_mini(tmp_path / "none.safetensors")
