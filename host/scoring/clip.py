"""Scoring by the host's own CLIP Vision models (``comfy/clip_vision.py``) and text encoders (``comfy/sd.py``)."""

from __future__ import annotations

from typing import Any

import torch

from ...hrv.errors import HRVError
from ...hrv.scoring.cosine import CosineScorer
from ..models.digest import clip_digest, model_digest

# The text encoder whose pooled vector the host gives, if a model has several: OpenCLIP-G, OpenCLIP-H, CLIP-L.
_ENCODERS = ("g", "h", "l")

# Models whose one file has both encoders, for both of the host's loaders, by the width of their space.
_WHOLE_CLIPS = {
    768: "openai/clip-vit-large-patch14",
    1024: "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    1280: "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
}

_SMALLEST_ROW = 1e-3
"""Trained projections have rows of length about 1; memory that nothing was loaded into has some of about 0."""

NO_VISION_MODEL = "There is no CLIP Vision model: the checkpoint contains none. Use the node Load CLIP Vision."


class ClipScorer(CosineScorer):
    """Cosine between the projected vectors of the host's CLIP_VISION and CLIP, images prepared as the host does it.

    Raises HRVError if the two cannot be halves of one CLIP.
    """

    def __init__(self, vision: Any, clip: Any):
        width = _vision_width(vision)
        encoder = _text_encoder(clip)
        self._vision, self._clip = vision, clip
        self._encoder, self._projection = encoder, _text_projection(clip, encoder, width)
        provenance = {
            "vision": {"digest": model_digest(vision.patcher), "config": vision.config},
            "text": {"digest": clip_digest(clip), "encoder": f"clip_{encoder}"},
        }
        super().__init__("CLIP cosine", provenance, getattr(clip.tokenizer, f"clip_{encoder}").max_length - 2)

    def count_tokens(self, text: str) -> int:
        chunks = self._clip.tokenize(_verbatim(text), return_word_ids=True)[self._encoder]
        return sum(bool(segment) for chunk in chunks for _, _, segment in chunk)

    def encode_text(self, text: str) -> torch.Tensor:
        # The host's encoders of SD 1.x never project what they give, so all are asked not to.
        pooled = self._clip.encode_from_tokens(self._clip.tokenize(_verbatim(text)), return_pooled="unprojected")[1]
        return self._projection(pooled.to(self._clip.patcher.load_device))[0]

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        return self._vision.encode_image(images)["image_embeds"]


def _verbatim(text: str) -> str:
    r"""A text that the host's prompt syntax leaves as it is.

    Textual inversions cannot be escaped, but CLIP's tokenizer makes the same of "embedding :" as of "embedding:".
    """
    return text.replace("(", r"\(").replace(")", r"\)").replace("embedding:", "embedding :")


def _vision_width(vision: Any) -> int:
    """The number of elements of an image's vector."""
    if vision is None:
        raise HRVError(NO_VISION_MODEL)
    if vision.model_type != "clip_vision_model" or "projection_dim" not in vision.config:
        raise HRVError(
            f"This vision model ({vision.model_type}) isn't a CLIP, so its images cannot be compared with text. Load a "
            f"CLIP one, such as {_WHOLE_CLIPS[1024]}, with Load CLIP Vision."
        )
    weight = vision.model.visual_projection.weight
    if _is_unfilled(weight):
        raise HRVError(
            "The CLIP Vision model has no projection into the space that images and texts share. Load "
            f"{_WHOLE_CLIPS.get(weight.shape[0], 'a whole CLIP')} with Load CLIP Vision."
        )
    return weight.shape[0]


def _text_encoder(clip: Any) -> str:
    """The name of the CLIP text encoder of a CLIP."""
    if clip is None:
        raise HRVError("There is no text encoder: the checkpoint contains none. Use the node Load CLIP.")
    tokenizers = clip.tokenize("").keys()
    found = [name for name in _ENCODERS if name in tokenizers and hasattr(clip.cond_stage_model, f"clip_{name}")]
    if not found or not tokenizers <= set(_ENCODERS):
        raise HRVError(
            f"This text encoder ({', '.join(tokenizers)}) isn't just that of one CLIP. Load the one that belongs to "
            "the CLIP Vision model with Load CLIP."
        )
    return found[0]


def _text_projection(clip: Any, encoder: str, width: int) -> torch.nn.Module:
    """The projection of a text encoder into a space of ``width`` elements."""
    projection = getattr(clip.cond_stage_model, f"clip_{encoder}").transformer.text_projection
    whole = _WHOLE_CLIPS.get(width, "the same CLIP")
    advice = (
        f"Load the text encoder that belongs to the vision model with Load CLIP: for vectors of {width} elements the "
        f"file of {whole}, which contains both."
    )
    found = projection.weight.shape[0]
    if found != width:
        raise HRVError(
            f"The text encoder gives vectors of {found} elements and the CLIP Vision model of {width}, so they are "
            f"from different CLIPs. {advice}"
        )
    if _is_unfilled(projection.weight):
        raise HRVError(
            "The text encoder has no projection into the space that images and texts share; files for image "
            f"generation, such as checkpoints of SD 1.x, leave it out. {advice}"
        )
    return projection


def _is_unfilled(weight: torch.Tensor) -> bool:
    """Whether a projection is none that was trained.

    Where a file has none, the host leaves memory as it finds it, or fills in zeros or, in older versions, an identity.
    """
    if weight.is_meta:
        return True
    values = weight.detach().float().cpu()
    if not bool(values.isfinite().all()) or float(values.norm(dim=1).min()) < _SMALLEST_ROW:
        return True
    return values.shape[0] == values.shape[1] and torch.equal(values, torch.eye(len(values)))
