"""Prompts through the host's CLIP text encoders, with the places of their words (``comfy/sd1_clip.py``)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from typing import Any, NamedTuple

import torch
from comfy.sd1_clip import escape_important, token_weights, unescape_important

from ...hrv.errors import HRVError, quoted
from ...hrv.prompts.frames import ALONE, WORD, fill
from ...hrv.prompts.tokens import PromptWord, TokenMap
from ..page.texts import show_on_running_node
from . import letters
from .carried import TOKEN_MAP_KEY, Conditioning
from .first_tokens import only_first

# An encoder's chunks of (token id or embedding vector [C], weight, number of the weighted segment or 0).
Chunks = list[list[tuple[Any, float, int]]]

# The host's names of the CLIP encoders: CLIP-L, OpenCLIP-H and OpenCLIP-G.
CLIP_ENCODERS = ("l", "h", "g")
_WORD_END = "</w>"
NO_TEXT_ENCODER = "There is no text encoder: the checkpoint contains none. Use one of the CLIP loaders."
MOST_BRACKETS = 500
"""Brackets of a prompt inside each other at most: far more than anybody writes, and half of what Python calls."""
_SPECIAL_TOKENS = {"<|startoftext|>", "<|endoftext|>"}
_EMBEDDING = "embedding:"

# CLIP's byte-level vocabulary writes a byte as its Latin-1 letter if visible, else as one above those.
_VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN = [byte for byte in range(0x100) if byte not in _VISIBLE]
_BYTE_OF = {chr(byte): byte for byte in _VISIBLE} | {chr(0x100 + n): byte for n, byte in enumerate(_HIDDEN)}


class WordEmbedding(NamedTuple):
    """An encoded word: its own ``tokens`` [T, C] and the ``start`` token [1, C], float32 on the CPU."""

    tokens: torch.Tensor
    start: torch.Tensor


def token_map(clip: Any, text: str) -> TokenMap:
    """Return the words of a prompt and their positions in the conditioning that ``clip`` makes of it.

    The host's prompt syntax is understood: weights, nested brackets and escapes leave no words behind, and a
    textual inversion is one word with the name it has in the prompt ("embedding:name"). Start, end and
    padding belong to no word, nor do special tokens that the prompt spells out.

    Raises HRVError without a text encoder, for one that is not CLIP-like, and when the two encoders of SDXL
    put the words at different positions, so that no position would be right for both.
    """
    return _read_prompt(clip, text)[1]


def token_map_and_lengths(clip: Any, text: str) -> tuple[TokenMap, tuple[int, ...]]:
    """Return :func:`token_map`, and the number of tokens that each text encoder makes of the prompt.

    Prompts whose conditionings are to have one shape need equal numbers of all: Anima's has the length of Qwen's
    tokens, and its token map that of T5's. Raises HRVError as :func:`token_map` does.
    """
    prompt = _read_prompt(clip, text)
    return prompt.words, tuple(sum(map(len, chunks)) for chunks in prompt.tokens.values())


def encode_prompt(clip: Any, text: str) -> tuple[Conditioning, TokenMap]:
    """Return the conditioning of the host's CLIPTextEncode, carrying its token map, and the map itself.

    Every entry (the host makes several for scheduled hooks) has the map under :data:`TOKEN_MAP_KEY`. Raises
    HRVError as :func:`token_map` does.
    """
    prompt = _read_prompt(clip, text)
    return _tagged(clip.encode_from_tokens_scheduled(prompt.tokens), prompt), prompt.words


def tag_conditioning(conditioning: Conditioning, clip: Any, text: str) -> Conditioning:
    """Return a copy of a conditioning made elsewhere that carries the token map of ``text``.

    Tensors are shared with the input. Further whole chunks after those of ``text`` are taken for what
    ConditioningConcat appended. Raises HRVError as :func:`token_map` does, and when an entry cannot have come
    from this text because its token axis is too short or the rest is no number of whole chunks.
    """
    return _tagged(conditioning, _read_prompt(clip, text))


def word_tokens(clip: Any, words: Sequence[str], frame: str = ALONE, *, whole: bool = True) -> list[WordEmbedding]:
    """Encode concept-words and return the embeddings of their own tokens (arXiv 2412.02237, section 3).

    Each is alone by default, else in the sentence that a ``frame`` (:mod:`...hrv.prompts.frames`) makes of it. C is the
    full context width of the model (for SDXL that of both encoders together). Every word is a chunk of its own and sees
    nothing of the others; they go through the encoder together because the host looks after its memory at each call.
    Unless they are encoded ``whole`` that takes a fraction of the time, and the numbers differ by rounding
    (:mod:`.first_tokens`).
    Raises HRVError as :func:`token_map` does, for a word that has no token, and for one that does not fit into one
    chunk.
    """
    first, last = (len(_read_prompt(clip, part).words.content_positions) for part in frame.split(WORD))
    prompts = [_read_prompt(clip, fill(frame, word)) for word in words]
    if letters.reads(list(prompts[0].tokens)):
        raise HRVError("This way of making HRVs needs a CLIP text encoder: of others no word stands for itself.")
    tokens: dict[str, list[list[tuple[Any, float]]]] = {name: [] for name in prompts[0].tokens}
    own: list[list[int]] = []
    for word, prompt in zip(words, prompts, strict=True):
        content = prompt.words.content_positions
        own.append(list(content[first : len(content) - last]))
        if not own[-1]:
            raise HRVError(f"The concept-word {quoted(word)} has no token of its own: remove it or use another word.")
        if prompt.words.length > prompt.chunk:
            inside = "" if frame == ALONE else f" in {quoted(frame)}"
            raise HRVError(
                f"The concept-word {quoted(word)}{inside} has {len(content)} tokens, more than fit into one chunk of "
                f"the text encoder ({prompt.chunk} with start and end): use a shorter one."
            )
        for name, chunks in prompt.tokens.items():
            tokens[name].extend(chunks)
    with ExitStack() as how:
        if not whole:
            # A word sees nothing of what comes behind it.
            how.enter_context(only_first(clip, max(positions[-1] for positions in own) + 1))
        context = clip.encode_from_tokens(tokens)[0].float().cpu().unflatten(0, (len(words), -1))
    return [
        WordEmbedding(tokens=encoded[positions], start=encoded[[0]])
        for encoded, positions in zip(context, own, strict=True)
    ]


def encode_once(clip: Any, prompt: str) -> list[Any]:
    """The one entry [tensor [1, tokens, C], dict] of a prompt's conditioning; HRVError if it has several."""
    entries = clip.encode_from_tokens_scheduled(tokenized(clip, prompt))
    if len(entries) > 1:
        raise HRVError(
            "This text encoder encodes a prompt again when the strength of its hooks changes, but the concept-words "
            "are encoded once. Turn 'schedule_clip' off at Set CLIP Hooks, or remove the keyframes."
        )
    return entries[0]


