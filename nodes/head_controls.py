"""Weaken Heads by Order and Scale Heads: controls of heads that are chosen one by one."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..host.mechanism import add_control
from ..host.models.layouts import head_layout, require_fitting
from ..host.page.wiring import check_wiring
from ..hrv.controls.control import scale_heads, weaken
from ..hrv.heads.sets import parse_heads
from ..hrv.progress import Window
from ..hrv.prompts.tokens import ALL_WORDS
from ..hrv.relevance.orders import ORDERS, WEAKEN_FACTOR, heads_of_percent
from ..hrv.relevance.vectors import HRV
from .sockets import (
    CATEGORY,
    CONTROL_HIDDEN,
    CONTROL_NODES,
    control_connections,
    control_outputs,
    hrv_input,
    occurrence_input,
    split_words,
    strength_and_window,
    words_input,
)


def _factor_input(default: float, tooltip: str) -> Any:
    return io.Float.Input("factor", default=default, min=-10.0, max=10.0, step=0.1, tooltip=tooltip)


class WeakenHeads(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_WeakenHeads",
            display_name="Weaken Heads by Order",
            category=CATEGORY,
            description="Turns the words down in the heads that matter most for a concept, or least, or at random: "
            "how much the image loses shows whether an HRV found the right heads.",
            search_aliases=["ordered weakening", "morhf", "lerhf", "ablation", "hrv"],
            inputs=[
                *control_connections(),
                hrv_input(),
                words_input(default=ALL_WORDS),
                io.String.Input("concept", default="Color", tooltip="The concept of the HRV that orders the heads."),
                io.Combo.Input("order", options=list(ORDERS), tooltip="Which heads are weakened first."),
                io.Int.Input(
                    "heads",
                    default=11,
                    min=0,
                    max=65_535,
                    tooltip="How many heads to weaken, from the first of the order on; SD 1.x has 128, SDXL 1300.",
                ),
                _factor_input(
                    WEAKEN_FACTOR,
                    "What the words' attention is multiplied by in these heads; published: -2. 0 takes it away.",
                ),
                *strength_and_window(),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=False,
                    tooltip="Which random order; the other orders do not need it.",
                    advanced=True,
                ),
                occurrence_input(),
                io.Combo.Input(
                    "unit",
                    options=["heads", "percent"],
                    optional=True,
                    tooltip="Whether the number of heads is one, or a share of all heads.",
                    advanced=True,
                ),
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
        order: str,
        heads: int,
        factor: float,
        strength: float,
        start: float,
        end: float,
        seed: int,
        occurrence: str = "all",
        unit: str = "heads",
    ) -> io.NodeOutput:
        check_wiring(cls, CONTROL_NODES)
        require_fitting(hrv, model)
        window = Window(start, end)
        number = heads_of_percent(heads, hrv.layout.head_count) if unit == "percent" else heads
        return io.NodeOutput(
            *add_control(
                model,
                conditioning,
                split_words(words),
                lambda positions: weaken(hrv, concept, order, number, positions, strength, window, factor, seed),
                occurrence,
            )
        )


class ScaleHeads(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_ScaleHeads",
            display_name="Scale Heads",
            category=CATEGORY,
            description="Multiplies the attention to words by a factor in heads that you name; no HRV is needed.",
            search_aliases=["manual heads", "head set", "block weights", "ablation", "hrv"],
            inputs=[
                *control_connections(),
                words_input(default=ALL_WORDS),
                io.String.Input(
                    "heads",
                    default="mid",
                    multiline=True,
                    tooltip="Sections, blocks, transformers and heads, such as: down4.1:3,5 mid:0 up0-5. A term with ! "
                    "takes heads away: all !mid. Empty: none.",
                ),
                _factor_input(
                    0.0, "What the words' attention is multiplied by in these heads; 0 takes it away, 1 keeps it."
                ),
                *strength_and_window(),
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
        words: str,
        heads: str,
        factor: float,
        strength: float,
        start: float,
        end: float,
        occurrence: str = "all",
    ) -> io.NodeOutput:
        check_wiring(cls, CONTROL_NODES)
        layout = head_layout(model)
        head_positions = parse_heads(layout, heads)
        window = Window(start, end)
        return io.NodeOutput(
            *add_control(
                model,
                conditioning,
                split_words(words),
                lambda positions: scale_heads(layout, head_positions, factor, positions, strength, window),
                occurrence,
            )
        )
