"""Apply Concept Strengthen and Concept Adjust: how words of a prompt are read."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.models.layouts import require_fitting
from ..hrv.controls.control import DESIRED_WEIGHT, UNDESIRED_WEIGHT, Control, adjust, strengthen
from ..hrv.relevance.factors import AUTOMATIC
from ..hrv.relevance.vectors import HRV
from .control_inputs import ControlledWords, Effect, control_outputs, hrv_input, occurrence_input, words_input
from .input_groups import with_groups
from .inputs import clamp_input, factor_input, factors_input
from .menu import CONTROL
from .node import Node
from .wiring import check_outputs, wiring_hidden


class ConceptStrengthen(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_ConceptStrengthen",
            display_name="Apply Concept Strengthen",
            category=CONTROL,
            description="Makes words count more in the heads that matter for a concept and less in the others.",
            search_aliases=["concept strengthening", "emphasis", "attention heads", "style", "prompt weight", "hrv"],
            inputs=[
                *ControlledWords.connections(),
                hrv_input(),
                words_input(),
                io.String.Input("concept", default="Color", tooltip="The name of a concept of the HRV."),
                *Effect.inputs(),
                clamp_input(),
                occurrence_input(),
                factors_input(),
            ],
            outputs=control_outputs(),
            hidden=wiring_hidden(),
        )

    @classmethod
    @with_groups
    def execute(
        cls,
        target: ControlledWords,
        effect: Effect,
        hrv: HRV,
        concept: str,
        clamp: float,
        factors: str = AUTOMATIC,
    ) -> io.NodeOutput:
        check_outputs(cls)
        require_fitting(hrv, target.model)
        window = effect.window()
        return target.output(
            lambda positions: strengthen(hrv, concept, positions, effect.strength, window, clamp or None, factors)
        )


class ConceptAdjust(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_ConceptAdjust",
            display_name="Concept Adjust",
            category=CONTROL,
            description="Has a word with several meanings read as one concept and not as another: 'rose' as Color, "
            "not as Plants.",
            search_aliases=["concept adjusting", "polysemous", "misinterpretation", "meaning", "attention", "hrv"],
            inputs=[
                *ControlledWords.connections(),
                hrv_input(),
                words_input(),
                io.String.Input(
                    "desired",
                    display_name="read as",
                    default="Color",
                    tooltip="The concept the words should be read as.",
                ),
                io.String.Input(
                    "undesired",
                    display_name="not as",
                    default="Plants",
                    tooltip="The concept they should not be read as.",
                ),
                *Effect.inputs(),
                clamp_input(),
                factor_input(
                    "desired_weight",
                    DESIRED_WEIGHT,
                    "Weight of the desired concept's HRV; published: 2.",
                    advanced=True,
                ),
                factor_input(
                    "undesired_weight",
                    UNDESIRED_WEIGHT,
                    "Weight of the undesired concept's HRV; published: -1.",
                    advanced=True,
                ),
                occurrence_input(),
                factors_input(),
            ],
            outputs=control_outputs(),
            hidden=wiring_hidden(),
        )

    @classmethod
    @with_groups
    def execute(
        cls,
        target: ControlledWords,
        effect: Effect,
        hrv: HRV,
        desired: str,
        undesired: str,
        clamp: float,
        desired_weight: float,
        undesired_weight: float,
        factors: str = AUTOMATIC,
    ) -> io.NodeOutput:
        check_outputs(cls)
        require_fitting(hrv, target.model)
        window = effect.window()

        def control(positions: tuple[int, ...]) -> Control:
            return adjust(
                hrv,
                desired,
                undesired,
                positions,
                effect.strength,
                window,
                clamp or None,
                desired_weight,
                undesired_weight,
                factors,
            )

        return target.output(control)
