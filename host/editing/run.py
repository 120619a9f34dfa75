"""One sampling run with edits: rows that take their attention from the source's row (arXiv 2412.02237, P2P-HRV)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ...hrv.editing.edit import Edit, is_small
from ...hrv.heads.layout import AttentionLayer
from ...hrv.progress import Window
from ...hrv_kernels.value_rescaling import rescale_values
from ..models.architectures import unet_of
from ..models.capabilities import Capability
from ..models.families.replacers import Replacer, plain_attention
from ..models.ours import our_key
from ..page.texts import SaidOnce
from ..prompts.carried import ROWS_KEY, Chunk, PromptRows, brought
from ..runs.attention import Evaluation, at_every_call, at_every_evaluation
from ..runs.rows import COUPLE_LAYOUTS
from ..runs.windows import WindowEnds

_WRAPPER_KEY = our_key("editing")
_TABLE_KEY = "hrv_edits_by_uuid"
_CALL_KEY = "hrv_edited_call"
_CROSS_KEY = "hrv_edited_cross_attention"


class Follower(NamedTuple):
    """A row of a call of the model that follows another one: the prompt at ``place`` of its group."""

    row: int
    source: int
    prompts: PromptRows
    place: int
    edit: Edit

    @property
    def tokens(self) -> int:
        """The length of its own context."""
        return self.prompts.rows[self.place].tokens

    @property
    def source_tokens(self) -> int:
        """The length of its source's own context."""
        return self.prompts.rows[0].tokens


class _Cross(NamedTuple):
    """What E rows do in cross-attention: weights of values as :class:`~...hrv.editing.edit.Columns` has them."""

    rows: torch.Tensor  # int64 [E]
    sources: torch.Tensor  # int64 [E]
    order: torch.Tensor  # int64 [B]: the row whose map each row of the batch uses
    mapped: torch.Tensor  # [E, T, T]
    own: torch.Tensor | None  # [E, T, H], or with one column for all heads; None if nothing is kept


class _Call(NamedTuple):
    """One call of the model, and who follows whom in self-attention at this moment."""

    rows: int
    tokens: int
    latent_positions: int
    followers: tuple[Follower, ...]
    orders: dict[int, torch.Tensor | None]  # of layers of so many positions: the row whose map each row uses


