"""All that a conditioning carries for this pack, under keys of its dict (the host keeps unknown ones).

A conditioning may hold several prompts, one for each row of a batch.

The host takes a tensor whose batch is the latent's as one prompt a row, and one that is shorter it repeats
(``comfy/conds.py``, CONDRegular.process_cond): groups of rows follow each other, each with all prompts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from ...hrv.controls.control import Control
from ...hrv.controls.reading import Reading
from ...hrv.editing.blend import Blend
from ...hrv.editing.edit import Edit
from ...hrv.errors import HRVError
from ...hrv.prompts.tokens import TokenMap

Conditioning = list[list[Any]]
"""A conditioning as the host passes it: [tensor [B, tokens, C], dict] pairs."""

TOKEN_MAP_KEY = "hrv_token_map"
"""The key of its :class:`~...hrv.prompts.tokens.TokenMap`."""

CONTROLS_KEY = "hrv_controls"
"""The key of its controls, a tuple of :class:`~...hrv.controls.control.Control`."""

READINGS_KEY = "hrv_readings"
"""The key of its readings of other prompts, a tuple of :class:`PromptReading`; a later one reads over earlier ones."""

WORD_EDITS_KEY = "hrv_word_edits"
"""The key of its word edits, a tuple of :class:`~...hrv.editing.edit.WordEdit`; Prompt Edit takes them up."""

ROWS_KEY = "hrv_prompt_rows"
"""The key of its :class:`PromptRows`."""

EXCITEMENT_KEY = "hrv_excitement"
"""The key of its :class:`~..attend_and_excite.maps.Excitement`."""

TEXT_KEYS = ("t5xxl_ids", "t5xxl_weights", "attention_mask")
"""What the host's text encoders put beside a tensor that is part of the text itself (Anima, Lumina 2)."""

Chunk = tuple[int, Any]
"""One chunk of a batch: the number of its list of conditionings (0 positive, 1 negative) and its uuid."""


@dataclass(frozen=True, eq=False)
class PromptReading:
    """A reading of another prompt: that prompt's context [rows, tokens, C], and the controls that act on it there.

    ``text`` is what else its conditioning carries of its text, by :data:`TEXT_KEYS`.
    """

    reading: Reading
    context: torch.Tensor
    controls: tuple[Control, ...] = ()
    text: Mapping[str, Any] = field(default_factory=dict)

    @property
    def made(self) -> tuple[Control | Reading, ...]:
        """All that nodes made of it: the reading and the controls."""
        return (self.reading, *self.controls)


@dataclass(frozen=True, eq=False)
class RowPrompt:
    """What one row is asked for.

    ``words`` is its prompt, ``tokens`` the length of its own context before repetition, ``controls`` act on it,
    ``readings`` take some heads to other prompts, and ``edit`` says how it follows row 0; that row, the source, has
    none. ``text`` is what else its conditioning carries of its text, by :data:`TEXT_KEYS`. In a run ``tokens`` are
    those that reach the model, of which ``first`` is its own first one.
    """

    words: TokenMap
    tokens: int
    controls: tuple[Control, ...] = ()
    readings: tuple[PromptReading, ...] = ()
    edit: Edit | None = None
    text: Mapping[str, Any] = field(default_factory=dict)
    first: int = 0


@dataclass(frozen=True, eq=False)
class PromptRows:
    """The prompts of a group of rows: the source, then its edits; and what keeps these to one place."""

    rows: tuple[RowPrompt, ...]
    blend: Blend | None = None


class Brought(NamedTuple):
    """An entry of a list of conditionings with the context that the model gets, and who brought that context."""

    entry: Mapping[str, Any]
    owner: Mapping[str, Any]
    tokens: int


def brought(entries: Iterable[Mapping[str, Any]] | None) -> Iterator[Brought]:
    """The entries of one of the host's lists of conditionings that have a context.

    For an area of one list the host adds a copy of that entry, uuid and all, to the others with the context of one of
    theirs (``comfy/samplers.py``, create_cond_with_same_area_if_none): what a conditioning asks for belongs to who
    brought the context.
    """
    owners: dict[int, Mapping[str, Any]] = {}
    for entry in entries or ():
        if context := entry.get("model_conds", {}).get("c_crossattn"):
            yield Brought(entry, owners.setdefault(id(context), entry), context.cond.shape[1])


def token_maps(conditioning: Conditioning, what: str = "This conditioning") -> list[TokenMap]:
    """The token maps that the entries of a conditioning carry.

    Raises HRVError for an entry without one and for one of several prompts; ``what`` names the conditioning there.
    """
    if any(ROWS_KEY in extras for _, extras in conditioning):
        raise HRVError(
            f"{what} holds several prompts, one for each row of the batch, so its words are not clear. Put nodes "
            "that act on words before Prompt Edit."
        )
    maps = [extras.get(TOKEN_MAP_KEY) for _, extras in conditioning]
    if None in maps:
        raise HRVError(
            f"{what} does not say which token belongs to which word. Encode the prompt with the node 'CLIP Text Encode "
            "(HRV)', or put 'Tag Conditioning (HRV)' after the node that encodes it."
        )
    return maps