def tokenized(clip: Any, text: str, **options: Any) -> Any:
    """``clip.tokenize``; HRVError for brackets so deep inside each other that the host cannot read them.

    It calls itself for each (``comfy/sd1_clip.py``, ``token_weights``) and reads the rest of the text every time.
    """
    deepest = level = 0
    for sign in re.findall(r"\\?[()]", text):
        if sign == "(":
            level += 1
        elif sign == ")":
            deepest, level = max(deepest, level), max(0, level - 1)
    if deepest > MOST_BRACKETS:
        raise HRVError(
            f"The prompt {quoted(text)} has {deepest} brackets inside each other, and ComfyUI can read at most "
            f"{MOST_BRACKETS}. Take some out; \\( and \\) are brackets without a meaning."
        )
    return clip.tokenize(text, **options)


class _Prompt(NamedTuple):
    tokens: dict[str, list[list[tuple[Any, float]]]]  # as ``clip.tokenize(text)`` gives them
    words: TokenMap
    chunk: int  # tokens of a chunk along the conditioning's token axis
    is_along_conditioning: bool = True  # whether that axis is the one of the token map
    has_weights: bool = True  # whether the text encoder reads them


def _plain(tokens: dict[str, Chunks]) -> dict[str, list[list[tuple[Any, float]]]]:
    """Tokens without the numbers of their segments, as ``clip.tokenize(text)`` gives them."""
    return {name: [[entry[:2] for entry in chunk] for chunk in chunks] for name, chunks in tokens.items()}


def _read_prompt(clip: Any, text: str) -> _Prompt:
    """Tokenise once and find the words."""
    if clip is None:
        raise HRVError(NO_TEXT_ENCODER)
    tokens: dict[str, Chunks] = tokenized(clip, text, return_word_ids=True)
    if letters.reads(list(tokens)):
        found = letters.words_of(clip, text, tokens)
        return _Prompt(_plain(tokens), found.words, 1, found.is_along_conditioning, found.has_weights)
    if not tokens.keys() <= set(CLIP_ENCODERS):
        raise HRVError(
            f"Words cannot be found in the tokens of this text encoder ({', '.join(tokens)}). Supported are "
            "the CLIP text encoders of SD 1.x, SD 2.x, SDXL and the SDXL refiner, and those of the transformers in "
            "docs/architectures.md."
        )
    # The refiner has the tokenizer of both SDXL encoders, but only one of them.
    used = {name: chunks for name, chunks in tokens.items() if hasattr(clip.cond_stage_model, f"clip_{name}")}
    inversions = _inversions_in(clip, text) if _has_vectors(tokens) else []
    (encoder, words), *others = [(name, _words(clip, name, used[name], inversions)) for name in used]
    length = min(sum(map(len, chunks)) for chunks in used.values())
    for other, other_words in others:
        if other_words != words:
            raise HRVError(
                f"The text encoders {encoder} and {other} of this model put the words of the prompt at "
                "different positions, so no position would be right for both. Either a textual inversion was "
                "made for only one of them (remove it), or one takes longer chunks (shorten the prompt)."
            )
    return _Prompt(
        tokens=_plain(tokens),
        words=TokenMap(text=text, words=words, length=length),
        chunk=min(len(chunks[0]) for chunks in used.values()),
    )


