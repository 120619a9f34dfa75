"""Read by Concept: the heads of a concept read another prompt."""

from __future__ import annotations

import logging
from typing import Any

from comfy_api.latest import io

from ..host.editing.prompts import ignored_settings
from ..host.mechanism import add_reading
from ..host.models.capabilities import Capability
from ..host.models.layouts import require_fitting
from ..host.page.texts import show_text
from ..hrv.controls.reading import DEFAULT_PERCENT, GATES, SMALLEST_GATE, TOP_HEADS, read_concept
from ..hrv.relevance.vectors import HRV
from .control_inputs import ControlledWords, Effect, control_outputs, hrv_input
from .input_groups import with_groups
from .menu import CONTROL
from .node import Node
from .wiring import check_outputs, wiring_hidden


class ReadByConcept(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_ReadByConcept",
            display_name="Read by Concept",
            category=CONTROL,
            description="Takes one concept from another prompt: the heads that matter most for it read that prompt, "
            "all others this one. The shape of that prompt, everything else of this one.",
            search_aliases=[
                "mix prompts",
                "combine concepts",
                "second prompt",
                "attention heads",
                "style transfer",
                "transfer",
                "hrv",
            ],
            inputs=[
                *ControlledWords.connections(),
                io.Conditioning.Input(
                    "other",
                    tooltip="The prompt to take the concept from, encoded with the same CLIP. It may carry its own "
                    "controls.",
                ),
                hrv_input(),
                io.String.Input("concept", default="Shape", tooltip="The concept to take: a concept of the HRV."),
                io.Int.Input(
                    "heads",
                    default=0,
                    min=0,
                    max=65_535,
                    tooltip="How many heads read the other prompt, the most relevant first. 0 is "
                    f"{DEFAULT_PERCENT:g} % of all heads: 8 for SD 1.x and HRV-mini, 78 for SDXL.",
                ),
                *Effect.inputs(),
                io.Combo.Input(
                    "gates",
                    options=list(GATES),
                    default=TOP_HEADS,
                    optional=True,
                    tooltip="'top heads': these heads read the other prompt and no others. 'by relevance': the others "
                    "read some of it too, by their relevance over that of the last of these heads; "
                    f"less than {SMALLEST_GATE:.0%} is none.",
                    advanced=True,
                ),
            ],
            outputs=control_outputs(),
            hidden=wiring_hidden(),
        )

    @classmethod
    @with_groups
    def execute(
        cls,
        model: Any,
        conditioning: Any,
        other: Any,
        effect: Effect,
        hrv: HRV,
        concept: str,
        heads: int,
        gates: str = TOP_HEADS,
    ) -> io.NodeOutput:
        check_outputs(cls)
        require_fitting(hrv, model, Capability.READING)
        window = effect.window()
        result = add_reading(
            model,
            conditioning,
            other,
            lambda text: read_concept(hrv, concept, heads, effect.strength, window, text, gates),
        )
        if ignored := ignored_settings(conditioning, other):
            sentence = f"Only the words of the other prompt are read; its settings are ignored: {', '.join(ignored)}."
            logging.warning("[HRV] Read by Concept: %s", sentence)
            show_text(cls, sentence)
        return io.NodeOutput(*result)
