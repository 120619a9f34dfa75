"""Outputs that a node or the page also shows, and pictures as the host's IMAGEs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image

from ..host.page.hrvs import remember
from ..host.page.texts import show_text
from ..host.page.tokens import run_tokens_told
from ..host.prompts.carried import TOKEN_MAP_KEY
from ..hrv.prompts.tokens import TokenMap
from ..hrv.relevance.vectors import HRV


def image_tensor(picture: Image.Image) -> torch.Tensor:
    """An RGB picture as the host's IMAGE: float32 [1, height, width, 3] from 0 to 1."""
    return torch.from_numpy(np.array(picture, dtype=np.float32) / 255)[None]


def hrv_output(hrv: HRV, *others: Any, shown: Mapping[str, Any] | None = None) -> io.NodeOutput:
    """An HRV that is known only now, which the page can show from here on, as first output; ``shown`` beside it."""
    return io.NodeOutput(hrv, *others, ui={**(shown or {}), "hrv": [remember(hrv)]})


def encoded_output(conditioning: Any, text: str) -> io.NodeOutput:
    """A conditioning with its token map; for the page the text that it was made from, known only in the run perhaps.

    The tokens as well where the text encoder isn't CLIP; that it is CLIP otherwise, whose tokens the page asks for.
    """
    words: TokenMap | None = conditioning[0][1][TOKEN_MAP_KEY] if conditioning else None
    tokens = {"hrv_tokens": [run_tokens_told(words)]} if words and words.groups else {"hrv_encoder": ["clip"]}
    return io.NodeOutput(conditioning, ui={"hrv_text": [text], **tokens})


def picture_output(node: type[io.ComfyNode], picture: Image.Image, *others: Any) -> io.NodeOutput:
    """A picture, which the node shows, as its first output, and its other outputs."""
    image = image_tensor(picture)
    return io.NodeOutput(image, *others, ui=ui.PreviewImage(image, cls=node))


def text_output(node: type[io.ComfyNode], text: str, *outputs: Any) -> io.NodeOutput:
    """A node's outputs, and a text that it shows; its schema has to ask for ``io.Hidden.unique_id``."""
    show_text(node, text)
    return io.NodeOutput(*outputs, ui={"text": [text]})
