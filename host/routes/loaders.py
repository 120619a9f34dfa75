"""The text encoder that a loader's node will load, as far as its words go: known from its widgets before a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from functools import partial
from pathlib import Path
from typing import Any

import folder_paths

from ..files.folders import below
from ..mini.loader import MINI, SHIPPED, prompt_tokens
from ..prompts.tokenizers import clip_of_checkpoint, clip_of_encoders, clip_of_length
from .requests import Request, object_of, text_of

_SECONDS = 20.0
# Making a tokenizer takes a second or so, and its file may lie on a slow disk: one at a time, however often pages ask.
_MAKER = ThreadPoolExecutor(1, "hrv-tokenizers")


def clip_of(loader: Request) -> Any | None:
    """A CLIP that tokenises as the one that a loader's node gives, by the node's class and its widgets.

    None if that can't be told without loading it: for other nodes, files that are not there or not safetensors, and
    where it takes too long.
    """
    reader = _LOADERS.get(text_of(loader, "node"))
    if reader is None:
        return None
    made = _MAKER.submit(reader, object_of(loader, "widgets"))
    try:
        return made.result(_SECONDS)
    except TimeoutError:
        made.cancel()
        return None


def _encoders(widgets: Request, names: Sequence[str]) -> Any | None:
    paths = [_path("text_encoders", text_of(widgets, name)) for name in names]
    kind = text_of(widgets, "type") if "type" in widgets else ""
    return clip_of_encoders([path for path in paths if path], kind) if all(paths) else None


def _checkpoint(widgets: Request) -> Any | None:
    path = _path("checkpoints", text_of(widgets, "ckpt_name"))
    return path and clip_of_checkpoint(path)


def _mini(widgets: Request) -> Any | None:
    # Graphs from before there was a choice have no such input.
    weights = SHIPPED.get(text_of(widgets, "weights") if "weights" in widgets else MINI)
    return weights and clip_of_length(prompt_tokens(weights))


def _path(folder: str, name: str) -> Path | None:
    """The file that the host has under a name; None for a name that leads out of its folders too."""
    path = folder_paths.get_full_path(folder, name) if below(Path(), name) else None
    return Path(path) if path else None


_LOADERS: dict[str, Callable[[Request], Any | None]] = {
    "CLIPLoader": partial(_encoders, names=("clip_name",)),
    "DualCLIPLoader": partial(_encoders, names=("clip_name1", "clip_name2")),
    "TripleCLIPLoader": partial(_encoders, names=("clip_name1", "clip_name2", "clip_name3")),
    "CheckpointLoaderSimple": _checkpoint,
    "unCLIPCheckpointLoader": _checkpoint,
    "HRV_LoadMini": _mini,
}
