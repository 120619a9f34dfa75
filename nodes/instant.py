"""Instant HRV: relevances read off a model's weights, without images."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..host.building.value_contrast import BACKGROUNDS, WHEN_NEEDED, background_of, instant_hrv
from ..hrv.prompts.frames import DEFAULT_FRAMES, parse_frames
from ..hrv.relevance.vocabulary import Vocabulary
from .menu import MAKE
from .node import Node
from .outputs import hrv_output
from .sockets import ConceptsSocket, HRVSocket

_DEFAULT_FRAMES = "\n".join(DEFAULT_FRAMES)


class InstantHRV(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_Instant",
            display_name="Instant HRV",
            category=MAKE,
            description="Reads from your model's weights which cross-attention heads write the words of a concept "
            "differently: one Head Relevance Vector per concept, without generating any images. It also "
            "works for a single new concept.",
            search_aliases=["head relevance vector", "value contrast", "make hrv", "fast hrv", "new concept"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model to look into, LoRAs included. docs/architectures.md lists which ones work.",
                ),
                io.Clip.Input("clip", tooltip="Its text encoder: encodes every concept word in every sentence."),
                ConceptsSocket.Input("concepts", tooltip="From HRV Concepts; every concept needs two words or more."),
                io.String.Input(
                    "frames",
                    multiline=True,
                    default=_DEFAULT_FRAMES,
                    optional=True,
                    tooltip="Sentences that every word is put into, one per line, with {word} in its place; at most "
                    "12. With CLIP only what comes before {word} makes a difference.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "background",
                    options=list(BACKGROUNDS),
                    default=WHEN_NEEDED,
                    optional=True,
                    tooltip="Whether to compare your concepts with the paper's 34 as well, which are not in the "
                    "result. 'when needed' does so for fewer than five concepts, because a head's share "
                    "among only a few says little.",
                    advanced=True,
                ),
            ],
            outputs=[HRVSocket.Output("hrv", display_name="HRV", tooltip="One vector per concept.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        concepts: Vocabulary,
        frames: str = _DEFAULT_FRAMES,
        background: str = WHEN_NEEDED,
    ) -> io.NodeOutput:
        against = background_of(concepts, background)
        return hrv_output(instant_hrv(model, clip, concepts, parse_frames(frames), against))
