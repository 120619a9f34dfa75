"""Recording which concept every head attends to while images are made (arXiv 2412.02237, section 3).

What is recorded of a step is the last evaluation of the model before the step's callback: the evaluation at the
step's own latent, for samplers with one model call a step and for those with several. Evaluations that other nodes
add inside a step (perturbed attention and the like) are not recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import comfy.patcher_extension
import numpy as np
import torch
from comfy.patcher_extension import WrappersMP

from ...hrv.errors import HRVError
from ...hrv.heads.layout import AttentionLayer
from ...hrv.relevance.evidence import Counts
from ...hrv_kernels.token_attention import token_attention
from ...hrv_kernels.word_pooling import pool_words
from ..models.architectures import architecture_of
from ..models.capabilities import Capability
from ..models.families.attention_call import Attend, AttentionCall
from ..models.ours import our_key
from ..runs.attention import Evaluation, at_every_call, at_every_evaluation, own_options
from .concept_words import Asked, ConceptWords, sent
from .word_passes import WordPasses

_WRAPPER_KEY = our_key("recording")

_NEVER = torch.iinfo(torch.int64).max

# Keys of all words of all layers are kept on the device while they are smaller than this, in bytes.
_KEPT_KEYS = 1 << 28

# Of layers with fewer bytes of queries a call takes longer than its work: they wait for the step's end, for one call.
_WAITING_QUERIES = 1 << 20

# Numbers that are gathered at once when words are pooled: 16 MiB of them.
_POOLED = 1 << 22


class Recorder:
    """Counts how often each head attends most to each concept, batch of images by batch of images.

    :attr:`model` is a clone of the MODEL given, whose sampling is recorded. :meth:`begin` says which images come,
    :meth:`step_done` belongs into the sampler's callback, :meth:`counts` gives what was counted. ``pooling`` is one of
    :data:`~...hrv_kernels.word_pooling.POOLINGS`.
    """

    def __init__(self, model: Any, words: ConceptWords, seed: int, estimator: str, pooling: str = "mean"):
        self.architecture = architecture_of(model, Capability.RECORDING)
        self.modules, self.layout = self.architecture.projections, self.architecture.layout
        self.words, self.seed, self.estimator, self.pooling = words, seed, estimator, pooling
        self.layer_numbers = {layer.key: number for number, layer in enumerate(self.layout.layers)}
        self.passes: WordPasses | None = None
        if self.modules is None:
            self.passes, self.keeps_keys = WordPasses(self.architecture, words), self.architecture.text_is_fixed
        else:
            width = sum(module.heads * module.dim_head for module in self.modules.values())
            self.keeps_keys = width * words.tokens * torch.float32.itemsize <= _KEPT_KEYS
        self.keys: dict[Any, torch.Tensor] = {}
        self.stacked_keys: dict[tuple[Any, ...], torch.Tensor] = {}
        self.model = model.clone()
        self.model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, _WRAPPER_KEY, self._record_run)
        self.begin([])

    def begin(self, images: Sequence[int]) -> None:
        """Start anew with the images of these numbers, in row order."""
        self.images = images
        self.step = 0
        self.asked: Asked | None = None
        self.pending: dict[Any, torch.Tensor] = {}
        self.waiting: dict[Any, torch.Tensor] = {}
        self.counted: torch.Tensor | None = None
        self.positive: set[Any] = set()
        self.scheduled = False
        self.evaluation_is_new = False
        self.recording = False

    def step_done(self) -> None:
        """Count what the step's own evaluation showed; later evaluations belong to the next step."""
        self._answer_waiting()
        missing = [layer.name for layer in self.layout.layers if layer.key not in self.pending]
        if missing:
            raise HRVError(
                f"Nothing was recorded at {', '.join(missing[:4])} in step {self.step + 1}: another node replaces "
                "cross-attention there or skips the model. Build with the model before that node."
            )
        most, broken = self._most_attended()
        concepts, heads = len(self.words.numbers), self.layout.head_count
        if self.counted is None:
            self.counted = torch.zeros(2, concepts, heads, dtype=torch.int64, device=most.device)
            # Of every layer the first step with numbers that are not finite: later ones carry them everywhere.
            self.broken = torch.full_like(broken, _NEVER, dtype=torch.int64)
            self.half = sent(np.asarray(self.images)[:, None] % 2, most.device)
            self.head = torch.arange(heads, device=most.device)
        self.broken.masked_fill_(broken & (self.broken == _NEVER), self.step)
        places = (self.half * concepts + most) * heads + self.head
        self.counted.view(-1).scatter_add_(0, places.view(-1), torch.ones_like(places).view(-1))
        self.pending.clear()
        self.asked = None
        self.step += 1

    def _most_attended(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The concept each head attends to most, int64 [images, H], and of which layers attention is not a number."""
        assert self.asked is not None
        most: dict[int, torch.Tensor] = {}
        broken: dict[int, torch.Tensor] = {}
        # Layers with as many heads are pooled together: with a call for each, the calls take most of the time.
        for alike in self._pooled_together(self.asked.places[0, 0].numel()):
            attention = torch.stack([self.pending[self.layout.layers[number].key] for number in alike])
            places = torch.stack([self.asked.places[number] for number in alike])
            places = places.expand(-1, len(self.images), *places.shape[2:])
            pooled = pool_words(attention.flatten(0, 1), places.flatten(0, 1), self.pooling)
            most.update(zip(alike, pooled.argmax(-1).unflatten(0, attention.shape[:2]), strict=True))
            broken.update(zip(alike, attention.isnan().flatten(1).any(1), strict=True))
        layers = range(len(self.layout.layers))
        return torch.cat([most[layer] for layer in layers], dim=1), torch.stack([broken[layer] for layer in layers])

    def _pooled_together(self, places: int) -> Iterator[list[int]]:
        """The numbers of layers with equally many heads, as many as memory has room for the places of their tokens."""
        for heads in {layer.heads for layer in self.layout.layers}:
            alike = [number for number, layer in enumerate(self.layout.layers) if layer.heads == heads]
            most = max(1, _POOLED // (heads * len(self.images) * places))
            yield from (alike[first : first + most] for first in range(0, len(alike), most))

    def counts(self) -> Counts:
        """Counts [2, N, H] since :meth:`begin`, of images with even numbers and with odd ones; waits for the device.

        Raises HRVError if no step was made, and for numbers that are not finite, naming the layer that had them first.
        """
        if self.counted is None:
            raise HRVError("The sampler made no steps, so nothing was recorded: give it at least one.")
        # One copy, because each waits for the device.
        found = torch.cat([self.broken, self.counted.flatten()]).cpu().numpy()
        broken, counted = np.split(found, [len(self.broken)])
        if broken.min() < _NEVER:
            layer = self.layout.layers[int(broken.argmin())]
            first, last = self.images[0] + 1, self.images[-1] + 1
            images = f"image {first}" if first == last else f"images {first} to {last}"
            raise HRVError(
                f"The model gave numbers that aren't finite, first at {layer.name} in step {broken.min() + 1} of "
                f"{images}, so what its heads attend to means nothing. The checkpoint may be broken, or its "
                "precision too low."
            )
        return counted.reshape(self.counted.shape)

    def _record_run(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        guider = executor.class_obj
        self.positive = {cond["uuid"] for cond in guider.conds["positive"]}
        self.scheduled = any(
            not hook.hook_keyframe.is_empty()
            for cond in guider.conds["positive"]
            if cond.get("hooks")
            for hook in cond["hooks"].hooks
        )
        with own_options(guider) as options:
            comfy.patcher_extension.add_wrapper_with_key(
                WrappersMP.PREDICT_NOISE, _WRAPPER_KEY, self._begin_evaluation, options, is_model_options=True
            )
            at_every_evaluation(options, _WRAPPER_KEY, self._mark_main_pass)
            wrapping = self.architecture.wrapping(self._attend_at)

            def into(x: torch.Tensor, context: torch.Tensor | None, call: dict[str, Any]) -> dict[str, Any]:
                of_pass = None if self.passes is None else self.passes.into(call, context)
                return wrapping.into(call, context) if of_pass is None else of_pass

            at_every_call(options, _WRAPPER_KEY, into, self.passes)
            return executor(*args, **kwargs)

    def _begin_evaluation(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        self.evaluation_is_new = True
        # An evaluation before, such as a look ahead, answers nothing of this one, whose layers may have other sizes.
        self.pending.clear()
        self.waiting.clear()
        if self.scheduled:
            # Hooks with a schedule exchange weights from one evaluation to the next.
            self.keys.clear()
            self.stacked_keys.clear()
        return executor(*args, **kwargs)

    def _mark_main_pass(self, evaluation: Evaluation) -> Any:
        """The first batch of conditionings of an evaluation is the sampler's own; others come from other nodes."""
        self.recording, self.evaluation_is_new = self.evaluation_is_new, False
        try:
            if self.recording and self.passes is not None:
                self._pass_words(self.passes, evaluation)
            return evaluation.run()
        finally:
            self.recording = False

    def _pass_words(self, passes: WordPasses, evaluation: Evaluation) -> None:
        """Run the passes that this evaluation wants."""
        own = (entry for entries in evaluation.conds for entry in entries or () if entry["uuid"] in self.positive)
        entry = next(own, None)
        if entry is None or (self.keeps_keys and self.keys):
            return
        x = evaluation.x
        if self.keeps_keys:
            every = torch.arange(self.words.tokens)[None]
            first = evaluation._replace(x=x[:1], timestep=evaluation.timestep[:1])
            passes.run(first, entry, every, torch.ones_like(every))
            self.keys = {key: keys[0] for key, keys in passes.keys.items()}
        else:
            asked = self._ask(x.device)
            tokens, there = (part[0].expand(len(x), -1).cpu() for part in (asked.tokens, asked.there))
            passes.run(evaluation, entry, tokens, there)

    def _ask(self, device: torch.device) -> Asked:
        """What this step's heads are asked about."""
        if self.asked is None:
            layers = len(self.layout.layers)
            # Words whose keys are of one pass are one draw for all layers.
            drawn = layers if self.passes is None or self.keeps_keys else 1
            asked = self.words.ask(self.estimator, self.seed, self.images, self.step, drawn, device)
            self.asked = Asked(*(part.expand(layers, *part.shape[1:]) for part in vars(asked).values()))
        return self.asked

    def _attend_at(self, layer: AttentionLayer) -> Attend:
        # What is drawn and kept is bookkeeping that no compiler can trace.
        @torch.compiler.disable
        def attend(call: AttentionCall) -> torch.Tensor:
            if self.recording:
                self._record(layer, call.queries, call.extra)
            return call.plain()

        return attend

    def _record(self, layer: AttentionLayer, q: torch.Tensor, extra: dict[str, Any]) -> None:
        """Keep every head's attention to every token, float32 [images, heads, T], until the step is done."""
        uuids = extra["uuids"]
        for chunk, uuid in enumerate(uuids):
            if uuid not in self.positive:
                continue
            queries = q.chunk(len(uuids))[chunk]
            if len(queries) != len(self.images):
                raise HRVError(
                    f"Recording {len(self.images)} images met {len(queries)} rows at {layer.name}: a node on this "
                    "model changes the batch. Build with the model before that node."
                )
            if self.passes is not None and layer.key not in self.passes.keys:
                continue  # said when the step is done
            asked = self._ask(q.device)
            if self.keeps_keys and queries.numel() * queries.element_size() <= _WAITING_QUERIES:
                # Keys now, while weights are here and as hooks have them. Queries as a copy, because what comes after
                # may work in place, and the view would keep all rows alive.
                self._kept_keys(layer, q)
                self.pending.pop(layer.key, None)
                self.waiting[layer.key] = queries.clone()
                continue
            self.waiting.pop(layer.key, None)
            number = self.layer_numbers[layer.key]
            tokens, there = asked.tokens[number], asked.there[number].expand(len(queries), -1)
            if self.keeps_keys:
                keys = self._kept_keys(layer, q)[tokens]
            elif self.modules is None:
                assert self.passes is not None
                keys = self.passes.keys[layer.key]
            else:
                keys = self.modules[layer.key].to_k(self.words.context_on(q)[tokens])
            self.pending[layer.key] = token_attention(queries, keys.expand(len(queries), -1, -1), there, layer.heads)

    def _kept_keys(self, layer: AttentionLayer, q: torch.Tensor) -> torch.Tensor:
        """Keys of the words' context at one layer [tokens, C], projected once or of a pass."""
        if layer.key not in self.keys:
            assert self.modules is not None
            self.keys[layer.key] = self.modules[layer.key].to_k(self.words.context_on(q))
        return self.keys[layer.key]

    def _answer_waiting(self) -> None:
        """Attention of the layers that waited, those of one shape in one call."""
        alike: dict[Any, list[AttentionLayer]] = {}
        for layer in self.layout.layers:
            if layer.key in self.waiting:
                alike.setdefault((self.waiting[layer.key].shape, layer.heads), []).append(layer)
        for ((images, *_), heads), layers in alike.items():
            assert self.asked is not None
            tokens, there = (
                torch.stack([of_layers[self.layer_numbers[layer.key]] for layer in layers])
                for of_layers in (self.asked.tokens, self.asked.there)
            )
            own = tuple(layer.key for layer in layers)
            which = torch.arange(len(own), device=tokens.device)[:, None, None]
            queries = torch.stack([self.waiting[key] for key in own]).flatten(0, 1)
            keys = self._stacked_keys(own)[which, tokens].expand(-1, images, -1, -1).flatten(0, 1)
            answers = token_attention(queries, keys, there.expand(-1, images, -1).flatten(0, 1), heads)
            self.pending.update(zip(own, answers.split(images), strict=True))
        self.waiting.clear()

    def _stacked_keys(self, layers: tuple[Any, ...]) -> torch.Tensor:
        """:meth:`_kept_keys` of layers as one tensor [layers, tokens, C], of which they become views."""
        if layers not in self.stacked_keys:
            self.stacked_keys[layers] = torch.stack([self.keys[key] for key in layers])
            self.keys.update(zip(layers, self.stacked_keys[layers], strict=True))
        return self.stacked_keys[layers]
