"""What every HRV says of the model that it was made with, whatever the way it was made."""

from __future__ import annotations

from typing import Any

from comfyui_version import __version__ as host_version

from ...hrv.relevance.vocabulary import Vocabulary
from ..models.digest import clip_digest, model_digest
from ..models.layouts import describe_model


def made_from(model: Any, clip: Any, vocabulary: Vocabulary) -> dict[str, Any]:
    """The MODEL, its CLIP, the concepts and the host, as they stand in a provenance (docs/hrv-format.md)."""
    return {
        "model": describe_model(model),
        "model_digest": model_digest(model),
        "text_encoder": type(clip.cond_stage_model).__name__,
        "text_encoder_digest": clip_digest(clip),
        "vocabulary": vocabulary.to_text(),
        "host": f"ComfyUI {host_version}",
    }
