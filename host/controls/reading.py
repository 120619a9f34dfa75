"""One sampling run with readings: some heads of a prompt's rows read another prompt.

In a head with gate g a row's queries attend to both prompts: (1 - g) attn(q, K, V) + g attn(q, K_other, V_other). The
first part is a rescaling of V before whatever is on the layer already; the second is an attention of those heads alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import comfy.patcher_extension
import comfy.utils
import numpy as np
import torch
from comfy.patcher_extension import WrappersMP

from ...hrv.errors import HRVError
from ...hrv.heads.layout import AttentionLayer, LayerKey
from ...hrv_kernels.value_rescaling import rescale_values
from ..models.architectures import unet_of
from ..models.capabilities import Capability
from ..models.families.replacers import Replacer, plain_attention
from ..models.ours import our_key
from ..page.texts import SaidOnce
from ..prompts.carried import READINGS_KEY, ROWS_KEY, Chunk, PromptReading, PromptRows, brought
from ..runs.attention import at_every_call, with_transformer_option
from ..runs.rows import REGIONS_KEY, row_groups
from ..runs.windows import WindowEnds
from .weights import ControlWeights, PromptControls

_WRAPPER_KEY = our_key("readings")
_TABLE_KEY = "hrv_readings_by_uuid"
_CALL_KEY = "hrv_reading_call"

_Readings = tuple[PromptReading, ...]
_Patch = Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


class _Shares(NamedTuple):
    """How much of each prompt the heads read at one moment: of their own [H], and of each reading's [H]."""

    own: torch.Tensor
    others: list[torch.Tensor]


class _Rows(NamedTuple):
    """The rows of one prompt in an attention call: every ``step``-th of ``share`` rows from ``first`` on."""

    first: int
    share: int
    place: int
    step: int

    def of_call(self, part: torch.Tensor) -> torch.Tensor:
        """These rows of all rows of a call."""
        return part[self.first + self.place : self.first + self.share : self.step]

    def of_prompt(self, part: torch.Tensor) -> torch.Tensor:
        """What these rows have of a prompt that has a row for each of the latent's, or fewer, which are repeated."""
        if len(part) == 1:
            return part.expand(len(range(self.place, self.share, self.step)), -1, -1)
        return comfy.utils.repeat_to_batch_size(part, self.share)[self.place :: self.step]


class _Call(NamedTuple):
    """One call of the model: who reads what, the shares at its sigma, and the other prompts as patches left them."""

    chunks: tuple[Chunk, ...]
    table: Mapping[Chunk, tuple[_Readings, ...]]
    sigma: torch.Tensor
    shares: dict[_Readings, _Shares]
    patched: dict[tuple[LayerKey, PromptReading], tuple[torch.Tensor, torch.Tensor]]


def readings_of(cond: Mapping[str, Any]) -> list[PromptReading]:
    """All readings of a conditioning, those of its rows' prompts too."""
    return [reading for of_row in _of_rows(cond) for reading in of_row]


def _of_rows(cond: Mapping[str, Any]) -> tuple[_Readings, ...]:
    """The readings of each prompt of a conditioning's rows; of one prompt for all rows, that is one."""
    rows: PromptRows | None = cond.get(ROWS_KEY)
    every = (cond.get(READINGS_KEY, ()),) if rows is None else tuple(row.readings for row in rows.rows)
    return tuple(tuple(one for one in readings if not one.reading.is_identity) for readings in every)


