"""One sampling run with controls: which rows get them, and their weights at every layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad

from ...hrv.controls.control import Control
from ...hrv.heads.layout import AttentionLayer, HeadLayout, LayerKey
from ...hrv_kernels.value_rescaling import rescale_values
from ..models.architectures import architecture_of
from ..models.capabilities import Capability
from ..models.families.attention_call import Attend, AttentionCall
from ..models.ours import our_key
from ..page.texts import SaidOnce
from ..prompts.carried import CONTROLS_KEY, ROWS_KEY, TOKEN_MAP_KEY, Chunk, PromptRows, brought
from ..runs.attention import Evaluation, Reach, at_every_call, at_every_evaluation
from ..runs.rows import COUPLE_LAYOUTS, REGIONS_KEY, RowGroup, row_groups
from ..runs.windows import WindowEnds
from .weights import ControlWeights, PromptControls, require_layout

_WRAPPER_KEY = our_key("attention_control")
_TABLE_KEY = "hrv_controls_by_uuid"
_CALL_KEY = "hrv_controlled_call"
# What NegPip of ComfyUI-ppm sets in a model's options: contexts hold a key and a value token for each token.
_NEGPIP_KEY = "ppm_negpip"


_NOTHING = (PromptControls((), 1),)


class _Call(NamedTuple):
    """One call of the model: the prompts of its chunks, and each layer's weights if nothing changes the rows."""

    chunks: tuple[Chunk, ...]
    prompts: Mapping[Chunk, tuple[PromptControls, ...]]
    rows: int
    tokens: int
    sigma: torch.Tensor
    weights: dict[LayerKey, torch.Tensor]  # [B, T, heads]; a layer that nothing changes is left out


def controls_of(cond: Mapping[str, Any]) -> list[Control]:
    """All controls of a conditioning, those of its rows' prompts too."""
    return [control for prompt in _prompts_of(cond, 0) for control in prompt.controls]


def _prompts_of(cond: Mapping[str, Any], tokens: int) -> tuple[PromptControls, ...]:
    """The prompts of a conditioning's rows; where one prompt, with these tokens, is for all rows, that one."""
    rows: PromptRows | None = cond.get(ROWS_KEY)
    if rows is None:
        return (PromptControls(cond.get(CONTROLS_KEY, ()), tokens),)
    return tuple(PromptControls(row.controls, row.tokens, row.first) for row in rows.rows)


def _spread(groups: Sequence[tuple[PromptControls, ...]], rows: int) -> tuple[PromptControls, ...]:
    """The prompt of each of equally many consecutive rows; one a group if that says it all."""
    if all(len(prompts) == 1 for prompts in groups):
        return tuple(prompt for (prompt,) in groups)
    share = rows // len(groups)
    return tuple(prompts[row % len(prompts)] for prompts in groups for row in range(share))


