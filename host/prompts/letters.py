"""Words of a prompt by their letters: for text encoders whose tokenizers tell which letters each token stands for.

T5, umT5, Qwen, Gemma and Mistral, as the host wraps them (``comfy/text_encoders``). A token may hold a word with the
sign in front of it ("-colored"), or two words: they are one word then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from comfy.sd1_clip import escape_important, token_weights, unescape_important

from ...hrv.errors import HRVError
from ...hrv.prompts.tokens import PADDING, TEMPLATE, PromptWord, TokenMap

# The encoder whose tokens stand along the text that attention sees, by all encoders of a CLIP.
_READ = {
    frozenset({"t5xxl"}): "t5xxl",
    frozenset({"l", "t5xxl"}): "t5xxl",  # Flux.1: CLIP gives a pooled vector alone
    frozenset({"qwen3_06b", "t5xxl"}): "t5xxl",  # Anima: its adapter has a place for each token of T5
    frozenset({"umt5xxl"}): "umt5xxl",
    frozenset({"qwen3_4b"}): "qwen3_4b",
    frozenset({"qwen3_8b"}): "qwen3_8b",
    frozenset({"qwen25_7b"}): "qwen25_7b",
    frozenset({"gemma2_2b"}): "gemma2_2b",
    frozenset({"mistral3_24b"}): "mistral3_24b",
}
# Whose template in front of the prompt is encoded, but is no part of the conditioning (QwenImageTEModel).
_DROPS_TEMPLATE = {"qwen25_7b"}
_ANIMA = "qwen3_06b"
# The number of places that Anima's text has at least (comfy/ldm/anima/model.py, preprocess_text_embeds).
_ANIMA_PLACES = 512

# Runs of letters, digits and signs; scripts without spaces between words have a word for each letter.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\W\d_{_UNSPACED}]+|\d+|[^\w\s]+|_+")
_SIGNS = re.compile(r"[^\w\s]+|_+")

Span = tuple[int, int]


class Letters(NamedTuple):
    """The words of a prompt, and whether its conditioning has as many tokens as its token map says."""

    words: TokenMap
    is_along_conditioning: bool
    has_weights: bool


class _Token(NamedTuple):
    """A token of the prompt's own: its position, and its letters' place in its segment."""

    position: int
    start: int
    end: int


def reads(encoders: Sequence[str]) -> bool:
    """Whether words can be found here for a CLIP of these encoders."""
    return frozenset(encoders) in _READ


def words_of(clip: Any, text: str, tokens: dict[str, list[list[tuple[Any, float, int]]]]) -> Letters:
    """The words of a prompt that ``clip`` tokenised with numbers of segments.

    Tokens of a template and of the encoder's own (start, end) are the group "template", padding is "padding". Raises
    HRVError for textual inversions, and where another node tokenises otherwise than the host.
    """
    name = _READ[frozenset(tokens)]
    tokenizer = getattr(clip.tokenizer, name, None) or getattr(clip.tokenizer, f"clip_{name}")
    (chunk, *further) = tokens[name]
    if further or "embedding:" in text or any(not isinstance(token, int) for token, _, _ in chunk):
        raise HRVError(
            "The prompt has a textual inversion or an image, with which words can't be found for this text encoder. "
            "Remove it."
        )
    before, after, has_weights = _template(clip.tokenizer, tokenizer, text)
    content = [place for place, (_, _, segment) in enumerate(chunk) if segment]
    words: list[PromptWord] = []
    own: set[int] = set()
    place = 0
    for written in _segments(f"{before}{text}{after}", has_weights):
        ids, spans = _spelled(tokenizer, written)
        positions = content[place : place + len(ids)]
        if [chunk[position][0] for position in positions] != ids:
            raise HRVError(
                "Another node tokenises this prompt otherwise than ComfyUI does, so its words can't be found. Encode "
                "it with the CLIP as it is loaded."
            )
        place += len(ids)
        # A template leaves one segment, in which the prompt has a place.
        first, last = len(before), len(written) - len(after)
        tokens_here = [
            _Token(position, max(start, first), min(end, last))
            for position, (start, end) in zip(positions, spans, strict=True)
            if start < last and end > first
        ]
        own.update(token.position for token in tokens_here)
        words.extend(_words(written[:last], first, tokens_here))
    dropped = min(own, default=0) if name in _DROPS_TEMPLATE else 0
    is_anima = _ANIMA in tokens
    length = max(len(chunk), _ANIMA_PLACES if is_anima else 0) - dropped
    beside = [position for position in range(dropped, length + dropped) if position not in own]
    padding = {place for place in beside if place >= len(chunk) or _is_padding(tokenizer, chunk[place])}
    groups = (
        (TEMPLATE, tuple(place - dropped for place in beside if place not in padding)),
        (PADDING, tuple(sorted(place - dropped for place in padding))),
    )
    moved = tuple(replace(word, positions=tuple(position - dropped for position in word.positions)) for word in words)
    return Letters(TokenMap(text, moved, length, groups), not is_anima, has_weights)


def _template(wrapper: Any, tokenizer: Any, text: str) -> tuple[str, str, bool]:
    """What the host writes in front of a prompt and behind it, and whether it reads weights."""
    template: str | None = getattr(wrapper, "llama_template", None)
    if template is None:
        return "", "", not getattr(tokenizer, "disable_weights", False)  # older hosts lack it
    if isinstance(getattr(wrapper, "llama_template_images", None), str) and text.startswith("<|im_start|>"):
        return "", "", False  # the user wrote a template (QwenImageTokenizer)
    before, _, after = template.partition("{}")
    return before, after, False


def _segments(text: str, has_weights: bool) -> Iterator[str]:
    """The parts of a text that the host tokenises one by one (``comfy/sd1_clip.py``, SDTokenizer)."""
    escaped = escape_important(text)
    for segment, _ in token_weights(escaped, 1.0) if has_weights else [(escaped, 1.0)]:
        if written := unescape_important(segment):
            yield written


def _spelled(tokenizer: Any, text: str) -> tuple[list[int], list[Span]]:
    """The tokens of a text without start and end, and which letters each stands for."""
    vocabulary = tokenizer.tokenizer
    end = -1 if tokenizer.tokenizer_adds_end_token else None
    if hasattr(vocabulary, "add_bos"):
        ids, spans = _spelled_by_pieces(vocabulary, text)
    else:
        found = vocabulary(text, return_offsets_mapping=True)
        ids, spans = list(found["input_ids"]), [tuple(span) for span in found["offset_mapping"]]
    return ids[tokenizer.tokens_start : end], spans[tokenizer.tokens_start : end]


def _spelled_by_pieces(vocabulary: Any, text: str) -> tuple[list[int], list[Span]]:
    """The same of the host's SPieceTokenizer, with start and end as it gives them."""
    ids: list[int] = list(vocabulary(text)["input_ids"])
    special = vocabulary.special_tokens or {}
    parts = re.split(f"({'|'.join(map(re.escape, special))})", text) if special else [text]
    found: list[int] = []
    spans: list[Span] = []
    first = 0
    for part in parts:
        if part in special:
            found.append(special[part])
            spans.append((first, first + len(part)))
        elif part:
            of_part = _pieces(vocabulary.tokenizer, part)
            found.extend(of_part[0])
            spans.extend((first + start, first + end) for start, end in of_part[1])
        first += len(part)
    # Start and end stand for no letters.
    start = next((place for place in range(len(ids)) if ids[place : place + len(found)] == found), 0)
    return ids, [(0, 0)] * start + spans + [(0, 0)] * (len(ids) - start - len(found))


