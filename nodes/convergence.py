"""HRV Convergence: how settled a build is, as a picture."""

from __future__ import annotations

from comfy_api.latest import io

from ..hrv.building.convergence_picture import convergence_picture, curve_of
from ..hrv.relevance.vectors import HRV
from .menu import MAKE
from .node import Node
from .outputs import picture_output
from .sockets import HRVSocket


class Convergence(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_Convergence",
            display_name="HRV Convergence (image)",
            category=MAKE,
            description="Draws how the rankings of a build settled as images were added: how well two halves of its "
            "images agree, and how well the whole is expected to agree with an endless build.",
            search_aliases=["plot convergence", "split half", "how many images", "agreement"],
            is_output_node=True,
            inputs=[HRVSocket.Input("hrv", tooltip="From Build HRV, or from Load HRV of a file it made.")],
            outputs=[io.Image.Output(tooltip="The curves.")],
        )

    @classmethod
    def execute(cls, hrv: HRV) -> io.NodeOutput:
        return picture_output(cls, convergence_picture(curve_of(hrv), "Convergence of the build"))
