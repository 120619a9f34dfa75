"""One sampling run with edits: rows that take their attention from the source's row (arXiv 2412.02237, P2P-HRV).

In an attention to text and image together the columns of the text are the cross-attention, and those of the image the
self-attention: each is exchanged in its own window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ...hrv.editing.alignment import in_step
from ...hrv.editing.edit import Columns, Edit, is_small
from ...hrv.heads.layout import AttentionLayer
from ...hrv.progress import Window
from ...hrv_kernels.value_rescaling import rescale_values
from ..models.architectures import architecture_of
from ..models.capabilities import Capability
from ..models.families.attention_call import NOTHING, WHOLE, Attend, AttentionCall, Following
from ..models.ours import our_key
from ..page.texts import SaidOnce
from ..prompts.carried import ROWS_KEY, Chunk, PromptRows, RowPrompt, brought
from ..runs.attention import Evaluation, Reach, at_every_call, at_every_evaluation
from ..runs.rows import COUPLE_LAYOUTS
from ..runs.windows import WindowEnds
from .texts import texts_of_rows

_WRAPPER_KEY = our_key("editing")
_TABLE_KEY = "hrv_edits_by_uuid"
_CALL_KEY = "hrv_edited_call"


class Follower(NamedTuple):
    """A row of a call of the model that follows another one: the prompt at ``place`` of its group."""

    row: int
    source: int
    prompts: PromptRows
    place: int
    edit: Edit

    @property
    def prompt(self) -> RowPrompt:
        """What it is asked for."""
        return self.prompts.rows[self.place]

    @property
    def source_prompt(self) -> RowPrompt:
        """What its source is asked for."""
        return self.prompts.rows[0]


class _Moves(NamedTuple):
    """What E rows do in an attention, by weights of values as :class:`~...hrv.editing.edit.Columns` has them.

    ``itself`` is the share of the image's own keys that they see as their source does, None for all of it.
    """

    following: Following
    mapped: torch.Tensor  # [E, T, T]
    own: torch.Tensor | None  # [E, T, H], or with one column for all heads; None if nothing is kept
    itself: torch.Tensor | None  # [E]


class _Call(NamedTuple):
    """One call of the model, and what was found out for its kinds of attention so far."""

    rows: int
    tokens: int
    latent: tuple[int, ...]
    followers: tuple[Follower, ...]
    active: frozenset[Window]
    made: dict[tuple[Any, ...], _Moves | None]


class EditingRun:
    """What one sampling run with edits keeps. Raises HRVError for an HRV of another head layout than the model's."""

    def __init__(self, guider: Any, edited: Sequence[PromptRows]):
        model = guider.model_patcher
        self.architecture = architecture_of(model, Capability.EDITING)
        self.layout = self.architecture.layout
        for edit in (row.edit for prompts in edited for row in prompts.rows if row.edit is not None):
            edit.require_layout(self.layout)
        self.windows = WindowEnds(model)
        self.texts = texts_of_rows(self.architecture)
        self.texts.prepare(guider)
        self.to_text = self.architecture.wrapping(self.attend_at)
        self.to_itself = self.architecture.wrapping_itself(self.attend_at)
        self.made: dict[tuple[Any, ...], dict[tuple[Any, ...], _Moves | None]] = {}
        self.reach = Reach("Prompt Edit")
        self.say = SaidOnce()

    def install(self, options: dict[str, Any]) -> None:
        """Get into a run by its own model options."""
        at_every_evaluation(options, _WRAPPER_KEY, self.evaluate)
        at_every_call(options, _WRAPPER_KEY, self.prepare_call)

    def evaluate(self, evaluation: Evaluation) -> Any:
        """Bring the texts of rows together, and tell the layers which chunk has which prompts."""
        table: dict[Chunk, PromptRows] = {}
        conds: list[Any] = []
        for number, entries in enumerate(evaluation.conds):
            edited = {id(one.entry): one.owner for one in brought(entries) if ROWS_KEY in one.owner}
            conds.append(entries)
            if edited:
                conds[-1] = [
                    self.texts.together(entry, edited[id(entry)]) if id(entry) in edited else entry for entry in entries
                ]
            for entry, owner, _ in brought(conds[-1]):
                if ROWS_KEY in owner:
                    table[number, entry["uuid"]] = owner[ROWS_KEY]
        found = evaluation._replace(conds=conds).telling(_TABLE_KEY, table).run()
        self.reach.require()
        return found

    def prepare_call(
        self, x: torch.Tensor, context: torch.Tensor | None, transformer_options: dict[str, Any]
    ) -> dict[str, Any]:
        """Find out which rows follow which before the layers of one call of the model run."""
        followers = tuple(followers_of(transformer_options, len(x)))
        if context is None or not followers:
            return transformer_options
        sigma = float(transformer_options["sigmas"][0])
        windows = {window for one in followers for window in (*one.edit.moments, one.edit.windows.itself)}
        active = frozenset(window for window in windows if self.windows.is_open(window, sigma))
        if not active:
            return transformer_options
        tokens, latent = context.shape[1], tuple(x.shape[2:])
        # For as long as no window opens or closes.
        made = self.made.setdefault((followers, active, len(x), tokens, latent, x.device), {})
        self.reach.put_there()
        options = {**transformer_options, _CALL_KEY: _Call(len(x), tokens, latent, followers, active, made)}
        if self.to_itself is None or any(active.intersection(one.edit.moments) for one in followers):
            options = self.to_text.into(options, context)
        if self.to_itself is not None and any(one.edit.windows.itself in active for one in followers):
            options = self.to_itself.into(options, context)
        return options

    def attend_at(self, layer: AttentionLayer) -> Attend:
        heads = self.layout.head_slice(layer.key)

        # Which rows follow which is bookkeeping that no compiler can trace.
        @torch.compiler.disable
        def attend(attention: AttentionCall) -> torch.Tensor:
            self.reach.called()
            call: _Call = attention.extra[_CALL_KEY]
            reads_text = attention.text != NOTHING
            same_rows = len(attention.q) == attention.rows == call.rows
            same = same_rows and (not reads_text or attention.tokens == call.tokens)
            if not self.as_announced(same, attention.extra):
                return attention.plain()
            moves = self.moves(attention, call)
            if moves is None:
                return attention.plain()
            following, mapped, own, itself = moves
            values = attention.values_of(following.rows)
            given = mapped.to(values.dtype) @ values if reads_text else values
            kept = None if own is None else rescale_values(values, _of_layer(own, heads))
            return attention.following(following, given, kept, itself)

        return attend

    def moves(self, attention: AttentionCall, call: _Call) -> _Moves | None:
        """What rows do in an attention, made once for each kind of it; None for nothing."""
        in_itself: frozenset[Follower] = frozenset()
        if attention.text != WHOLE:
            in_itself = frozenset(one for one in call.followers if one.edit.windows.itself in call.active)
        positions = 0
        if in_itself:
            positions = math.prod(self.architecture.places(call.latent, attention.extra))
            if attention.positions < positions:
                self.say(
                    "Another node merges image positions (such as Tome Patch Model); self-attention is not edited "
                    "there."
                )
                in_itself, positions = frozenset(), 0
        key = (attention.text.start, attention.text.stop, attention.padding, positions)
        if key not in call.made:
            latent = math.prod(call.latent)
            small = [one for one in in_itself if is_small(one.edit.windows.size, positions, latent)]
            call.made[key] = _moves(call, small, attention)
        return call.made[key]

    def as_announced(self, same: bool, extra: Mapping[str, Any]) -> bool:
        """Whether a layer's rows and tokens are those of the call; says so if not."""
        if same and not any(layout in extra for layout in COUPLE_LAYOUTS):
            return True
        self.say("Another node changed how prompts share the rows of the batch; prompt edits have no effect there.")
        return False