def _pieces(processor: Any, text: str) -> tuple[list[int], list[Span]]:
    """The tokens of a SentencePiece model, and their letters; of the bytes of a letter each has it."""
    try:
        pieces = processor.encode(text, out_type="immutable_proto", add_bos=False, add_eos=False).pieces
        ids, spans = [piece.id for piece in pieces], [(piece.begin, piece.end) for piece in pieces]
    except ValueError:  # since 0.2.2
        found = processor.encode(text, return_type="offset_mapping", add_bos=False, add_eos=False)
        ids, spans = list(found["ids"]), list(found["offsets"])
    for place in range(len(spans) - 2, -1, -1):
        start, end = spans[place]
        if start == end:
            spans[place] = start, spans[place + 1][1]
    return ids, spans


def _words(text: str, first: int, tokens: Sequence[_Token]) -> Iterator[PromptWord]:
    """The words of a text from ``first`` on, each with all tokens that have letters of it."""
    group: list[Span] = []
    places: list[_Token] = []
    passed = 0  # tokens that end where the word begins, or before
    for match in _WORDS.finditer(text, first):
        span = match.span()
        while passed < len(tokens) and tokens[passed].end <= span[0]:
            passed += 1
        end = passed
        while end < len(tokens) and tokens[end].start < span[1]:
            end += 1
        here = tokens[passed:end]
        if group and not set(here) & set(places):
            yield from _joined(text, group, places)
            group, places = [], []
        if here:
            group.append(span)
            places = sorted({*places, *here})
    if group:
        yield from _joined(text, group, places)


def _joined(text: str, spans: Sequence[Span], tokens: Sequence[_Token]) -> Iterator[PromptWord]:
    """The word of letters that share tokens; a sign in front of a single word is said apart."""
    parts = [text[start:end] for start, end in spans]
    signs = parts.pop(0) if len(parts) == 2 and _SIGNS.fullmatch(parts[0]) and not _SIGNS.fullmatch(parts[1]) else ""
    whole = parts[0] if len(parts) == 1 else text[spans[0][0] : spans[-1][1]]
    pieces = tuple(text[token.start : token.end].strip() for token in tokens)
    yield PromptWord(whole, tuple(token.position for token in tokens), pieces, signs)


def _is_padding(tokenizer: Any, token: tuple[Any, float, int]) -> bool:
    return bool(token[2] == 0 and token[0] == tokenizer.pad_token)
