"""One sampling run with readings: some heads of a prompt's rows read another prompt.

In a head with gate g a row's queries attend to both prompts: (1 - g) attn(q, K, V) + g attn(q, K_other, V_other). The
second part is an attention of those heads alone. In a joint attention both have the image's own keys and values too,
and only the image's queries read the other prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import pad

from ...hrv.heads.layout import AttentionLayer, LayerKey
from ...hrv_kernels.value_rescaling import rescale_values
from ..models.architectures import architecture_of
from ..models.capabilities import Capability
from ..models.families.attention_call import Attend, AttentionCall
from ..models.ours import our_key
from ..page.texts import SaidOnce
from ..prompts.carried import READINGS_KEY, ROWS_KEY, Chunk, PromptReading, PromptRows, brought
from ..runs.attention import Evaluation, Reach, at_every_call, at_every_evaluation
from ..runs.rows import REGIONS_KEY, row_groups
from ..runs.windows import WindowEnds
from .other_texts import OtherText, OtherTexts, PassedTexts, ProjectedTexts, Readings, RowPlace
from .weights import ControlWeights, require_layout

_WRAPPER_KEY = our_key("readings")
_TABLE_KEY = "hrv_readings_by_uuid"
_CALL_KEY = "hrv_reading_call"


class _Shares(NamedTuple):
    """How much of each prompt the heads read at one moment: of their own [H], and of each reading's [H]."""

    own: torch.Tensor
    others: list[torch.Tensor]


class _Call(NamedTuple):
    """One call of the model: who reads what, and the shares at its sigma."""

    chunks: tuple[Chunk, ...]
    table: Mapping[Chunk, tuple[Readings, ...]]
    sigma: torch.Tensor
    shares: dict[Readings, _Shares]


def readings_of(cond: Mapping[str, Any]) -> list[PromptReading]:
    """All readings of a conditioning, those of its rows' prompts too."""
    return [reading for of_row in _of_rows(cond) for reading in of_row]


def _of_rows(cond: Mapping[str, Any]) -> tuple[Readings, ...]:
    """The readings of each prompt of a conditioning's rows; of one prompt for all rows, that is one."""
    rows: PromptRows | None = cond.get(ROWS_KEY)
    every = (cond.get(READINGS_KEY, ()),) if rows is None else tuple(row.readings for row in rows.rows)
    return tuple(tuple(one for one in readings if not one.reading.is_identity) for readings in every)