def followers_of(transformer_options: Mapping[str, Any], rows: int) -> list[Follower]:
    """The rows of a call of the model, of equal chunks, that follow another row."""
    table: Mapping[Chunk, PromptRows] = transformer_options.get(_TABLE_KEY, {})
    lists, uuids = transformer_options.get("cond_or_uncond", ()), transformer_options.get("uuids", ())
    chunks = [table.get(chunk) for chunk in zip(lists, uuids, strict=False)]
    share = rows // max(1, len(chunks))
    return [
        Follower(source + place, source, prompts, place, row.edit)
        for number, prompts in enumerate(chunks)
        if prompts is not None
        for source in range(number * share, (number + 1) * share, len(prompts.rows))
        for place, row in enumerate(prompts.rows)
        if row.edit is not None
    ]


def _moves(call: _Call, in_itself: Sequence[Follower], attention: AttentionCall) -> _Moves | None:
    """What rows do in an attention like this one, in which some follow their source in what they see of the image."""
    rows, sources, order = [], [], list(range(call.rows))
    mapped: list[np.ndarray] = []
    own: list[np.ndarray] = []
    itself: list[float] = []
    reads_text, reads_image = attention.text != NOTHING, attention.text != WHOLE
    for one in call.followers:
        source, target = one.source_prompt, one.prompt
        lengths = source.tokens - source.first, target.tokens - target.first
        columns = one.edit.columns(call.active, *lengths) if reads_text else None
        if columns is None and one not in in_itself:
            continue
        rows.append(one.row)
        sources.append(one.source)
        order[one.row] = one.source
        itself.append(1.0 if one in in_itself else 0.0)
        if reads_text:
            every = _of_all_keys(one, columns, call, attention.padding)
            mapped.append(every.mapped)
            own.append(every.own)
    if not rows:
        return None
    device = attention.v.device
    following = Following(*(torch.tensor(numbers, device=device) for numbers in (rows, sources, order)))
    share = torch.tensor(itself, device=device) if reads_image and min(itself) < 1.0 else None
    if not reads_text:
        return _Moves(following, torch.empty(0, device=device), None, share)
    heads = max(weights.shape[1] for weights in own)
    kept = np.stack([np.broadcast_to(weights, (len(weights), heads)) for weights in own])
    return _Moves(
        following,
        torch.from_numpy(np.stack(mapped)).to(device),
        torch.from_numpy(kept).to(device) if kept.any() else None,
        share,
    )


