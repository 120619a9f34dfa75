"""A small SentencePiece model, in the format that comes with the weights of Gemma's and umT5's text encoders; and such
a file.

Imported as ``hrv_pack.tests.support.sentence_piece``.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import torch

from .outlined_files import write_outline


def sentence_piece_model(sentences: Sequence[str], **options: Any) -> torch.Tensor:
    """The bytes of a model trained on some sentences, with bytes for letters that it doesn't know."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=made,
        byte_fallback=True,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=3,
        minloglevel=2,
        **{"vocab_size": 320, **options},
    )
    return torch.frombuffer(bytearray(made.getvalue()), dtype=torch.uint8)


def write_gemma(path: Path) -> None:
    """What the host takes for a file of Gemma 2 2B (comfy/sd.py, detect_te_model), with a small model."""
    pieces = sentence_piece_model(["a red car and a rose-colored skyscraper", "nice vases"] * 9)
    shapes = {"model.layers.0.post_feedforward_layernorm.weight": (2304,)}
    write_outline(path, shapes, {"spiece_model": pieces.numpy().tobytes()})
