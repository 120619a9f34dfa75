"""HRV Heat Map: relevances of all heads as a picture."""

from __future__ import annotations

from comfy_api.latest import io

from ..hrv.relevance.heat_map import heat_map
from ..hrv.relevance.vectors import HRV
from .fields import split_words
from .menu import LOOK
from .node import Node
from .outputs import picture_output
from .sockets import HRVSocket


class HeatMap(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_HeatMap",
            display_name="HRV Heat Map (image)",
            category=LOOK,
            description="Draws the relevance of every head position (layers down, heads across), a panel per concept.",
            search_aliases=["plot hrv", "show heads", "visualize", "heatmap"],
            is_output_node=True,
            inputs=[
                HRVSocket.Input("hrv", tooltip="From Build HRV or Load HRV."),
                io.String.Input(
                    "concepts",
                    default="",
                    tooltip="Concepts to draw, separated by commas, in this order; empty for all.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="One picture with all panels.")],
        )

    @classmethod
    def execute(cls, hrv: HRV, concepts: str) -> io.NodeOutput:
        return picture_output(cls, heat_map(hrv, split_words(concepts) or None))
