"""The texts of the prompts of an edit as they reach the model, one a row of its batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import comfy.conds
import torch

from ...hrv.errors import HRVError
from ..models.families.architecture import Architecture
from ..models.ours import our_key
from ..prompts.beside import PromptBeside, prepare_beside, prepared_beside
from ..prompts.carried import ROWS_KEY, Conditioning, PromptRows

_LIST = our_key("edited_texts")
# What the host makes for the model of a text, beside pooled vectors.
_TEXT_CONDS = ("attention_mask", "num_tokens", "t5xxl_ids", "t5xxl_weights")


class RowTexts(Protocol):
    """How the texts of an edit's prompts come together in one batch."""

    def prepare(self, guider: Any) -> None:
        """Before a guider's run."""
        ...

    def together(self, entry: Mapping[str, Any], owner: Mapping[str, Any]) -> Mapping[str, Any]:
        """An entry of an evaluation of the model with the texts of all rows; ``owner`` brought its prompts."""
        ...


class StackedTexts:
    """Texts that stand above each other in the conditioning already, as all of CLIP's do."""

    def prepare(self, guider: Any) -> None:
        """Nothing."""

    def together(self, entry: Mapping[str, Any], owner: Mapping[str, Any]) -> Mapping[str, Any]:
        """As it is."""
        return entry


class PreparedTexts:
    """Texts that the host prepares one by one, as it would without an edit: it fills up, masks and translates them."""

    def __init__(self, architecture: Architecture):
        self.architecture = architecture
        self.guider: Any = None
        self.made: dict[Any, dict[str, Any]] = {}

    def prepare(self, guider: Any) -> None:
        """Have the host prepare every row's text."""
        self.guider = guider
        prompts = (
            PromptBeside((entry["uuid"], place), name, entry, entry["cross_attn"][[place], : row.tokens], row.text)
            for name, entries in guider.conds.items()
            for entry in entries
            if ROWS_KEY in entry
            for place, row in enumerate(entry[ROWS_KEY].rows)
        )
        prepare_beside(guider, _LIST, list(prompts))

    def together(self, entry: Mapping[str, Any], owner: Mapping[str, Any]) -> Mapping[str, Any]:
        """With each row's own. Raises HRVError for texts that can't be in one batch."""
        uuid = owner["uuid"]
        if uuid not in self.made:
            self.made[uuid] = self.of_rows(uuid, owner[ROWS_KEY])
        changed = self.made[uuid]
        others = {name: cond for name, cond in entry["model_conds"].items() if name not in _TEXT_CONDS}
        return {**entry, ROWS_KEY: changed[ROWS_KEY], "model_conds": {**others, **changed["model_conds"]}}

    def of_rows(self, uuid: Any, prompts: PromptRows) -> dict[str, Any]:
        """What the model gets of all rows' texts, and the rows with the places of their tokens in it."""
        prepared = prepared_beside(self.guider, _LIST)
        parts = [prepared[uuid, place] for place in range(len(prompts.rows))]
        contexts = [part["c_crossattn"].cond for part in parts]
        lengths = [context.shape[1] for context in contexts]
        require_one_length(self.architecture, lengths)
        length = math.lcm(*lengths)
        every = torch.cat([context.repeat(1, length // context.shape[1], 1) for context in contexts])
        conds: dict[str, Any] = {"c_crossattn": comfy.conds.CONDRegular(every)}
        for name in _TEXT_CONDS:
            found = [part[name].cond for part in parts if name in part]
            if found:
                conds[name] = _of_rows(found, parts, name, lengths)
        rows = tuple(
            replace(row, tokens=reached, first=self.architecture.first_token(row.tokens, reached))
            for row, reached in zip(prompts.rows, lengths, strict=True)
        )
        return {ROWS_KEY: replace(prompts, rows=rows), "model_conds": conds}


def _of_rows(found: list[Any], parts: list[dict[str, Any]], name: str, lengths: list[int]) -> Any:
    """One condition of all rows. Raises HRVError where theirs don't fit together."""
    if name == "attention_mask":
        like = found[0]
        masks = [
            part[name].cond if name in part else like.new_ones((1, length))
            for part, length in zip(parts, lengths, strict=True)
        ]
        return comfy.conds.CONDRegular(torch.cat(masks))
    if not isinstance(found[0], torch.Tensor):
        if any(one != found[0] for one in found):
            raise HRVError(
                f"The source and its edits have {', '.join(map(str, found))} tokens without padding, but this model "
                "takes them together only if these are equally many. Change words for words of as many tokens."
            )
        return comfy.conds.CONDConstant(found[0])
    return comfy.conds.CONDRegular(torch.cat(found))


def require_editable(architecture: Architecture, conditioning: Conditioning) -> None:
    """Raise HRVError for the prompts of an edit that a family can't take in one batch."""
    for _, extras in conditioning:
        require_one_length(architecture, [architecture.reached(row.tokens) for row in extras[ROWS_KEY].rows])


def texts_of_rows(architecture: Architecture) -> RowTexts:
    """How texts come together for a family."""
    return PreparedTexts(architecture) if architecture.projections is None else StackedTexts()


def require_one_length(architecture: Architecture, lengths: list[int]) -> None:
    """Raise HRVError for texts of so many tokens, as they reach the model, that a family can't take in one batch.

    Where the image meets the text in an attention of their own, repeating a text to a common length changes nothing.
    """
    if not architecture.text_is_fixed and len(set(lengths)) > 1:
        source, *edits = lengths
        other = next(length for length in edits if length != source)
        raise HRVError(
            f"{architecture.name} sees source and target in one batch, so they need equally many tokens, but the "
            f"source has {source} and the target {other}. Change words for words of as many tokens (HRV Tokens shows "
            "them), or fill up the shorter prompt, for instance with a comma."
        )
