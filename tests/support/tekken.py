"""A small model of Mistral's tokenizer, in the format that comes with the weights of Flux.2 dev's text encoder.

Imported as ``hrv_pack.tests.support.tekken``.
"""

from __future__ import annotations

import base64
import importlib
import inspect
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import comfy.text_encoders.flux
import torch

# As published (mistralai/Mistral-Small-3.2, tekken.json): ranks of tokens count from behind the special ones.
_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPECIAL = {
    0: "<unk>",
    1: "<s>",
    2: "</s>",
    3: "[INST]",
    4: "[/INST]",
    11: "<pad>",
    17: "[SYSTEM_PROMPT]",
    18: "[/SYSTEM_PROMPT]",
}


def tekken_model(words: Sequence[str]) -> torch.Tensor:
    """The bytes of a model with a token for each byte and for ``words``, with the merges that lead to them.

    A word is merged from its first letter on, so that its beginnings are tokens too.
    """
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [token for word in words for token in _beginnings(word.encode())]
    tokens = list(dict.fromkeys(tokens))
    special = [
        {"rank": rank, "token_str": _SPECIAL.get(rank, f"<SPECIAL_{rank}>")} for rank in range(max(_SPECIAL) + 1)
    ]
    made = {
        "config": {"pattern": _PATTERN, "default_vocab_size": len(tokens) + len(special)},
        "vocab": [{"rank": rank, "token_bytes": base64.b64encode(token).decode()} for rank, token in enumerate(tokens)],
        "special_tokens": special,
    }
    return torch.frombuffer(bytearray(json.dumps(made).encode()), dtype=torch.uint8)


def _beginnings(word: bytes) -> Iterator[bytes]:
    for end in range(2, len(word) + 1):
        yield word[:end]


def flux_2_tokenizer(words: Sequence[str]) -> Any:
    """The host's tokenizer of Flux.2 dev with such a model."""
    model = tekken_model(words)
    with loading(model):
        return comfy.text_encoders.flux.Flux2Tokenizer(tokenizer_data={"tekken_model": model})


@contextmanager
def loading(model: torch.Tensor) -> Iterator[None]:
    """Let the host load such a model with any release of transformers.

    It hands over a vocabulary, but later releases want a file, so that the host can't load this text encoder; here they
    get one.
    """
    mistral: Any = importlib.import_module("transformers.integrations.mistral")
    converter = mistral.MistralConverter
    if "vocab" in inspect.signature(converter).parameters:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "tekken.json")
        file.write_bytes(model.numpy().tobytes())
        with patch.object(mistral, "MistralConverter", lambda **_: converter(str(file))):
            yield
