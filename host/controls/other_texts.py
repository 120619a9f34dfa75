"""What layers have of the other prompts that heads of a run read: projected from their conditionings, or of passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

import comfy.utils
import torch

from ...hrv.heads.layout import AttentionLayer, LayerKey
from ..models.families.architecture import Architecture, CrossAttention
from ..models.families.attention_call import Attend, AttentionCall, Text
from ..models.ours import our_key
from ..prompts.beside import PromptBeside, prepare_beside, prepared_beside
from ..prompts.carried import CONTROLS_KEY, READINGS_KEY, Chunk, PromptReading, brought
from ..runs.attention import Evaluation
from ..runs.windows import WindowEnds
from .weights import PromptControls

Readings = tuple[PromptReading, ...]
ReadingsOf = Callable[[Mapping[str, Any]], Sequence[Readings]]
"""The readings of each prompt of an entry's rows."""

_LIST = our_key("other_texts")
_PASSES_KEY = "hrv_passes_of_other_texts"
_PATCHED_KEY = "hrv_patched_other_texts"

_Patch = Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


class RowPlace(NamedTuple):
    """The rows of one prompt in an attention call: every ``step``-th of ``share`` rows from ``first`` on."""

    chunk: Chunk
    first: int
    share: int
    place: int
    step: int

    @property
    def of_call(self) -> slice:
        """These rows among all of a call."""
        return slice(self.first + self.place, self.first + self.share, self.step)

    @property
    def of_chunk(self) -> slice:
        """These rows among those of their chunk."""
        return slice(self.place, self.share, self.step)

    def of_prompt(self, part: torch.Tensor) -> torch.Tensor:
        """What these rows have of a prompt that has a row for each of the latent's, or fewer, which are repeated."""
        if len(part) == 1:
            return part.expand(len(range(self.share)[self.of_chunk]), -1, -1)
        return comfy.utils.repeat_to_batch_size(part, self.share)[self.of_chunk]


class OtherText(NamedTuple):
    """Another prompt at a layer: its tokens, then as much ``padding`` by the model.

    ``controls`` are those of the prompt, ``halved`` says that its context has twice as many tokens.
    """

    text: Text
    controls: PromptControls
    padding: int = 0
    halved: bool = False


class OtherTexts(Protocol):
    """Where the other prompts of a run come from."""

    def prepare(self, guider: Any) -> None:
        """Before a guider's run."""
        ...

    def evaluate(self, evaluation: Evaluation) -> None:
        """Before an evaluation of the model."""
        ...

    def into_pass(self, transformer_options: dict[str, Any], context: torch.Tensor | None) -> dict[str, Any] | None:
        """The transformer options of a call of the model that is for these texts alone; None for any other."""
        ...

    def into(self, transformer_options: dict[str, Any], asked: Sequence[PromptReading]) -> dict[str, Any]:
        """A copy of the transformer options of a call of the model in which these are read, with what that takes."""
        ...

    def are_read(self, one: PromptReading) -> bool:
        """Whether there is anything to read at this evaluation."""
        ...

    def of(self, call: AttentionCall, one: PromptReading, rows: RowPlace, heads: torch.Tensor) -> OtherText | None:
        """What rows have of the other prompt in some heads, by their numbers in the layer; None if it is unknown."""
        ...