def _tagged(conditioning: Conditioning, prompt: _Prompt) -> Conditioning:
    """A copy of the conditioning with the map in every entry, once the lengths of the token axes agree."""
    _say_literal_weights(prompt)
    for cond, _ in conditioning if prompt.is_along_conditioning else ():
        rest = cond.shape[1] - prompt.words.length
        if rest < 0 or rest % prompt.chunk:
            raise HRVError(
                f"The conditioning has {cond.shape[1]} tokens, but this text has {prompt.words.length} in "
                f"chunks of {prompt.chunk}: it wasn't made from this text with this CLIP. Connect the CLIP "
                "and write the text it was made with."
            )
    return [[cond, {**extras, TOKEN_MAP_KEY: prompt.words}] for cond, extras in conditioning]


def _say_literal_weights(prompt: _Prompt) -> None:
    """Say it where a prompt has weights and its text encoder has none."""
    weighted = None if prompt.has_weights else re.search(r"\([^()]*:\s*[-+]?[\d.]+\)", prompt.words.text)
    if weighted:
        sentence = f"This text encoder has no weights: {weighted[0][:40]} is read as it is written."
        logging.warning("[HRV] %s", sentence)
        show_on_running_node(f"HRV: {sentence}")


class _Token(NamedTuple):
    segment: int
    position: int
    piece: str  # empty for a vector of a textual inversion


def _words(clip: Any, encoder: str, chunks: Chunks, inversions: list[str]) -> tuple[PromptWord, ...]:
    """The words of one encoder's chunks in order; ``inversions`` names the textual inversions in theirs."""
    segments = dict.fromkeys(segment for chunk in chunks for token, _, segment in chunk if _is_vector(token))
    names = dict(zip(segments, inversions, strict=True))
    words: list[PromptWord] = []
    for segment, tokens in groupby(_content(clip, encoder, chunks), key=lambda token: token.segment):
        if segment in names:
            words.append(PromptWord(names[segment], tuple(token.position for token in tokens)))
        else:
            words.extend(_text_words(tokens))
    return tuple(words)


def _content(clip: Any, encoder: str, chunks: Chunks) -> Iterator[_Token]:
    """The tokens of the prompt itself with their places along the conditioning's token axis."""
    offset = 0
    for chunk in chunks:
        dropped = 0
        for index, (token, _, segment) in enumerate(chunk):
            # SDClipModel.process_tokens leaves such a vector out, closes the gap and pads at the end.
            if _is_vector(token) and token.shape[-1] != _embedding_width(clip, encoder):
                dropped += 1
            elif segment:
                piece = "" if _is_vector(token) else clip.tokenizer.untokenize([(token, 1.0)])[0][1]
                yield _Token(segment, offset + index - dropped, piece)
        offset += len(chunk)


def _text_words(tokens: Iterable[_Token]) -> Iterator[PromptWord]:
    """Join the pieces of a segment of text up to each end of a word."""
    pieces: list[str] = []
    positions: list[int] = []
    for _, position, piece in tokens:
        if piece in _SPECIAL_TOKENS:
            continue
        pieces.append(piece.removesuffix(_WORD_END))
        positions.append(position)
        if piece.endswith(_WORD_END):
            yield PromptWord(_decoded("".join(pieces)), tuple(positions), tuple(map(_decoded, pieces)))
            pieces, positions = [], []


def _inversions_in(clip: Any, text: str) -> list[str]:
    """The textual inversions of a prompt that the host finds, in order and as they are written there."""
    found = []
    for segment, _ in token_weights(escape_important(text), 1.0):
        for part in re.split(rf"(?<=\s)(?={_EMBEDDING})", unescape_important(segment)):
            if part.startswith(_EMBEDDING):
                written = _EMBEDDING + part.removeprefix(_EMBEDDING).split()[0]
                if _has_vectors(clip.tokenize(written.replace("(", r"\(").replace(")", r"\)"))):
                    found.append(re.split(r"[<\[]", written)[0].rstrip(","))
    return found


def _has_vectors(tokens: dict[str, list[list[Any]]]) -> bool:
    return any(_is_vector(entry[0]) for chunks in tokens.values() for chunk in chunks for entry in chunk)


def _is_vector(token: Any) -> bool:
    return isinstance(token, torch.Tensor)


def _embedding_width(clip: Any, encoder: str) -> int:
    """The width of the token embeddings of one encoder, which a textual inversion must have."""
    model = getattr(clip.cond_stage_model, f"clip_{encoder}")
    return model.transformer.get_input_embeddings().weight.shape[-1]


def _decoded(piece: str) -> str:
    r"""The text of pieces of the byte-level vocabulary; bytes that are only part of a letter show as \xNN."""
    return bytes(_BYTE_OF[letter] for letter in piece).decode("utf-8", "backslashreplace")
