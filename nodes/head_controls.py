"""Weaken Heads by Order and Scale Heads: controls of heads that are chosen one by one."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.models.layouts import head_layout, require_fitting
from ..hrv.controls.control import scale_heads, weaken
from ..hrv.heads.sets import parse_heads
from ..hrv.prompts.tokens import ALL_WORDS
from ..hrv.relevance.orders import ORDERS, heads_of_percent
from ..hrv.relevance.vectors import HRV
from .control_inputs import ControlledWords, Effect, control_outputs, hrv_input, occurrence_input, words_input
from .input_groups import with_groups
from .inputs import factor_input, seed_input
from .menu import CONTROL
from .node import Node
from .wiring import check_outputs, wiring_hidden


class WeakenHeads(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_WeakenHeads",
            display_name="Weaken Heads by Order",
            category=CONTROL,
            description="Weakens words in the heads that matter most for a concept, or least, or at random: what the "
            "image loses shows whether the HRV ranks the right heads.",
            search_aliases=["ordered weakening", "morhf", "lerhf", "ablation", "hrv"],
            inputs=[
                *ControlledWords.connections(),
                hrv_input(),
                words_input(default=ALL_WORDS),
                io.String.Input("concept", default="Color", tooltip="The concept of the HRV that orders the heads."),
                io.Combo.Input("order", options=list(ORDERS), tooltip="Which heads to weaken first."),
                io.Int.Input(
                    "heads",
                    default=11,
                    min=0,
                    max=65_535,
                    tooltip="How many heads to weaken, counted from the first in the order; SD 1.x has 128, SDXL 1300.",
                ),
                factor_input(
                    "factor",
                    0.0,
                    "What the words' attention is multiplied by in these heads: 0 takes it away, published is -2.",
                ),
                *Effect.inputs(),
                seed_input("seed", "Which random order; the other orders do not need it.", advanced=True),
                occurrence_input(),
                io.Combo.Input(
                    "unit",
                    options=["heads", "percent"],
                    optional=True,
                    tooltip="Whether 'heads' is a number of heads or a percentage.",
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
        target: ControlledWords,
        effect: Effect,
        hrv: HRV,
        concept: str,
        order: str,
        heads: int,
        factor: float,
        seed: int,
        unit: str = "heads",
    ) -> io.NodeOutput:
        check_outputs(cls)
        require_fitting(hrv, target.model)
        window = effect.window()
        number = heads_of_percent(heads, hrv.layout.head_count) if unit == "percent" else heads
        return target.output(
            lambda positions: weaken(hrv, concept, order, number, positions, effect.strength, window, factor, seed)
        )


class ScaleHeads(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_ScaleHeads",
            display_name="Scale Heads",
            category=CONTROL,
            description="Multiplies the attention to words by a factor in heads that you name; no HRV is needed.",
            search_aliases=["manual heads", "head set", "block weights", "ablation", "hrv"],
            inputs=[
                *ControlledWords.connections(),
                words_input(default=ALL_WORDS),
                io.String.Input(
                    "heads",
                    default="mid",
                    multiline=True,
                    tooltip="Sections, blocks, transformers and heads, such as: down4.1:3,5 mid:0 up0-5. A term with "
                    "! removes heads: all !mid. Empty: none.",
                ),
                factor_input(
                    "factor",
                    0.0,
                    "What the words' attention is multiplied by in these heads; 0 takes it away, 1 keeps it.",
                ),
                *Effect.inputs(),
                occurrence_input(),
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
        heads: str,
        factor: float,
    ) -> io.NodeOutput:
        check_outputs(cls)
        layout = head_layout(target.model)
        head_positions = parse_heads(layout, heads)
        window = effect.window()
        return target.output(
            lambda positions: scale_heads(layout, head_positions, factor, positions, effect.strength, window)
        )
