"""From a source prompt and a target prompt to one conditioning and one latent that hold both, row by row."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import comfy.conds
import comfy.utils
import torch

from ...hrv.editing.alignment import align
from ...hrv.editing.blend import Blend, BlendRecord
from ...hrv.editing.edit import Edit, EditWindows, WordEdit
from ...hrv.errors import HRVError, listed, quoted
from ...hrv.progress import Window
from ...hrv.prompts.tokens import TokenMap, find_phrases
from ..prompts.carried import (
    CONTROLS_KEY,
    READINGS_KEY,
    ROWS_KEY,
    TEXT_KEYS,
    TOKEN_MAP_KEY,
    WORD_EDITS_KEY,
    Conditioning,
    PromptRows,
    RowPrompt,
    token_maps,
)

_LATENT_KEY = "hrv_prompt_rows"
_RECORD_KEY = "hrv_blend_record"
_POOLED_KEY = "pooled_output"
# What a row's prompt brings itself; all else comes from the source and counts for all rows.
_OWN_KEYS = {TOKEN_MAP_KEY, CONTROLS_KEY, READINGS_KEY, ROWS_KEY, WORD_EDITS_KEY, _POOLED_KEY, *TEXT_KEYS}

ForChanged = Callable[[tuple[int, ...]], WordEdit]
"""From the positions of the words that an alignment found to be changed to what they do."""


def add_word_edit(
    conditioning: Conditioning,
    phrases: Sequence[str],
    edit: Callable[[tuple[int, ...]], WordEdit],
    occurrence: str | int = "all",
) -> Conditioning:
    """A copy of a target's conditioning that carries one more word edit, for :func:`edit_prompt` to find.

    Without phrases nothing is added. Raises HRVError for a conditioning without token maps and for phrases that are
    not in the prompt.
    """
    if not phrases:
        return list(conditioning)
    tagged: Conditioning = []
    for (tensor, extras), words in zip(conditioning, token_maps(conditioning), strict=True):
        one = edit(find_phrases(words, phrases, occurrence))
        tagged.append([tensor, {**extras, WORD_EDITS_KEY: (*extras.get(WORD_EDITS_KEY, ()), one)}])
    return tagged


def edit_prompt(
    source: Conditioning,
    target: Conditioning,
    windows: EditWindows,
    pairs: Sequence[tuple[str, str]] = (),
    for_changed: ForChanged | None = None,
) -> tuple[Conditioning, Edit]:
    """One conditioning of both prompts, a row each, and how the target follows the source.

    ``source`` may be what this function gave before: the target is then one more row of it. ``pairs`` are those of
    :func:`~...hrv.editing.alignment.align`; ``for_changed`` makes the edit of all words that were changed. Tensors of
    unequal lengths are repeated to their least common multiple, as the host does, which changes no result.

    Raises HRVError for conditionings of several entries or several rows, without token maps, of unlike widths, for a
    source with word edits or a local blend, as ``for_changed`` does, even where nothing was changed, and as
    :func:`~...hrv.editing.alignment.align` does.
    """
    before, extras, tensor = _source_rows(source)
    words = token_maps(target, "The target")[0]
    one, its = _only_entry(target, "target")
    if one.shape[2] != tensor.shape[2]:
        raise HRVError(
            f"The source has {tensor.shape[2]} features per token and the target {one.shape[2]}: encode both prompts "
            "with the same CLIP."
        )
    alignment = align(before[0].words, words, pairs)
    made = [for_changed(alignment.changed)] if for_changed else []
    changed = [words_edit for words_edit in made if words_edit.positions]
    edit = Edit(alignment, windows, (*changed, *its.get(WORD_EDITS_KEY, ())))
    rows = (*before, _row(words, one, its, edit))
    contexts = [*(tensor[[row], : prompt.tokens] for row, prompt in enumerate(before)), one]
    length = math.lcm(*(context.shape[1] for context in contexts))
    together = torch.cat([context.repeat(1, length // context.shape[1], 1) for context in contexts])
    shared = {key: value for key, value in extras.items() if key not in _OWN_KEYS}
    pooled, of_target = extras.get(_POOLED_KEY), its.get(_POOLED_KEY)
    if pooled is not None and of_target is not None:
        shared[_POOLED_KEY] = torch.cat((pooled, of_target))
    return [[together, {**shared, ROWS_KEY: PromptRows(rows)}]], edit


def has_concepts(target: Conditioning) -> bool:
    """Whether word edits of a target let the heads of a concept decide."""
    return any(edit.factors is not None for _, extras in target for edit in extras.get(WORD_EDITS_KEY, ()))


def row_count(conditioning: Conditioning) -> int:
    """The rows that an edited conditioning asks for."""
    return len(conditioning[0][0])


def ignored_settings(source: Conditioning, target: Conditioning) -> list[str]:
    """The names of settings of the target (areas, ControlNets ...) that the source has not or has otherwise."""
    of_source, of_target = source[0][1], target[0][1]
    return sorted(
        key
        for key, value in of_target.items()
        if key not in _OWN_KEYS and value is not None and not comfy.conds.is_equal(value, of_source.get(key))
    )


def add_row(latent: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """A LATENT with one row more in every group: a copy of the source's, with its noise.

    ``rows`` is the number of rows that a group then has. A latent that no edit made before has one row a group. Raises
    HRVError if the latent does not have the rows of the edits so far.
    """
    samples: torch.Tensor = latent["samples"]
    groups, rest = divmod(len(samples), rows - 1)
    if rest or (rows > 2 and latent.get(_LATENT_KEY) != rows - 1):
        raise HRVError(
            f"The source already has {rows - 2} edits, but this latent doesn't have a row for each. Connect the "
            "LATENT of the Prompt Edit that the source comes from."
        )
    order = [group * (rows - 1) + row for group in range(groups) for row in (*range(rows - 1), 0)]
    found = {**latent, "samples": samples[order], _LATENT_KEY: rows}
    numbers = latent.get("batch_index", range(len(samples)))
    found["batch_index"] = [numbers[row] for row in order]
    if (mask := latent.get("noise_mask")) is not None and len(mask) > 1:
        found["noise_mask"] = comfy.utils.repeat_to_batch_size(mask, len(samples))[order]
    return found


def with_local_blend(
    conditioning: Conditioning,
    latent: Mapping[str, Any],
    phrases: Sequence[str],
    threshold: float,
    window: Window,
    size: float,
) -> tuple[Conditioning, dict[str, Any]]:
    """Copies of an edited conditioning and its latent whose edits keep to the places of some words.

    ``phrases`` are of the source or the targets, each row has those it contains; none are the words that were changed.
    The rest is :class:`~...hrv.editing.blend.Blend`'s. Raises HRVError for a conditioning without edits or with a
    local blend, a phrase that is in no prompt, an edit without any of the phrases, and, without phrases, one that
    changed no word.
    """
    rows = [extras.get(ROWS_KEY) for _, extras in conditioning]
    if len(rows) != 1 or rows[0] is None:
        raise HRVError("This conditioning has no edits to keep to one place: connect that of the last Prompt Edit.")
    if rows[0].blend is not None:
        raise HRVError("This conditioning already has a local blend: use one Local Blend, with the words of both.")
    source = rows[0].rows[0]
    edits = [(row.words, row.edit.alignment) for row in rows[0].rows if row.edit is not None]
    for phrase in phrases:
        if not any(row.words.occurrences(phrase) for row in rows[0].rows):
            raise HRVError(f"Neither the source nor a target contains {quoted(phrase)}: use words of the prompts.")
    if not phrases and not all(alignment.left or alignment.changed for _, alignment in edits):
        raise HRVError("An edit changed no word, so its place is not clear: list the words whose places may change.")
    words = tuple(
        (_places(source.words, phrases), _places(words, phrases)) if phrases else (alignment.left, alignment.changed)
        for words, alignment in edits
    )
    for number, ((of_source, own), (target, _)) in enumerate(zip(words, edits, strict=True), start=1):
        if not (of_source or own):
            raise HRVError(
                f"Edit {number} ({quoted(target.text)}) and the source contain none of the words {listed(phrases)}, "
                "so this edit would change nothing. Add a word of each edit, or one of the source."
            )
    blend = Blend(words, threshold, window, size)
    ((tensor, extras),) = conditioning
    return [[tensor, {**extras, ROWS_KEY: replace(rows[0], blend=blend)}]], {**latent, _RECORD_KEY: blend.record}


def blend_masks(latent: Mapping[str, Any]) -> torch.Tensor:
    """The masks of the run that gave this LATENT: float32 [edits, height, width] in pixels, 1 where an edit may differ.

    Raises HRVError for a latent of a run without local blend and as
    :meth:`~...hrv.editing.blend.BlendRecord.masks_of` does.
    """
    record: BlendRecord | None = latent.get(_RECORD_KEY)
    if record is None:
        raise HRVError("This latent was not sampled with Local Blend: connect the LATENT of its sampler.")
    return record.masks_of(latent["samples"]).float()


def _places(words: TokenMap, phrases: Sequence[str]) -> tuple[int, ...]:
    """Positions of the phrases that the prompt contains."""
    return find_phrases(words, [phrase for phrase in phrases if words.occurrences(phrase)])


def _source_rows(source: Conditioning) -> tuple[tuple[RowPrompt, ...], Mapping[str, Any], torch.Tensor]:
    """The prompts of a source that may have edits already, with its entry's dict and tensor."""
    if any(WORD_EDITS_KEY in extras for _, extras in source):
        raise HRVError(
            "The source comes from Edit Words, which has no effect there: put Edit Words between the target and Prompt "
            "Edit."
        )
    if len(source) == 1 and (prompts := source[0][1].get(ROWS_KEY)) is not None:
        if prompts.blend is not None:
            raise HRVError(
                "The source comes from Local Blend, which this Prompt Edit would lose: connect the Prompt Edits to "
                "each other, and Local Blend after the last one."
            )
        return prompts.rows, source[0][1], source[0][0]
    words = token_maps(source, "The source")[0]
    tensor, extras = _only_entry(source, "source")
    return (_row(words, tensor, extras),), extras, tensor


def _row(words: TokenMap, tensor: torch.Tensor, extras: Mapping[str, Any], edit: Edit | None = None) -> RowPrompt:
    """What one row is asked for by an entry of a conditioning."""
    text = {name: extras[name] for name in TEXT_KEYS if name in extras}
    return RowPrompt(words, tensor.shape[1], extras.get(CONTROLS_KEY, ()), extras.get(READINGS_KEY, ()), edit, text)


def _only_entry(conditioning: Conditioning, what: str) -> tuple[torch.Tensor, Mapping[str, Any]]:
    if len(conditioning) != 1 or len(conditioning[0][0]) != 1:
        raise HRVError(
            f"The {what} is several prompts in one, but an edit goes from one prompt to another. Combine prompts, and "
            "give them areas or schedules, after Prompt Edit."
        )
    tensor, extras = conditioning[0]
    return tensor, extras
