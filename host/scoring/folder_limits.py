"""What the files of a CLIP in a folder may ask for, looked at before the library transformers reads any of them.

The library believes them: it makes as many layers as config.json names, and pictures as large as the processor says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...hrv.errors import HRVError
from ..files.folders import read_user_file

TEXT_LIMIT = 16 * 1024 * 1024
"""Bytes of the largest file beside the weights; a CLIP's tokenizer has 4 MB."""

# The largest CLIPs have 48 layers and look at pictures of 448 pixels.
_MOST_LAYERS = 512
_MOST_PIXELS = 4096


def read_settings(path: Path) -> bytes:
    """The content of config.json, after a look at the size of every file beside the weights.

    Raises HRVError for a file that is too large or cannot be read.
    """
    for file in sorted(path.iterdir()):
        if file.suffix in (".json", ".txt") and file.is_file() and file.stat().st_size > TEXT_LIMIT:
            raise HRVError(
                f"{file} has {file.stat().st_size} bytes; the files of a CLIP other than its weights have at most "
                f"{TEXT_LIMIT}."
            )
    return read_user_file(path / "config.json", TEXT_LIMIT)


def require_weights_for(config: Any, make: Any, path: Path) -> None:
    """Raise HRVError for a CLIPConfig of a larger model than the weights in its folder can be.

    ``make`` is the class of the model.
    """
    layers = max(config.text_config.num_hidden_layers, config.vision_config.num_hidden_layers)
    if layers > _MOST_LAYERS:
        raise HRVError(f"The CLIP in {path} has {layers} layers by its config.json; at most {_MOST_LAYERS} are read.")
    with torch.device("meta"):
        numbers = sum(weight.numel() for weight in make(config).parameters())
    there = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    if numbers > there:
        raise HRVError(
            f"The weights in {path} have {there} bytes, but its config.json is of a model of {numbers} weights."
        )


def require_small_pictures(processor: Any, path: Path) -> None:
    """Raise HRVError for an image processor that makes pictures of sides that no CLIP has."""
    made = processor.image_processor
    sides = [side for size in (made.size, made.crop_size) if size for side in dict(size).values() if side is not None]
    if any(not 1 <= side <= _MOST_PIXELS for side in sides):
        raise HRVError(
            f"The processor in {path} makes pictures of up to {max(sides)} pixels a side; a CLIP looks at 1 to "
            f"{_MOST_PIXELS}."
        )