class ReadingRun:
    """What one sampling run with readings keeps. Raises HRVError for one of another head layout than the model's."""

    def __init__(self, guider: Any, readings: Sequence[PromptReading]):
        model = guider.model_patcher
        architecture = architecture_of(model, Capability.READING)
        self.layout = architecture.layout
        require_layout((made for one in readings for made in one.made), self.layout)
        self.windows = WindowEnds(model)
        self.reach = Reach("Read by Concept")
        self.say = SaidOnce()
        self.weights = ControlWeights(self.layout, self.windows, self.say)
        # The heads of each reading, as numbers within their layer.
        self.heads: dict[tuple[LayerKey, PromptReading], list[int]] = {
            (layer.key, one): chosen.tolist()
            for layer in self.layout.layers
            for one in readings
            if len(chosen := np.flatnonzero(one.reading.weights[self.layout.head_slice(layer.key)]))
        }
        self.layers = {layer for layer, _ in self.heads}
        self.texts: OtherTexts = (
            PassedTexts(architecture, _of_rows, self.heads, self.windows)
            if architecture.projections is None
            else ProjectedTexts(architecture.projections, set(self.heads))
        )
        self.texts.prepare(guider)
        self.wrapping = architecture.wrapping(self.attend_at)
        self.tensors: dict[tuple[Any, ...], torch.Tensor] = {}

    def install(self, options: dict[str, Any]) -> None:
        """Get into a run by its own model options."""
        at_every_evaluation(options, _WRAPPER_KEY, self.evaluate)
        at_every_call(options, _WRAPPER_KEY, self.prepare_call, self.texts)

    def evaluate(self, evaluation: Evaluation) -> Any:
        """Tell the layers which chunk reads what."""
        table: dict[Chunk, tuple[Readings, ...]] = {
            (number, entry["uuid"]): of_rows
            for number, entries in enumerate(evaluation.conds)
            for entry, owner, _ in brought(entries)
            if any(of_rows := _of_rows(owner))
        }
        self.texts.evaluate(evaluation)
        found = evaluation.telling(_TABLE_KEY, table).run()
        self.reach.require()
        return found

    def prepare_call(
        self, x: torch.Tensor, context: torch.Tensor | None, transformer_options: dict[str, Any]
    ) -> dict[str, Any]:
        """Find the shares of one call of the model before its layers run, and get into these."""
        if (of_pass := self.texts.into_pass(transformer_options, context)) is not None:
            return of_pass
        table: Mapping[Chunk, tuple[Readings, ...]] = transformer_options.get(_TABLE_KEY, {})
        lists, uuids = transformer_options.get("cond_or_uncond", ()), transformer_options.get("uuids", ())
        chunks: tuple[Chunk, ...] = tuple(zip(lists, uuids, strict=False))
        regional = REGIONS_KEY in transformer_options
        if context is None or not (regional or any(chunk in table for chunk in chunks)):
            return transformer_options
        if len(lists) != len(uuids) or len(x) % len(chunks):
            self.say_unknown_rows()
            return transformer_options
        sigma = transformer_options["sigmas"][0]
        asked = {readings for chunk in chunks for readings in table.get(chunk, ()) if readings}
        shares = {readings: self.shares(readings, sigma, x.device) for readings in asked}
        options = {**transformer_options, _CALL_KEY: _Call(chunks, table, sigma, shares)}
        every = list(dict.fromkeys(one for readings in shares for one in readings))
        self.reach.put_there()
        return self.wrapping.into(self.texts.into(options, every), context)

    def shares(self, readings: Readings, sigma: torch.Tensor, device: torch.device) -> _Shares:
        """How much of each prompt is read at this sigma: a later reading acts on what the earlier ones left."""
        own = torch.ones(self.layout.head_count, device=device)
        others: list[torch.Tensor] = []
        for one in readings:
            gates = self.on_device(device, one)
            if not one.reading.window.is_whole:
                start, end = self.windows.of(one.reading.window)
                # On the device: asking for the sigma here would wait for it at every call.
                gates = torch.where((sigma <= start) & (sigma > end), gates, 0.0)
            own = own * (1.0 - gates)
            others = [*(share * (1.0 - gates) for share in others), gates]
        return _Shares(own, others)

    def on_device(self, device: torch.device, one: PromptReading) -> torch.Tensor:
        """The gates [H] of a reading."""
        key = (device, one)
        if key not in self.tensors:
            self.tensors[key] = torch.from_numpy(one.reading.weights.copy()).to(device)
        return self.tensors[key]

    def attend_at(self, layer: AttentionLayer) -> Attend | None:
        if layer.key not in self.layers:
            return None
        heads = self.layout.head_slice(layer.key)

        def attend(attention: AttentionCall) -> torch.Tensor:
            self.reach.called()
            call: _Call = attention.extra[_CALL_KEY]
            kept = torch.ones(attention.rows, layer.heads, device=attention.v.device)
            found: list[tuple[RowPlace, torch.Tensor, torch.Tensor]] = []
            for rows, readings in self.rows(call, attention):
                own, others = call.shares[readings]
                parts = self.read_all(attention, call, readings, rows)
                if parts is None:
                    self.say("Another node keeps other prompts from being read; Read by Concept has no effect there.")
                    continue
                kept[rows.of_call] = own[heads]
                for one, part in parts.items():
                    chosen = self.numbers(layer.key, one, part.device)
                    share = others[readings.index(one)][heads][chosen]
                    found.append((rows, chosen, part.unflatten(-1, (len(chosen), -1)) * share[:, None]))
            if not found:
                return attention.plain()
            out = attention.weighed(kept)
            by_head = out[:, attention.image].unflatten(-1, (layer.heads, -1))
            for rows, chosen, part in found:
                by_head[rows.of_call].index_add_(2, chosen, part.to(out.dtype))
            return out

        return attend

    def rows(self, call: _Call, attention: AttentionCall) -> Iterator[tuple[RowPlace, Readings]]:
        """The rows of an attention call that read other prompts, with their readings."""
        extra, count = attention.extra, attention.rows
        groups = row_groups([number for number, _ in call.chunks], extra)
        if groups is None or count % len(groups):
            self.say_unknown_rows()
            return
        share = count // len(groups)
        for number, group in enumerate(groups):
            first = number * share
            if group.region:
                regions = extra.get(REGIONS_KEY, {}).get("conds", ())
                if group.region < len(regions) and readings_of(regions[group.region][1]):
                    self.say(
                        "Read by Concept does not act on the regional prompts of attention couple, only on its base "
                        "prompt."
                    )
                continue
            of_rows = call.table.get(call.chunks[group.chunk], ())
            for place, readings in enumerate(of_rows):
                if readings:
                    yield RowPlace(call.chunks[group.chunk], first, share, place, len(of_rows)), readings

    def read_all(
        self, attention: AttentionCall, call: _Call, readings: Readings, rows: RowPlace
    ) -> dict[PromptReading, torch.Tensor] | None:
        """What rows find in other prompts with the heads of their readings [rows, P, heads x d]; None if it is unknown.

        Without readings of other layers, and without those outside their window where that is known.
        """
        found: dict[PromptReading, torch.Tensor] = {}
        for one in readings:
            if (attention.layer.key, one) in self.heads and self.texts.are_read(one):
                chosen = self.numbers(attention.layer.key, one, attention.v.device)
                other = self.texts.of(attention, one, rows, chosen)
                if other is None:
                    return None
                found[one] = self.read(attention, call, other, rows, chosen)
        return found

    def read(
        self, attention: AttentionCall, call: _Call, other: OtherText, rows: RowPlace, chosen: torch.Tensor
    ) -> torch.Tensor:
        """What rows find in another prompt with some heads [rows, P, heads x d]."""
        key = attention.layer.key
        text, device = other.text, attention.v.device
        tokens = text.values.shape[1] - other.padding
        heads = self.layout.head_slice(key)
        weights, changed = self.weights.at(call.sigma, (other.controls,), 1, tokens, other.halved, device, heads)
        if key in changed:
            weights = pad(weights[..., chosen], (0, 0, 0, other.padding), value=1.0)
            text = text._replace(values=rescale_values(text.values, weights))
        return attention.found_by(rows.of_call, chosen, text)

    def numbers(self, layer: LayerKey, one: PromptReading, device: torch.device) -> torch.Tensor:
        """The heads of a reading, as numbers within their layer."""
        key = (device, layer, one)
        if key not in self.tensors:
            self.tensors[key] = torch.tensor(self.heads[layer, one], device=device)
        return self.tensors[key]

    def say_unknown_rows(self) -> None:
        self.say("Another node changed how prompts share the rows of the batch; Read by Concept is left out there.")