class EditingRun:
    """What one sampling run with edits keeps. Raises HRVError for an HRV of another head layout than the model's."""

    def __init__(self, model: Any, edited: Sequence[PromptRows]):
        self.architecture = unet_of(model, Capability.EDITING)
        self.layout = self.architecture.layout
        for edit in (row.edit for prompts in edited for row in prompts.rows if row.edit is not None):
            edit.require_layout(self.layout)
        self.windows = WindowEnds(model)
        self.cross_wrapping = self.architecture.replacing(self.cross_replacer)
        self.self_wrapping = self.architecture.replacing(self.self_replacer, "attn1")
        self.made: dict[tuple[Any, ...], _Cross | None] = {}
        self.orders: dict[tuple[Any, ...], dict[int, torch.Tensor | None]] = {}
        self.say = SaidOnce()

    def install(self, options: dict[str, Any]) -> None:
        """Get into a run by its own model options."""
        at_every_evaluation(options, _WRAPPER_KEY, self.evaluate)
        at_every_call(options, _WRAPPER_KEY, self.prepare_call)

    def evaluate(self, evaluation: Evaluation) -> Any:
        """Tell the layers which chunk has which prompts."""
        table: dict[Chunk, PromptRows] = {
            (number, entry["uuid"]): owner[ROWS_KEY]
            for number, entries in enumerate(evaluation.conds)
            for entry, owner, _ in brought(entries)
            if ROWS_KEY in owner
        }
        return evaluation.telling(_TABLE_KEY, table).run()

    def prepare_call(
        self, x: torch.Tensor, context: torch.Tensor | None, transformer_options: dict[str, Any]
    ) -> dict[str, Any]:
        """Find out which rows follow which before the layers of one call of the model run."""
        followers = followers_of(transformer_options, len(x))
        if context is None or not followers:
            return transformer_options
        sigma = float(transformer_options["sigmas"][0])
        tokens, positions = context.shape[1], x.shape[-2] * x.shape[-1]
        in_self = tuple(one for one in followers if self.windows.is_open(one.edit.windows.itself, sigma))
        cross = self.cross(followers, sigma, len(x), tokens, x.device)
        orders = self.orders.setdefault((in_self, len(x), positions, x.device), {})
        options = {**transformer_options, _CALL_KEY: _Call(len(x), tokens, positions, in_self, orders)}
        if cross is not None:
            options = self.cross_wrapping.into({**options, _CROSS_KEY: cross})
        return self.self_wrapping.into(options) if in_self else options

    def cross(
        self, followers: list[Follower], sigma: float, rows: int, tokens: int, device: torch.device
    ) -> _Cross | None:
        """What rows do at this noise level in cross-attention, made once for as long as no window opens or closes."""
        windows = {window for one in followers for window in one.edit.moments}
        active = frozenset(window for window in windows if self.windows.is_open(window, sigma))
        key = (tuple(followers), active, rows, tokens, device)
        if key not in self.made:
            self.made[key] = _cross(followers, active, rows, tokens, device)
        return self.made[key]

    def cross_replacer(self, layer: AttentionLayer, previous: Replacer) -> Replacer:
        heads = self.layout.head_slice(layer.key)

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
            call: _Call = extra[_CALL_KEY]
            if not self.as_announced(v.shape[:2] == (call.rows, call.tokens), extra):
                return previous(q, k, v, extra)
            rows, sources, order, mapped, own = extra[_CROSS_KEY]
            from_source = mapped.to(v.dtype) @ v[rows]
            if own is None and previous is plain_attention:
                queries, keys = q.index_select(0, order), k.index_select(0, order)
                return previous(queries, keys, v.index_copy(0, rows, from_source), extra)
            # What else another pack adds here, it adds once, to the rows' own queries.
            kept = torch.zeros_like(from_source) if own is None else rescale_values(v[rows], _of_layer(own, heads))
            out = previous(q, k, v.index_copy(0, rows, kept), extra)
            return out.index_add(0, rows, plain_attention(q[sources], k[sources], from_source, extra))

        return attend

    def self_replacer(self, layer: AttentionLayer, previous: Replacer) -> Replacer:
        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
            call: _Call = extra[_CALL_KEY]
            as_announced = self.as_announced(len(q) == call.rows, extra) and self.is_whole(q, extra)
            order = self.order(call, q.shape[1], q.device) if as_announced else None
            if order is None:
                return previous(q, k, v, extra)
            return previous(q.index_select(0, order), k.index_select(0, order), v, extra)

        return attend

    def order(self, call: _Call, positions: int, device: torch.device) -> torch.Tensor | None:
        """Whose self-attention map each row uses in layers of so many positions; None if all use their own."""
        if positions not in call.orders:
            order = list(range(call.rows))
            for one in call.followers:
                if is_small(one.edit.windows.size, positions, call.latent_positions):
                    order[one.row] = one.source
            changed = order != list(range(call.rows))
            call.orders[positions] = torch.tensor(order, device=device) if changed else None
        return call.orders[positions]

    def as_announced(self, same_rows: bool, extra: Mapping[str, Any]) -> bool:
        """Whether a layer's rows and tokens are those of the call; says so if not."""
        if same_rows and not any(layout in extra for layout in COUPLE_LAYOUTS):
            return True
        self.say("Another node changed how prompts share the rows of the batch; prompt edits have no effect there.")
        return False

    def is_whole(self, q: torch.Tensor, extra: Mapping[str, Any]) -> bool:
        """Whether a layer asks at each of its positions; says so if not, as where similar ones are merged."""
        if q.shape[1] == math.prod(extra["activations_shape"][-2:]):
            return True
        self.say("Another node merges image positions (such as Tome Patch Model); self-attention is not edited there.")
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


def _cross(
    followers: list[Follower], active: frozenset[Window], batch: int, tokens: int, device: torch.device
) -> _Cross | None:
    """The weights of all rows that follow at this moment, for contexts that are repeated to ``tokens``."""
    rows, sources, order = [], [], list(range(batch))
    mapped: list[np.ndarray] = []
    own: list[np.ndarray] = []
    for one in followers:
        columns = one.edit.columns(active, one.source_tokens, one.tokens)
        if columns is None:
            continue
        rows.append(one.row)
        sources.append(one.source)
        order[one.row] = one.source
        # Copies of a source's column share its attention, so each gets the whole value; copies of a target's are alike.
        every = np.zeros((tokens, tokens), dtype=np.float32)
        every[:, : one.tokens] = np.tile(columns.mapped, (tokens // one.source_tokens, 1))
        mapped.append(every)
        own.append(np.tile(columns.own, (tokens // one.tokens, 1)))
    if not rows:
        return None
    heads = max(weights.shape[1] for weights in own)
    kept = np.stack([np.broadcast_to(weights, (tokens, heads)) for weights in own])
    return _Cross(
        torch.tensor(rows, device=device),
        torch.tensor(sources, device=device),
        torch.tensor(order, device=device),
        torch.from_numpy(np.stack(mapped)).to(device),
        torch.from_numpy(kept).to(device) if kept.any() else None,
    )


def _of_layer(own: torch.Tensor, heads: slice) -> torch.Tensor:
    """The weights [E, T, heads] of a layer's own heads."""
    return own if own.shape[-1] == 1 else own[..., heads]
