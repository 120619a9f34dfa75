"""CLIP by the host's own classes: the same cosines as transformers has with the same weights, and pairs that fit."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import comfy.clip_model
import comfy.clip_vision
import comfy.sd
import comfy.utils
import pytest
import torch
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.sdxl_clip import SDXLClipModel, SDXLRefinerClipModel, SDXLTokenizer
from comfy.text_encoders.flux import FluxTokenizer
from comfy.text_encoders.sd2_clip import SD2ClipModel, SD2Tokenizer
from hrv_pack.host.scoring.clip import ClipScorer
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.scoring.experiments import Case
from hrv_pack.hrv.scoring.scorer import Scorer
from hrv_pack.tests.support.small_host import TEXT_WIDTHS, randomise, small_clip, small_clip_sd15, small_clip_sdxl
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel

TARGETS = ("red", "copper bowl", "rose-colored", "a dog on a snowy day")
SIDE = 32

ENCODERS: dict[str, tuple[type, type, str]] = {
    "sd1": (SD1Tokenizer, SD1ClipModel, "l"),
    "sd2": (SD2Tokenizer, SD2ClipModel, "h"),
    "sdxl": (SDXLTokenizer, SDXLClipModel, "g"),
    "refiner": (SDXLTokenizer, SDXLRefinerClipModel, "g"),
}


def small_vision(width: int, activation: str = "quick_gelu", **config: Any) -> Any:
    """The host's CLIP Vision model in small, for vectors of ``width`` elements."""
    settings = {
        "model_type": "clip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "num_channels": 3,
        "image_size": SIDE,
        "patch_size": 8,
        "hidden_act": activation,
        "projection_dim": width,
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"  # older hosts take nothing else
        file.write_text(json.dumps({**settings, **config}), encoding="utf-8")
        vision = comfy.clip_vision.ClipVisionModel(str(file))
    randomise(vision.model, seed=3)
    return vision


def with_transformers(vision: Any, clip: Any, encoder: str) -> Any:
    """The same pair as a model of transformers."""
    activation = vision.config["hidden_act"]
    width = TEXT_WIDTHS[encoder]
    model = CLIPModel(
        CLIPConfig(
            text_config={
                "hidden_size": width,
                "intermediate_size": 2 * width,
                "num_attention_heads": 2,
                "num_hidden_layers": 3,
                "hidden_act": activation,
                "eos_token_id": 49407,
            },
            vision_config={name: vision.config[name] for name in vision.config if name != "model_type"},
            projection_dim=width,
        )
    ).eval()
    text = getattr(clip.cond_stage_model, f"clip_{encoder}").transformer.state_dict()
    weights = {name: weight.float() for name, weight in {**text, **vision.model.state_dict()}.items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert set(missing) <= {"logit_scale", "text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"}
    assert not unexpected
    return model


@torch.no_grad()
def expected_cosine(model: Any, ids: list[int], image: torch.Tensor) -> float:
    """By transformers, of one image [height, width, 3] prepared as the host does it."""
    pixels = comfy.clip_model.clip_preprocess(image[None], size=SIDE)
    found = model(input_ids=torch.tensor([ids]), pixel_values=pixels)
    return float(torch.nn.functional.cosine_similarity(found.text_embeds, found.image_embeds))


def images(count: int, height: int = SIDE, width: int = SIDE, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def cases(*targets: str) -> list[Case]:
    return [Case("Anything", f"a prompt with {target}", target) for target in targets]


def ids_of(text: str) -> list[int]:
    """Tokens of a text by the library's tokenizer, without the host's prompt syntax."""
    return SD1Tokenizer().clip_l.tokenizer(text)["input_ids"]


def pair(kind: str) -> tuple[Any, Any, str]:
    tokenizer, model, encoder = ENCODERS[kind]
    activation = "quick_gelu" if encoder == "l" else "gelu"
    return small_vision(TEXT_WIDTHS[encoder], activation), small_clip(tokenizer, model), encoder


@pytest.fixture(scope="module")
def sd1() -> tuple[Any, Any, Any]:
    """The pair of CLIP-L, and the same in transformers."""
    vision, clip, encoder = pair("sd1")
    return vision, clip, with_transformers(vision, clip, encoder)


@pytest.mark.parametrize("kind", ENCODERS)
def test_cosines_are_those_of_transformers(kind: str) -> None:
    vision, clip, encoder = pair(kind)
    model = with_transformers(vision, clip, encoder)
    shown = images(len(TARGETS))
    scorer: Scorer = ClipScorer(vision, clip)
    found = scorer.score(shown, cases(*TARGETS))
    expected = [expected_cosine(model, ids_of(text), image) for text, image in zip(TARGETS, shown, strict=True)]
    assert found == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 0.1, "all pairs are alike, so nothing is compared"


@pytest.mark.parametrize(("height", "width"), [(48, 48), (40, 64), (96, 33), (16, 16)])
def test_images_are_prepared_as_the_host_does_it(sd1: tuple[Any, Any, Any], height: int, width: int) -> None:
    vision, clip, model = sd1
    shown = images(2, height, width)
    found = ClipScorer(vision, clip).score(shown, cases("red", "blue"))
    expected = [expected_cosine(model, ids_of(text), image) for text, image in zip(("red", "blue"), shown, strict=True)]
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "target",
    [
        "red (dark)",
        "(red:1.5)",
        "((red))",
        r"a \(b\) c",
        "a)b(c",
        "embedding:dots",
        "a embedding:dots red",
        "embedding::) x",
        "Café 3d!",
    ],
)
def test_targets_are_taken_as_they_are_written(sd1: tuple[Any, Any, Any], tmp_path: Path, target: str) -> None:
    _, _, model = sd1
    save_file({"emb_params": torch.ones(2, TEXT_WIDTHS["l"])}, tmp_path / "dots.safetensors")
    scorer = ClipScorer(sd1[0], small_clip(SD1Tokenizer, SD1ClipModel, tmp_path))
    ids = ids_of(target)
    assert scorer.count_tokens(target) == len(ids) - 2
    shown = images(1)
    assert scorer.score(shown, cases(target)) == pytest.approx([expected_cosine(model, ids, shown[0])], abs=1e-4)


def test_nothing_stays_set_on_the_text_encoder(sd1: tuple[Any, Any, Any]) -> None:
    vision, clip, _ = sd1
    skipping = clip.clone()
    skipping.clip_layer(-2)
    before = clip.encode_from_tokens(clip.tokenize("a red car"), return_pooled=True)
    found = [ClipScorer(vision, each).score(images(1), cases("red")) for each in (clip, skipping)]
    assert found[0] == found[1], "skipping layers concerns prompts, not the pooled vector"
    after = clip.encode_from_tokens(clip.tokenize("a red car"), return_pooled=True)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_provenance_is_json_and_tells_models_apart(sd1: tuple[Any, Any, Any]) -> None:
    vision, clip, _ = sd1
    other_vision, other_clip = small_vision(TEXT_WIDTHS["l"]), small_clip_sd15()
    randomise(other_vision.model, seed=8)
    randomise(other_clip.cond_stage_model, seed=8)
    larger_steps = small_vision(TEXT_WIDTHS["l"], image_std=[0.5, 0.5, 0.5])
    made = [(vision, clip), (other_vision, clip), (vision, other_clip), (larger_steps, clip)]
    kept = [json.dumps(ClipScorer(*each).provenance) for each in made]
    assert len(set(kept)) == len(made)
    assert json.dumps(ClipScorer(small_vision(TEXT_WIDTHS["l"]), small_clip_sd15()).provenance) == kept[0]


def test_a_file_with_both_encoders_serves_as_text_encoder(sd1: tuple[Any, Any, Any], tmp_path: Path) -> None:
    vision, clip, model = sd1
    model.save_pretrained(tmp_path)
    weights = comfy.utils.load_torch_file(str(tmp_path / "model.safetensors"))
    assert comfy.sd.detect_te_model(weights) is comfy.sd.TEModel.CLIP_L
    loaded = small_clip_sd15()
    randomise(loaded.cond_stage_model, seed=8)
    loaded.load_sd(weights)
    found, expected = (ClipScorer(vision, each).score(images(2), cases("red", "blue")) for each in (loaded, clip))
    assert found == pytest.approx(expected, abs=1e-5)


def test_targets_that_do_not_fit_are_refused(sd1: tuple[Any, Any, Any]) -> None:
    scorer = ClipScorer(*sd1[:2])
    scorer.check(cases(" ".join(["red"] * 75)), 128, 96)
    with pytest.raises(HRVError, match="has 76 tokens, and this CLIP reads 75"):
        scorer.check(cases(" ".join(["red"] * 76)), 128, 128)


def without_projection(fill: torch.Tensor) -> Any:
    clip = small_clip_sd15()
    clip.cond_stage_model.clip_l.transformer.text_projection.weight.data.copy_(fill)
    return clip


@pytest.mark.parametrize(
    "fill",
    [torch.eye(16), torch.zeros(16, 16), torch.full((16, 16), torch.nan), torch.ones(16, 16).tril(-1)],
    ids=["identity", "zeros", "nan", "a row of zeros"],
)
def test_text_encoders_without_a_projection_are_refused(fill: torch.Tensor) -> None:
    with pytest.raises(HRVError, match=r"has no projection .* SD 1\.x, leave it out\. Load the text encoder"):
        ClipScorer(small_vision(TEXT_WIDTHS["l"]), without_projection(fill))


def test_a_checkpoint_that_leaves_the_projection_out_is_refused() -> None:
    """Whatever lay in the memory that the host did not fill."""
    clip = small_clip_sd15()
    weights = {name: weight for name, weight in clip.get_sd().items() if "text_projection" not in name}
    projection = clip.cond_stage_model.clip_l.transformer.text_projection
    projection.weight.data.copy_(torch.zeros(16, 16))
    clip.load_sd(weights, full_model=True)
    with pytest.raises(HRVError, match="has no projection"):
        ClipScorer(small_vision(TEXT_WIDTHS["l"]), clip)


def test_a_vision_model_without_a_projection_is_refused() -> None:
    vision = small_vision(TEXT_WIDTHS["l"])
    vision.model.visual_projection.weight.data[3] = 0
    with pytest.raises(HRVError, match="The CLIP Vision model has no projection"):
        ClipScorer(vision, small_clip_sd15())


@pytest.mark.parametrize("width", [24, 768])
def test_halves_of_different_clips_are_refused(width: int) -> None:
    with pytest.raises(HRVError, match=rf"vectors of 16 elements and the CLIP Vision model of {width}.*Load CLIP"):
        ClipScorer(small_vision(width), small_clip_sd15())


def test_the_advice_names_the_clip_of_the_vision_model() -> None:
    with pytest.raises(HRVError, match="1024 elements the file of laion/CLIP-ViT-H-14"):
        ClipScorer(small_vision(1024), small_clip_sd15())


def test_the_smaller_encoder_of_sdxl_is_not_taken() -> None:
    with pytest.raises(HRVError, match="vectors of 24 elements and the CLIP Vision model of 16"):
        ClipScorer(small_vision(TEXT_WIDTHS["l"]), small_clip_sdxl())


def test_other_vision_models_are_refused() -> None:
    with pytest.raises(HRVError, match=r"\(siglip_vision_model\) isn't a CLIP"):
        ClipScorer(small_vision(16, model_type="siglip_vision_model"), small_clip_sd15())


def test_other_text_encoders_are_refused() -> None:
    clip = small_clip_sd15()
    clip.tokenizer = FluxTokenizer()
    with pytest.raises(HRVError, match=r"\(l, t5xxl\) isn't just that of one CLIP"):
        ClipScorer(small_vision(16), clip)


def test_absent_models_are_said_to_be_absent() -> None:
    with pytest.raises(HRVError, match="There is no CLIP Vision model"):
        ClipScorer(None, small_clip_sd15())
    with pytest.raises(HRVError, match="There is no text encoder"):
        ClipScorer(small_vision(16), None)