class ReadingRun:
    """What one sampling run with readings keeps. Raises HRVError for one of another head layout than the model's."""

    def __init__(self, model: Any, readings: Sequence[PromptReading]):
        architecture = unet_of(model, Capability.READING)
        self.layout = architecture.layout
        self.modules = architecture.cross_attention
        for made in (made for one in readings for made in one.made):
            if made.layout.signature != self.layout.signature:
                raise HRVError(
                    f"The control '{made.label}' was made for {made.layout.describe()}, but this model has "
                    f"{self.layout.describe()}. Connect the model that the control's node was given."
                )
        self.windows = WindowEnds(model)
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
        self.wrapping = architecture.replacing(self.replacer)
        self.contexts: dict[tuple[Any, ...], torch.Tensor] = {}
        self.tensors: dict[tuple[Any, ...], torch.Tensor] = {}
        # By identity of what they do, which is kept so that no other object can take its identity.
        self.patches: dict[tuple[int, ...], tuple[Sequence[_Patch], _Patch]] = {}

    def install(self, options: dict[str, Any]) -> None:
        """Get into a run by its own model options."""
        comfy.patcher_extension.add_wrapper_with_key(
            WrappersMP.CALC_COND_BATCH, _WRAPPER_KEY, self.name_the_rows, options, is_model_options=True
        )
        at_every_call(options, _WRAPPER_KEY, self.prepare_call)

    def name_the_rows(
        self,
        executor: Any,
        model: Any,
        conds: list[Any],
        x: torch.Tensor,
        timestep: torch.Tensor,
        options: dict[str, Any],
    ) -> Any:
        """CALC_COND_BATCH wrapper: tell the layers which chunk reads what."""
        table: dict[Chunk, tuple[_Readings, ...]] = {
            (number, entry["uuid"]): of_rows
            for number, entries in enumerate(conds)
            for entry, owner, _ in brought(entries)
            if any(of_rows := _of_rows(owner))
        }
        return executor(model, conds, x, timestep, with_transformer_option(options, _TABLE_KEY, table))

    def prepare_call(
        self, x: torch.Tensor, context: torch.Tensor | None, transformer_options: dict[str, Any]
    ) -> dict[str, Any]:
        """Find the shares of one call of the model before its layers run, and put the replacers there."""
        table: Mapping[Chunk, tuple[_Readings, ...]] = transformer_options.get(_TABLE_KEY, {})
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
        options = {**transformer_options, _CALL_KEY: _Call(chunks, table, sigma, shares, {})}
        every = options.get("patches", {})
        if asked and (patches := every.get("attn2_patch")):
            key = tuple(map(id, patches))
            if key not in self.patches:
                self.patches[key] = patches, self.with_others(tuple(patches))
            options["patches"] = {**every, "attn2_patch": [self.patches[key][1]]}
        return self.wrapping.into(options)

    def shares(self, readings: _Readings, sigma: torch.Tensor, device: torch.device) -> _Shares:
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

    def with_others(self, patches: Sequence[_Patch]) -> _Patch:
        """A patch that does what the model's own ones do, and does it as well where the other prompts were the rows'.

        So these get what the run gives every prompt on its way into a layer (hypernetworks, NegPip ...).
        """

        def patch(
            n: torch.Tensor, context: torch.Tensor, value: torch.Tensor, extra: dict[str, Any]
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            layer: LayerKey = (*extra["block"], extra["block_index"])
            call: _Call = extra[_CALL_KEY]
            for one in dict.fromkeys(one for readings in call.shares for one in readings):
                if (layer, one) in self.heads:
                    of_chunk = comfy.utils.repeat_to_batch_size(self.context(one, n), len(n) // len(call.chunks))
                    every_row = of_chunk.repeat(len(call.chunks), 1, 1)
                    given = n, every_row, every_row
                    # With options of its own: what patches write there belongs to the rows' own prompts.
                    own_extra = dict(extra)
                    for done in patches:
                        given = done(*given, own_extra)
                    call.patched[layer, one] = given[1:]
            for done in patches:
                n, context, value = done(n, context, value, extra)
            return n, context, value

        return patch

    def context(self, one: PromptReading, like: torch.Tensor) -> torch.Tensor:
        """The other prompt's context [rows, T, C] where and as the layers compute."""
        key = (one, like.device, like.dtype)
        if key not in self.contexts:
            self.contexts[key] = one.context.to(like.device, like.dtype)
        return self.contexts[key]

    def replacer(self, layer: AttentionLayer, previous: Replacer) -> Replacer:
        if layer.key not in self.layers:
            return previous
        heads = self.layout.head_slice(layer.key)

        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
            call: _Call = extra[_CALL_KEY]
            asked = [(rows, readings) for rows, readings in self.rows(call, len(q), extra) if readings]
            kept = torch.ones(len(v), 1, layer.heads, device=v.device)
            found: list[tuple[_Rows, list[int], torch.Tensor]] = []
            for rows, readings in asked:
                own, others = call.shares[readings]
                rows.of_call(kept)[:] = own[heads]
                for one, share in zip(readings, others, strict=True):
                    if chosen := self.heads.get((layer.key, one)):
                        found.append(
                            (rows, chosen, self.read(layer, call, one, share[heads][None, None], q, rows, extra))
                        )
            if not found:
                return previous(q, k, v, extra)
            out = previous(q, k, rescale_values(v, kept), extra).clone()
            by_head = out.unflatten(-1, (layer.heads, -1))
            for rows, chosen, part in found:
                rows.of_call(by_head).index_add_(2, self.numbers(chosen, out.device), part.to(out.dtype))
            return out

        return attend

    def rows(self, call: _Call, count: int, extra: Mapping[str, Any]) -> Iterator[tuple[_Rows, _Readings]]:
        """The rows of an attention call with the readings of their prompt."""
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
                yield _Rows(first, share, place, len(of_rows)), readings

    def read(
        self,
        layer: AttentionLayer,
        call: _Call,
        one: PromptReading,
        share: torch.Tensor,
        q: torch.Tensor,
        rows: _Rows,
        extra: dict[str, Any],
    ) -> torch.Tensor:
        """What rows find in the other prompt with the heads of a reading, by their shares: [rows, P, heads, d]."""
        context, module = self.context(one, q), self.modules[layer.key]
        of_keys, of_values = call.patched.get((layer.key, one), (context, context))
        k, v = module.to_k(of_keys), module.to_v(of_values)
        of_rows = rows.of_call if (layer.key, one) in call.patched else rows.of_prompt
        # The prompt's own controls know its tokens as they were before NegPip doubled them.
        halved = 2 * v.shape[1] == context.shape[1]
        heads, prompts = self.layout.head_slice(layer.key), (PromptControls(one.controls, context.shape[1]),)
        weights, changed = self.weights.at(call.sigma, prompts, 1, v.shape[1], halved, v.device, heads)
        v = rescale_values(v, share * weights if layer.key in changed else share)
        chosen = self.heads[layer.key, one]
        numbers = self.numbers(chosen, q.device)
        q, k, v = (
            part.unflatten(-1, (layer.heads, -1)).index_select(2, numbers).flatten(2)
            for part in (rows.of_call(q), of_rows(k), of_rows(v))
        )
        return plain_attention(q, k, v, {**extra, "n_heads": len(chosen)}).unflatten(-1, (len(chosen), -1))

    def numbers(self, chosen: Sequence[int], device: torch.device) -> torch.Tensor:
        key = (device, *chosen)
        if key not in self.tensors:
            self.tensors[key] = torch.tensor(chosen, device=device)
        return self.tensors[key]

    def say_unknown_rows(self) -> None:
        self.say("Another node changed how prompts share the rows of the batch; Read by Concept is left out there.")
