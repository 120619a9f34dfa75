"""The files that a workflow loads models from, which are no part of this pack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDERS = {
    "CheckpointLoaderSimple": "checkpoints",
    "UNETLoader": "diffusion_models",
    "CLIPLoader": "text_encoders",
    "DualCLIPLoader": "text_encoders",
    "VAELoader": "vae",
}
"""Below the host's folder of models, by the loader."""


def model_files(graph: Mapping[str, Any]) -> list[Path]:
    """The files below the host's folder of models that a saved graph names, in order and each once."""
    return list(
        dict.fromkeys(
            Path(FOLDERS[node["type"]], value)
            for node in graph["nodes"]
            if node["type"] in FOLDERS
            for value in node["widgets_values"]
            if value.endswith(".safetensors")
        )
    )
