"""HRV Concepts: a vocabulary of concepts and their words."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from ..hrv.relevance.vocabulary import parse_vocabulary
from .menu import MAKE
from .node import Node
from .sockets import ConceptsSocket

DEFAULT = Path(__file__).resolve().parent.parent / "hrv_presets" / "vocabularies" / "hrv-mini.txt"


class Concepts(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_Concepts",
            display_name="HRV Concepts",
            category=MAKE,
            description="The visual concepts to build an HRV for, each with its words.",
            search_aliases=["vocabulary", "concept words", "hrv vocabulary"],
            inputs=[
                io.String.Input(
                    "concepts",
                    multiline=True,
                    default=DEFAULT.read_text(encoding="utf-8"),
                    tooltip="One concept per line: 'Color: red, blue, dark green'. About ten words each work best; "
                    "lines that begin with # are comments. Every head is asked which of these concepts it "
                    "attends to most.",
                )
            ],
            outputs=[
                ConceptsSocket.Output("vocabulary", display_name="concepts", tooltip="For Build HRV and Instant HRV.")
            ],
        )

    @classmethod
    def execute(cls, concepts: str) -> io.NodeOutput:
        return io.NodeOutput(parse_vocabulary(concepts))
