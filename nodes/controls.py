"""Apply Concept Strengthen and Concept Adjust: how words of a prompt are read."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..host.attention_control import add_control
from ..hrv.controls import DESIRED_WEIGHT, UNDESIRED_WEIGHT, Window, adjust, strengthen
from ..hrv.vectors import HRV
from .sockets import CATEGORY, HRVSocket, control_inputs, split_words, words_input


def _connections() -> list[Any]:
    return [
        io.Model.Input("model", tooltip="The model that will sample; it gets the mechanism, no setting."),
        io.Conditioning.Input("conditioning", tooltip="From CLIP Text Encode (HRV), or from another HRV control."),
        HRVSocket.Input("hrv", tooltip="Built on this model or on a relative with the same heads."),
    ]


def _outputs() -> list[Any]:
    return [
        io.Model.Output(tooltip="The model that reads controls; sample with it, whatever the number of controls."),
        io.Conditioning.Output(tooltip="The conditioning with this control added to those it carried."),
    ]


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
                *_connections(),
                words_input(),
                io.String.Input("concept", default="Color", tooltip="A concept of the HRV, by name."),
                *control_inputs(),
            ],
            outputs=_outputs(),
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
    ) -> io.NodeOutput:
        window = Window(start, end)
        return io.NodeOutput(
            *add_control(
                model,
                conditioning,
                hrv,
                split_words(words),
                lambda positions: strengthen(hrv, concept, positions, strength, window, clamp or None),
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
                *_connections(),
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
                *control_inputs(),
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
            ],
            outputs=_outputs(),
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
    ) -> io.NodeOutput:
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

        return io.NodeOutput(*add_control(model, conditioning, hrv, split_words(words), control))
