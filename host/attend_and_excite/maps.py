"""What a conditioning with subjects carries, and the attention maps of one pass through the model, by subject."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

import comfy.model_management
import numpy as np
import torch

from ...hrv.attend_and_excite.loss import map_size, subject_map
from ...hrv.attend_and_excite.report import ReportLog
from ...hrv.attend_and_excite.settings import ExcitementSettings
from ...hrv.attend_and_excite.subjects import Subject
from ...hrv.errors import HRVError
from ...hrv.heads.layout import AttentionLayer, HeadLayout, LayerKey
from ...hrv_kernels.weighted_maps import weighted_maps
from ..models.families.architecture import Architecture
from ..models.families.attention_call import WHOLE, Attend, AttentionCall
from ..prompts.carried import EXCITEMENT_KEY, TOKEN_MAP_KEY
from ..runs.rows import row_groups

SubjectKey = tuple[str, str]
"""The uid of a subject's excitement, and its words."""

_LATENT_KEY = "hrv_latent_sides"


# Plain attend-and-excite looks at maps of a quarter of the latent's side: 16 x 16 for pictures of 512 pixels.
_PLAIN_REDUCTION = 4.0


@dataclass(frozen=True, eq=False)
class Excitement:
    """What a conditioning carries: the subjects of its prompt and how to treat them.

    ``uid`` is shared by the entries of one conditioning and by copies of it; ``log`` gets the report of every run, and
    ``node`` shows how it goes, if there is one.
    """

    settings: ExcitementSettings
    subjects: tuple[Subject, ...]
    layout: HeadLayout
    checkpointing: bool
    log: ReportLog
    node: str = ""
    uid: str = field(default_factory=lambda: uuid4().hex)


class _Prompt(NamedTuple):
    """An entry of a run's conditionings with subjects: what it carries, and the tokens of its own context.

    Of these ``first`` is the prompt's own first one, and ``first_word`` where its words begin.
    """

    excitement: Excitement
    tokens: int
    first: int
    first_word: int


class _PlainSum(NamedTuple):
    """Maps [B, y, x, T] of one size added up over all ``heads`` that have it."""

    distance: float
    size: tuple[int, int]
    heads: int
    maps: torch.Tensor


class _Wanted(NamedTuple):
    """What is wanted of one layer: HRV elements [S, heads] or None, and whether its heads are averaged."""

    weights: torch.Tensor | None
    target: tuple[int, int]
    plain: bool


