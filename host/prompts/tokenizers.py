"""The tokenizers of text encoders by their files, without the weights (``comfy/sd.py``).

Which tokenizer a file has, the host decides by the names and shapes of its tensors, and so it does here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any, NamedTuple

import comfy.model_detection
import comfy.sd
import folder_paths
from comfy.sd1_clip import SD1Tokenizer

from ..files.outlines import Outline, outline
from .encoding import CLIP_ENCODERS

# What a file has of its tokenizer, under these names or with a prefix in front of them.
_CONTENT = ("spiece_model", "tekken_model", "tokenizer_json")
# Vocabularies of 256,000 tokens take some 100 MB.
_MOST = 3


class _File(NamedTuple):
    """A file as it is now."""

    path: Path
    size: int
    changed: int


def clip_of_encoders(paths: Sequence[Path], kind: str) -> Any | None:
    """What the host's loaders make of files of text encoders and of a ``type``, but for the weights: a CLIP that
    tokenises. None if that can't be told.
    """
    return _clip(tuple(map(_file, paths)), kind)


def clip_of_checkpoint(path: Path) -> Any | None:
    """The same of a checkpoint, None as well if it has no text encoder."""
    return _clip((_file(path),), None)


@lru_cache(_MOST)
def clip_of_length(tokens: int) -> Any:
    """The same of SD 1.x's text encoder with chunks of so many tokens."""
    return _without_weights(SD1Tokenizer, {"clip_l_max_length": tokens})


def _file(path: Path) -> _File:
    try:
        found = path.stat()
    except OSError:
        return _File(path, 0, 0)
    return _File(path, found.st_size, found.st_mtime_ns)


@lru_cache(_MOST)
def _clip(files: tuple[_File, ...], kind: str | None) -> Any | None:
    """A CLIP of text encoders, or of a checkpoint, which has no ``kind``."""
    try:
        outlines = [outline(file.path, _CONTENT) for file in files]
        return _of_checkpoint(*outlines) if kind is None else _of_encoders(outlines, kind)
    except Exception as error:  # noqa: BLE001 - of files that hold no text encoder, the host may say anything
        logging.debug("[HRV] No tokenizer is known of %s: %s", ", ".join(str(file.path) for file in files), error)
        return None


def _of_encoders(outlines: Sequence[Outline], kind: str) -> Any | None:
    load = comfy.sd.load_text_encoder_state_dicts
    if getattr(load, "__globals__", None) is not vars(comfy.sd):
        return None  # another pack has put its own in place, which may load the weights

    # The host's function, which decides and then makes a CLIP: here one without weights.
    def make(target: Any, *, tokenizer_data: Any, **_: Any) -> Any:
        return _without_weights(target.tokenizer, tokenizer_data)

    decide = FunctionType(
        load.__code__, {**vars(comfy.sd), "CLIP": make}, load.__name__, load.__defaults__, load.__closure__
    )
    types = comfy.sd.CLIPType
    return decide(
        [one.tensors for one in outlines], clip_type=types.__members__.get(kind.upper(), types.STABLE_DIFFUSION)
    )


def _of_checkpoint(checkpoint: Outline) -> Any | None:
    tensors, metadata = checkpoint
    prefix = comfy.model_detection.unet_prefix_from_state_dict(tensors)
    config = comfy.model_detection.model_config_from_unet(tensors, prefix, metadata=metadata)
    target = config and config.clip_target(state_dict=tensors)
    encoder = target and config.process_clip_state_dict(tensors)
    return _without_weights(target.tokenizer, encoder) if encoder else None


def _without_weights(tokenizer: Any, data: Any) -> Any:
    """What a CLIP without a text encoder would be: a tokenizer, and of CLIP the width of its embeddings."""
    made = tokenizer(embedding_directory=folder_paths.get_folder_paths("embeddings"), tokenizer_data=data)
    # Encoders of one model put words at the same positions, or encoding the prompt fails.
    names = [f"clip_{name}" for name in CLIP_ENCODERS]
    clips = {name: getattr(made, name) for name in names if hasattr(made, name)}
    first = {name: _encoder(own.embedding_size) for name, own in list(clips.items())[:1]}
    return SimpleNamespace(
        tokenizer=made, tokenize=made.tokenize_with_weights, cond_stage_model=SimpleNamespace(**first)
    )


def _encoder(width: int) -> Any:
    embeddings = SimpleNamespace(weight=SimpleNamespace(shape=(width,)))
    return SimpleNamespace(transformer=SimpleNamespace(get_input_embeddings=lambda: embeddings))