def _of_all_keys(one: Follower, columns: Columns | None, call: _Call, padding: int) -> Columns:
    """Weights of the keys of the text that one row has in a call, the model's ``padding`` behind its tokens included.

    Contexts are repeated to the call's tokens. Copies of a source's column share its attention, so each gets the whole
    value; copies of a target's are alike. What fills up both texts goes one to one; it is the source's like any column
    that is no word's.
    """
    keys = call.tokens + padding
    mapped = np.zeros((keys, keys), dtype=np.float32)
    if columns is None:
        return Columns(mapped, np.ones((keys, 1), dtype=np.float32))
    source, target = one.source_prompt, one.prompt
    own = np.ones((keys, columns.own.shape[1]), dtype=np.float32)
    own[target.first : call.tokens] = _repeated(columns.own, target, call.tokens)
    mapped[source.first : call.tokens, target.first : target.tokens] = _repeated(columns.mapped, source, call.tokens)
    if one.edit.windows.cross in call.active:
        for olds, news in (
            (range(source.first), range(target.first)),
            (range(call.tokens, keys), range(call.tokens, keys)),
        ):
            in_step(mapped, list(olds), list(news))
            own[list(news)] = 0.0
    return Columns(mapped, own)


def _repeated(columns: np.ndarray, prompt: RowPrompt, tokens: int) -> np.ndarray:
    """Weights [T, ...] of a prompt's own tokens, as often as the prompt is repeated."""
    return np.tile(columns, (tokens // prompt.tokens, 1))


def _of_layer(own: torch.Tensor, heads: slice) -> torch.Tensor:
    """The weights [E, T, heads] of a layer's own heads."""
    return own if own.shape[-1] == 1 else own[..., heads]