class ControlledRun:
    """What one sampling run keeps: the layout, and the weights made so far.

    ``missing`` are labels of controls that were made for this model and are on none of the run's conditionings.
    Raises HRVError for a control of another head layout than the model's.
    """

    def __init__(self, model: Any, controls: Sequence[Control], missing: Sequence[str]):
        self.architecture = architecture_of(model, Capability.CONTROLS)
        self.layout: HeadLayout = self.architecture.layout
        require_layout(controls, self.layout)
        self.windows = WindowEnds(model)
        self.missing = missing
        self.negpip = False
        self.wrapping = self.architecture.wrapping(self.attend_at)
        self.reach = Reach("HRV controls")
        self.say = SaidOnce()
        self.weights = ControlWeights(self.layout, self.windows, self.say)

    def install(self, options: dict[str, Any]) -> None:
        """Get into a run by its own model options."""
        self.negpip = bool(options.get(_NEGPIP_KEY))
        at_every_evaluation(options, _WRAPPER_KEY, self.evaluate)
        at_every_call(options, _WRAPPER_KEY, self.prepare_call)

    def evaluate(self, evaluation: Evaluation) -> Any:
        """Tell the layers which chunk has which prompts."""
        table: dict[Chunk, tuple[PromptControls, ...]] = {}
        for number, entries in enumerate(evaluation.conds):
            for entry, owner, tokens in brought(entries):
                prompts = self.placed(_prompts_of(owner, tokens), owner, tokens)
                if any(prompt.controls for prompt in prompts):
                    table[number, entry["uuid"]] = prompts
                self.check_joined(entry, tokens)
        found = evaluation.telling(_TABLE_KEY, table).run()
        self.reach.require()
        return found

    def placed(
        self, prompts: tuple[PromptControls, ...], cond: Mapping[str, Any], tokens: int
    ) -> tuple[PromptControls, ...]:
        """Prompts with the place of a conditioning's first token among those that reach the model."""
        context = None if ROWS_KEY in cond else cond.get("cross_attn")
        first = 0 if context is None else self.architecture.first_token(context.shape[1], tokens)
        return tuple(prompt._replace(first=first) for prompt in prompts) if first else prompts

    def check_joined(self, cond: Mapping[str, Any], tokens: int) -> None:
        """Say which controls are missing where a prompt is longer than its own words."""
        words = cond.get(TOKEN_MAP_KEY)
        if self.missing and words is not None and tokens > words.length * (2 if self.negpip else 1):
            self.say(
                f"{', '.join(self.missing)}: on no prompt of this run. Conditioning (Concat) keeps only the controls "
                "of 'conditioning_to'; Conditioning Concat (HRV) keeps all."
            )

    def prepare_call(
        self, x: torch.Tensor, context: torch.Tensor | None, transformer_options: dict[str, Any]
    ) -> dict[str, Any]:
        """Make the weights of one call of the model before its layers run, and put the replacers there."""
        table: Mapping[Chunk, tuple[PromptControls, ...]] = transformer_options.get(_TABLE_KEY, {})
        lists, uuids = transformer_options.get("cond_or_uncond", ()), transformer_options.get("uuids", ())
        chunks: tuple[Chunk, ...] = tuple(zip(lists, uuids, strict=False))
        # Regions show at the layers only: what they ask for, or that a control made for one of them cannot be read.
        regional = REGIONS_KEY in transformer_options or bool(self.missing)
        if context is None or not chunks or not (regional or any(chunk in table for chunk in chunks)):
            return transformer_options
        call = _Call(chunks, table, len(x), context.shape[1], transformer_options["sigmas"][0], {})
        if len(lists) != len(uuids) or len(x) % len(chunks):
            self.say_unknown_rows()
            return transformer_options
        prompts = _spread([table.get(chunk, _NOTHING) for chunk in chunks], call.rows)
        # NegPip's doubled context does not reach the layers, but costs no more than weights that nobody reads.
        weights, changed = self.weights.at(call.sigma, prompts, call.rows, call.tokens, halved=False, device=x.device)
        for layer in changed:
            call.weights[layer] = weights[..., self.layout.head_slice(layer)]
        self.reach.put_there()
        return self.wrapping.into({**transformer_options, _CALL_KEY: call}, context)

    def attend_at(self, layer: AttentionLayer) -> Attend:
        key = layer.key

        def attend(attention: AttentionCall) -> torch.Tensor:
            self.reach.called()
            call: _Call = attention.extra[_CALL_KEY]
            as_announced = attention.rows == call.rows and attention.tokens == call.tokens
            if as_announced and not any(layout in attention.extra for layout in COUPLE_LAYOUTS):
                weights = call.weights.get(key)
            else:
                weights = self.rearranged(attention, call)
            if weights is None:
                return attention.plain()
            if attention.padding:
                weights = pad(weights, (0, 0, 0, attention.padding), value=1.0)
            return attention.out(attention.found(values=rescale_values(attention.values, weights)))

        return attend

    def rearranged(self, attention: AttentionCall, call: _Call) -> torch.Tensor | None:
        """The weights [B, T, heads] of a layer whose rows or tokens another pack has changed, or None for none."""
        extra, rows, tokens = attention.extra, attention.rows, attention.tokens
        groups = row_groups([number for number, _ in call.chunks], extra)
        if groups is None or rows % len(groups):
            self.say_unknown_rows()
            return None
        coupled = any(group.region for group in groups)
        if coupled and REGIONS_KEY not in extra and self.missing:
            self.say(
                f"{', '.join(self.missing)}: on no prompt of this run. This attention couple doesn't say which "
                "regional conditionings it uses, so only the controls of its base prompt act."
            )
        prompts = _spread([self.prompts_of(group, call, extra) for group in groups], rows)
        # Without attention couple the halved context shows; with it the common length of all prompts hides it.
        halved = self.negpip if coupled else 2 * tokens == call.tokens
        # Of this layer's heads alone: this runs at every layer.
        key, device = attention.layer.key, attention.v.device
        weights, changed = self.weights.at(
            call.sigma, prompts, rows, tokens, halved, device, self.layout.head_slice(key)
        )
        return weights if key in changed else None

    def prompts_of(self, group: RowGroup, call: _Call, extra: Mapping[str, Any]) -> tuple[PromptControls, ...]:
        """The prompts of a group of rows; those of regions as prompt-control tells it."""
        if not group.region:
            return call.prompts.get(call.chunks[group.chunk], _NOTHING)
        regions = extra.get(REGIONS_KEY, {}).get("conds", ())
        if group.region >= len(regions):
            return _NOTHING
        context, extras = regions[group.region]
        controls = extras.get(CONTROLS_KEY, ())
        require_layout(controls, self.layout)
        return (PromptControls(controls, context.shape[1]),)

    def say_unknown_rows(self) -> None:
        self.say("Another node changed how prompts share the rows of the batch; HRV controls have no effect there.")