class ProjectedTexts:
    """Other prompts whose keys and values are those of their contexts, by the modules of the layers."""

    def __init__(self, projections: Mapping[LayerKey, CrossAttention], layers: set[tuple[LayerKey, PromptReading]]):
        self.projections, self.layers = projections, layers
        self.contexts: dict[tuple[Any, ...], torch.Tensor] = {}
        # By identity of what they do, which is kept so that no other object can take its identity.
        self.patches: dict[tuple[int, ...], tuple[Sequence[_Patch], _Patch]] = {}

    def prepare(self, guider: Any) -> None:
        """Nothing: what counts is in the readings."""

    def evaluate(self, evaluation: Evaluation) -> None:
        """Nothing: it is done layer by layer."""

    def into_pass(self, transformer_options: dict[str, Any], context: torch.Tensor | None) -> None:
        """There is none."""

    def are_read(self, one: PromptReading) -> bool:
        """Always: asking for the noise level would wait for it at every call."""
        return True

    def into(self, transformer_options: dict[str, Any], asked: Sequence[PromptReading]) -> dict[str, Any]:
        """With the model's own patches for the other prompts too."""
        options = {**transformer_options, _PATCHED_KEY: (asked, {})}
        every = options.get("patches", {})
        if asked and (patches := every.get("attn2_patch")):
            key = tuple(map(id, patches))
            if key not in self.patches:
                self.patches[key] = patches, self.with_others(tuple(patches))
            options["patches"] = {**every, "attn2_patch": [self.patches[key][1]]}
        return options

    def with_others(self, patches: Sequence[_Patch]) -> _Patch:
        """A patch that does what the model's own ones do, and does it as well where the other prompts were the rows'.

        So these get what the run gives every prompt on its way into a layer (hypernetworks, NegPip ...).
        """

        def patch(
            n: torch.Tensor, context: torch.Tensor, value: torch.Tensor, extra: dict[str, Any]
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            layer: LayerKey = (*extra["block"], extra["block_index"])
            chunks = len(extra["cond_or_uncond"])
            asked, patched = extra[_PATCHED_KEY]
            for one in asked:
                if (layer, one) in self.layers:
                    of_chunk = comfy.utils.repeat_to_batch_size(self.context(one, n), len(n) // chunks)
                    every_row = of_chunk.repeat(chunks, 1, 1)
                    given = n, every_row, every_row
                    # With options of its own: what patches write there belongs to the rows' own prompts.
                    own_extra = dict(extra)
                    for done in patches:
                        given = done(*given, own_extra)
                    patched[layer, one] = given[1:]
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

    def of(self, call: AttentionCall, one: PromptReading, rows: RowPlace, heads: torch.Tensor) -> OtherText:
        """By the layer's module."""
        module, patched = self.projections[call.layer.key], call.extra[_PATCHED_KEY][1]
        context = self.context(one, call.q)
        of_keys, of_values = patched.get((call.layer.key, one), (context, context))
        of_rows: Callable[[torch.Tensor], torch.Tensor] = rows.of_prompt
        if (call.layer.key, one) in patched:
            of_rows = lambda part: part[rows.of_call]  # noqa: E731
        keys, values = (
            of_rows(made).unflatten(-1, (call.layer.heads, -1)).index_select(2, heads).flatten(2)
            for made in (module.to_k(of_keys), module.to_v(of_values))
        )
        # The prompt's own controls know its tokens as they were before NegPip doubled them.
        halved = 2 * values.shape[1] == context.shape[1]
        return OtherText(Text(keys, values), PromptControls(one.controls, context.shape[1]), halved=halved)


class PassedTexts:
    """Other prompts whose keys and values are those of passes with them, at the latents of the prompts that read them.

    A pass keeps all else as it is for the rows' own prompt: pooled vectors, areas, hooks. Where keys and values depend
    on the text alone, one pass is for the whole run.
    """

    def __init__(
        self,
        architecture: Architecture,
        readings_of: ReadingsOf,
        heads: Mapping[tuple[LayerKey, PromptReading], Sequence[int]],
        windows: WindowEnds,
    ):
        self.architecture, self.readings_of, self.heads, self.windows = architecture, readings_of, heads, windows
        self.layers = {layer for layer, _ in heads}
        self.wrapping = architecture.wrapping(self.attend_at)
        self.scheduled = False
        self.guider: Any = None
        self.open: set[PromptReading] = set()
        self.kept: dict[tuple[Chunk, PromptReading], dict[LayerKey, OtherText]] = {}

    def prepare(self, guider: Any) -> None:
        """Have the host prepare the other prompts as it does those of the guider."""
        self.guider = guider
        own = [(name, entry) for name, entries in guider.conds.items() for entry in entries]
        self.scheduled = any(
            not hook.hook_keyframe.is_empty() for _, entry in own if entry.get("hooks") for hook in entry["hooks"].hooks
        )
        prompts = (
            PromptBeside((entry["uuid"], one), name, entry, one.context, one.text)
            for name, entry in own
            for one in self._every(entry)
        )
        prepare_beside(guider, _LIST, prompts)

    def _every(self, entry: Mapping[str, Any]) -> Iterator[PromptReading]:
        yield from dict.fromkeys(one for readings in self.readings_of(entry) for one in readings)

    def evaluate(self, evaluation: Evaluation) -> None:
        """Run the passes that this evaluation wants."""
        if not self.architecture.text_is_fixed or self.scheduled:
            self.kept.clear()
        prepared = prepared_beside(self.guider, _LIST)
        self.open = {one for _, one in prepared if self._is_open(one, evaluation.timestep)}
        passes: dict[Any, tuple[Chunk, PromptReading]] = {}
        entries: list[dict[str, Any]] = []
        for number, of_list in enumerate(evaluation.conds):
            for entry, owner, _ in brought(of_list):
                for one in self._every(owner):
                    reader = (number, entry["uuid"]), one
                    if reader in self.kept or one not in self.open or (owner["uuid"], one) not in prepared:
                        continue
                    own = {
                        key: value for key, value in entry.items() if key not in ("default", CONTROLS_KEY, READINGS_KEY)
                    }
                    entries.append({**own, "model_conds": prepared[owner["uuid"], one], "uuid": uuid4()})
                    passes[entries[-1]["uuid"]] = reader
        if entries:
            evaluation._replace(conds=[entries]).beside(self).telling(_PASSES_KEY, passes).run()

    def _is_open(self, one: PromptReading, timestep: torch.Tensor) -> bool:
        # A whole pass costs more than the wait for the number.
        window = one.reading.window
        return window.is_whole or self.windows.is_open(window, float(timestep[0]))

    def into(self, transformer_options: dict[str, Any], asked: Sequence[PromptReading]) -> dict[str, Any]:
        """As they are: passes are apart from the call."""
        return transformer_options

    def are_read(self, one: PromptReading) -> bool:
        """Inside its window."""
        return one in self.open

    def into_pass(self, transformer_options: dict[str, Any], context: torch.Tensor | None) -> dict[str, Any] | None:
        """With what keeps the text of a pass."""
        if _PASSES_KEY not in transformer_options:
            return None
        return self.wrapping.into(transformer_options, context)

    def attend_at(self, layer: AttentionLayer) -> Attend | None:
        if layer.key not in self.layers:
            return None

        def attend(call: AttentionCall) -> torch.Tensor:
            uuids = call.extra["uuids"]
            share = call.rows // len(uuids)
            for number, uuid in enumerate(uuids):
                chunk, one = call.extra[_PASSES_KEY][uuid]
                if chosen := self.heads.get((layer.key, one)):
                    rows = slice(number * share, (number + 1) * share)
                    text = call.read(rows, torch.tensor(chosen, device=call.v.device))
                    first = self.architecture.first_token(one.context.shape[1], call.tokens)
                    controls = PromptControls(one.controls, call.tokens, first)
                    self.kept.setdefault((chunk, one), {})[layer.key] = OtherText(text, controls, call.padding)
            return call.plain()

        return attend

    def of(self, call: AttentionCall, one: PromptReading, rows: RowPlace, heads: torch.Tensor) -> OtherText | None:
        """Of the pass for these rows' chunk."""
        found = self.kept.get((rows.chunk, one), {}).get(call.layer.key)
        if found is None or len(found.text.keys) != rows.share:
            return None
        keys, values, mask = found.text
        if mask is not None and len(mask) > 1:
            mask = mask[rows.of_chunk]
        text = Text(keys[rows.of_chunk], values[rows.of_chunk], mask)
        return found._replace(text=text)