class SubjectMaps:
    """The attention maps of one pass, as far as its subjects need them, by uuid of their conditioning."""

    def __init__(self, architecture: Architecture, settings: ExcitementSettings, conds: Sequence[dict[str, Any]]):
        self.architecture, self.layout, self.settings = architecture, architecture.layout, settings
        self.prompts = {cond["uuid"]: _prompt(architecture, cond) for cond in conds}
        self.wrapping = architecture.wrapping(self.attend_at)
        self.asked: set[Any] = set()  # uuids of those that a call of the model is for
        self.wanted: dict[tuple[Any, LayerKey], _Wanted] = {}
        # Sums over the heads so far: weighted by each subject's HRV, and plain ones of one size of maps.
        self.weighted: dict[Any, torch.Tensor] = {}
        self.plain: dict[Any, _PlainSum] = {}
        self.complete = False

    def into(self, x: torch.Tensor, context: torch.Tensor | None, options: dict[str, Any]) -> dict[str, Any]:
        """The transformer options of a call of the model at latents x [B, C, (frames,) h, w], with what reads maps.

        Raises HRVError for several frames.
        """
        *frames, height, width = x.shape[2:]
        if math.prod(frames) > 1:
            raise HRVError(
                f"Attend and Excite moves single images, but this latent has {math.prod(frames)} frames. Set the "
                "length of the video to 1."
            )
        self.asked.update(options["uuids"])
        return self.wrapping.into({**options, _LATENT_KEY: (height, width)}, context)

    def attend_at(self, layer: AttentionLayer) -> Attend:
        def attend(call: AttentionCall) -> torch.Tensor:
            if call.q.requires_grad:
                call.q.register_hook(_end_if_cancelled)
            extra = call.extra
            groups = row_groups(extra["cond_or_uncond"], extra)
            if groups is None or len(call.q) % len(groups):
                raise HRVError(
                    "Another node changed how prompts share the rows of the batch, so Attend and Excite cannot tell "
                    "which map belongs to which prompt. Remove that node from the model."
                )
            rows = len(call.q) // len(groups)
            queries, keys = call.queries, call.keys
            for number, group in enumerate(groups):
                if not group.region:
                    own = slice(number * rows, (number + 1) * rows)
                    self.add(call, extra["uuids"][group.chunk], queries[own], keys[own])
            return call.plain()

        return attend

    def add(self, call: AttentionCall, uuid: Any, q: torch.Tensor, k: torch.Tensor) -> None:
        """Take up one layer's maps of one conditioning: q [B, P, C], k [B, T, C].

        They are shares among the tokens of the text, also where the image's own keys stand beside these.
        """
        layer, extra = call.layer, call.extra
        size = height, width = self.size(extra)
        if call.text != WHOLE:
            # Behind the image's places are those of reference images, and padding.
            q = q[:, : height * width]
        found = k.shape[1] - call.padding
        # NegPip of other packs doubles the context on its way to the model, and halves it again here.
        tokens = min(self.prompts[uuid].tokens, found)
        if height * width != q.shape[1] or found % tokens:
            raise HRVError(
                f"At {layer.name} another node changed the image positions or the tokens ({q.shape[1]} positions of "
                f"{height} x {width}, {found} tokens of {tokens}), so Attend and Excite cannot read the maps."
            )
        if call.mask is not None:
            raise HRVError(
                "Some tokens of this prompt are masked, so Attend and Excite cannot read the maps. Take the mask off "
                "the conditioning."
            )

        def maps(weights: torch.Tensor, target: tuple[int, int]) -> torch.Tensor:
            # The host repeats shorter prompts to a common length (comfy/conds.py, CONDCrossAttn.concat).
            made = weighted_maps(q, k, weights, size, target)
            return made if call.padding else made.unflatten(-1, (-1, tokens)).sum(-2)

        # With activation checkpointing every layer runs again in the backward pass and has to do the same again.
        if not self.complete:
            self.want(layer, uuid, extra, q.device)
        wanted = self.wanted[uuid, layer.key]
        if wanted.weights is not None:
            weighted = maps(wanted.weights, wanted.target)
            if not self.complete:
                self.weighted[uuid] = self.weighted[uuid] + weighted if uuid in self.weighted else weighted
        if wanted.plain:
            plain = maps(torch.ones(1, layer.heads, device=q.device), size)[:, 0]
            if not self.complete:
                self.keep_plain(layer, uuid, plain, extra)

    def size(self, extra: Mapping[str, Any]) -> tuple[int, int]:
        """Height and width of the maps of a layer."""
        height, width = self.architecture.places(extra[_LATENT_KEY], extra)
        return height, width

    def want(self, layer: AttentionLayer, uuid: Any, extra: Mapping[str, Any], device: torch.device) -> None:
        if (uuid, layer.key) in self.wanted:
            raise HRVError(
                f"Another node calls the model several times for one latent ({layer.name} ran twice), as tiled "
                "diffusion does, so Attend and Excite doesn't get whole maps. Remove that node from the model."
            )
        subjects = self.prompts[uuid].excitement.subjects
        rows = [subject.weights for subject in subjects if subject.weights is not None]
        weights = None
        if rows:
            heads = self.layout.head_slice(layer.key)
            weights = torch.tensor(np.stack(rows)[:, heads] / self.layout.head_count, device=device)
        before = self.plain.get(uuid)
        plain = len(rows) < len(subjects) and (
            before is None or before.size == self.size(extra) or self.distance(extra) < before.distance
        )
        height, width = extra[_LATENT_KEY]
        target = map_size(height, width, self.settings.resolution)
        self.wanted[uuid, layer.key] = _Wanted(weights, target, plain)

    def keep_plain(self, layer: AttentionLayer, uuid: Any, maps: torch.Tensor, extra: Mapping[str, Any]) -> None:
        """Add to the maps of one size, or begin anew with those of a better size."""
        size = self.size(extra)
        before = self.plain.get(uuid)
        if before is not None and before.size == size:
            self.plain[uuid] = before._replace(heads=before.heads + layer.heads, maps=before.maps + maps)
        else:
            self.plain[uuid] = _PlainSum(self.distance(extra), size, layer.heads, maps)

    def distance(self, extra: Mapping[str, Any]) -> float:
        """How far a layer's maps are from the size that plain attend-and-excite looks at, in octaves."""
        latent, maps = math.prod(extra[_LATENT_KEY]), math.prod(self.size(extra))
        return abs(math.log2(math.sqrt(latent / maps) / _PLAIN_REDUCTION))

    def of_subjects(self) -> list[tuple[SubjectKey, torch.Tensor]]:
        """Each subject's map [B, y, x] in every conditioning that acted; raises HRVError where layers were skipped."""
        self.complete = True
        found: list[tuple[SubjectKey, torch.Tensor]] = []
        for uuid in (uuid for uuid in self.prompts if uuid in self.asked):
            missing = [layer.name for layer in self.layout.layers if (uuid, layer.key) not in self.wanted]
            if missing:
                raise HRVError(
                    f"Attend and Excite saw no attention at {', '.join(missing[:4])}: another node replaces it there "
                    "or skips the model. Remove that node from the model."
                )
            excitement, _, first, first_word = self.prompts[uuid]
            number = 0
            for subject in excitement.subjects:
                if subject.weights is None:
                    maps = self.plain[uuid].maps / self.plain[uuid].heads
                else:
                    maps = self.weighted[uuid][:, number]
                    number += 1
                positions = [first + position for position in subject.positions]
                starts = self.architecture.in_front_of_words(maps.shape[-1], first_word)
                own = subject_map(maps, positions, starts, self.settings.smoothing)
                found.append(((excitement.uid, subject.words), own))
        return found


def _end_if_cancelled(_: torch.Tensor) -> None:
    """A hook of the backward pass, which takes many seconds for a large model on a CPU.

    In the forward pass the host looks itself (comfy/ops.py, run_every_op).
    """
    comfy.model_management.throw_exception_if_processing_interrupted()


def _prompt(architecture: Architecture, cond: Mapping[str, Any]) -> _Prompt:
    """An entry's prompt as it reaches the model."""
    tokens = cond["model_conds"]["c_crossattn"].cond.shape[1]
    first = architecture.first_token(cond["cross_attn"].shape[1], tokens)
    words = cond[TOKEN_MAP_KEY].content_positions
    return _Prompt(cond[EXCITEMENT_KEY], tokens, first, first + words[0])
