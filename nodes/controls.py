"""Apply Concept Strengthen and Concept Adjust: how words of a prompt are read."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..host.mechanism import add_control
from ..host.models.layouts import require_fitting
from ..host.page.wiring import check_wiring
from ..hrv.controls.control import DESIRED_WEIGHT, UNDESIRED_WEIGHT, adjust, strengthen
from ..hrv.progress import Window
from ..hrv.relevance.vectors import HRV
from .sockets import (
    CATEGORY,
    CONTROL_HIDDEN,
    CONTROL_NODES,
    clamp_input,
    control_connections,
    control_outputs,
    hrv_input,
    occurrence_input,
    split_words,
    strength_and_window,
    words_input,
)


class ConceptStrengthen(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_ConceptStrengthen",
            display_name="Apply Concept Strengthen",
            category=CATEGORY,
            description="Makes words count more in the heads that matter for a concept and less in the others.",
            search_aliases=["concept strengthening", "emphasis", "attention heads", "hrv"],
            inputs=[
                *control_connections(),
                hrv_input(),
                words_input(),
                io.String.Input("concept", default="Color", tooltip="A concept of the HRV, by name."),
                *strength_and_window(),
                clamp_input(),
                occurrence_input(),
            ],
            outputs=control_outputs(),
            hidden=list(CONTROL_HIDDEN),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        conditioning: Any,
        hrv: HRV,
        words: str,
        concept: str,
        strength: float,
        start: float,
        end: float,
        clamp: float,
        occurrence: str = "all",
    ) -> io.NodeOutput:
        check_wiring(cls, CONTROL_NODES)
        require_fitting(hrv, model)
        window = Window(start, end)
        return io.NodeOutput(
            *add_control(
                model,
                conditioning,
                split_words(words),
                lambda positions: strengthen(hrv, concept, positions, strength, window, clamp or None),
                occurrence,
            )
        )


class ConceptAdjust(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_ConceptAdjust",
            display_name="Concept Adjust",
            category=CATEGORY,
            description="Makes a word with several meanings be read as one concept and not as another: 'rose' as "
            "Color, not as Plants.",
            search_aliases=["concept adjusting", "polysemous", "misinterpretation", "meaning", "hrv"],
            inputs=[
                *control_connections(),
                hrv_input(),
                words_input(),
                io.String.Input(
                    "desired",
                    display_name="read as",
                    default="Color",
                    tooltip="The concept that the words are meant as.",
                ),
                io.String.Input(
                    "undesired",
                    display_name="not as",
                    default="Plants",
                    tooltip="The concept that they shall not be read as.",
                ),
                *strength_and_window(),
                clamp_input(),
                io.Float.Input(
                    "desired_weight",
                    default=DESIRED_WEIGHT,
                    min=-10.0,
                    max=10.0,
                    step=0.1,
                    tooltip="Weight of the desired concept's HRV; published: 2.",
                    advanced=True,
                ),
                io.Float.Input(
                    "undesired_weight",
                    default=UNDESIRED_WEIGHT,
                    min=-10.0,
                    max=10.0,
                    step=0.1,
                    tooltip="Weight of the undesired concept's HRV; published: -1.",
                    advanced=True,
                ),
                occurrence_input(),
            ],
            outputs=control_outputs(),
            hidden=list(CONTROL_HIDDEN),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        conditioning: Any,
        hrv: HRV,
        words: str,
        desired: str,
        undesired: str,
        strength: float,
        start: float,
        end: float,
        clamp: float,
        desired_weight: float,
        undesired_weight: float,
        occurrence: str = "all",
    ) -> io.NodeOutput:
        check_wiring(cls, CONTROL_NODES)
        require_fitting(hrv, model)
        window = Window(start, end)

        def control(positions: Any) -> Any:
            return adjust(
                hrv,
                desired,
                undesired,
                positions,
                strength,
                window,
                clamp or None,
                desired_weight,
                undesired_weight,
            )

        return io.NodeOutput(*add_control(model, conditioning, split_words(words), control, occurrence))
