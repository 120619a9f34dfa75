"""Merge, pick, average, clamp, rank and compare HRVs."""

from __future__ import annotations

import json

from comfy_api.latest import io

from ..hrv.relevance.arithmetic import clamp, mean, merge, pick
from ..hrv.relevance.comparison import COSINE, MEASURES, comparison_picture, require_room
from ..hrv.relevance.ranking import ranking_text, top_heads
from ..hrv.relevance.vectors import HRV
from .fields import split_words
from .menu import COMBINE, LOOK
from .node import Node
from .outputs import picture_output, text_output
from .sockets import HRVSocket

MOST_HRVS = 64


def _several(tooltip: str) -> io.Autogrow.Input:
    template = io.Autogrow.TemplatePrefix(HRVSocket.Input("hrv", tooltip=tooltip), prefix="hrv", min=2, max=MOST_HRVS)
    return io.Autogrow.Input("hrvs", template=template)


def _output(tooltip: str) -> io.Output:
    return HRVSocket.Output("hrv", display_name="HRV", tooltip=tooltip)


class Merge(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_Merge",
            display_name="Merge HRVs",
            category=COMBINE,
            description="Combines HRVs: builds with the same concepts and settings add up to one build over all "
            "their images; HRVs with different concepts for the same kind of model become one HRV with "
            "all concepts.",
            search_aliases=["combine hrv", "add counts", "shards", "concatenate"],
            inputs=[_several("Of the same kind of model as the others; a new input appears as you connect.")],
            outputs=[_output("All concepts of all inputs; with counts if they are builds of the same concepts.")],
        )

    @classmethod
    def execute(cls, hrvs: io.Autogrow.Type) -> io.NodeOutput:
        return io.NodeOutput(merge(list(hrvs.values())))


class Mean(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_Mean",
            display_name="HRV Mean",
            category=COMBINE,
            description="Averages several HRVs with the same concepts, for example of related checkpoints. For "
            "builds of one checkpoint use Merge HRVs: their counts add up exactly.",
            search_aliases=["average hrv", "blend"],
            inputs=[_several("With the same concepts and of the same kind of model as the others.")],
            outputs=[_output("The same concepts, every element the mean of the inputs'.")],
        )

    @classmethod
    def execute(cls, hrvs: io.Autogrow.Type) -> io.NodeOutput:
        return io.NodeOutput(mean(list(hrvs.values())))


class PickConcepts(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_PickConcepts",
            display_name="Pick Concepts",
            category=COMBINE,
            description="Keeps some concepts of an HRV, in the order you list them. Their values stay as they are.",
            search_aliases=["select concepts", "subset", "filter hrv", "reorder"],
            inputs=[
                HRVSocket.Input("hrv", tooltip="The HRV to pick from; it stays as it is."),
                io.String.Input("concepts", default="Color", tooltip="Concepts to keep, separated by commas."),
            ],
            outputs=[_output("The concepts you named, in that order.")],
        )

    @classmethod
    def execute(cls, hrv: HRV, concepts: str) -> io.NodeOutput:
        return io.NodeOutput(pick(hrv, split_words(concepts)))


class Clamp(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_Clamp",
            display_name="HRV Clamp",
            category=COMBINE,
            description="Limits the elements of an HRV, so that no single head is scaled beyond the limit.",
            search_aliases=["limit hrv", "maximum", "clip values"],
            inputs=[
                HRVSocket.Input("hrv", tooltip="The HRV to limit; it stays as it is."),
                io.Float.Input(
                    "limit",
                    default=9.0,
                    min=0.01,
                    max=1000.0,
                    step=0.5,
                    tooltip="Largest relevance; 1 is an average head. Published: 9 for SDXL, none for SD 1.x.",
                ),
            ],
            outputs=[_output("The same HRV with nothing above the limit.")],
        )

    @classmethod
    def execute(cls, hrv: HRV, limit: float) -> io.NodeOutput:
        return io.NodeOutput(clamp(hrv, limit))


class Rank(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_Rank",
            display_name="HRV Rank",
            category=LOOK,
            description="Lists the most relevant heads of every concept, as text to read and as JSON.",
            search_aliases=["top heads", "ranking", "morhf", "most relevant"],
            is_output_node=True,
            inputs=[
                HRVSocket.Input("hrv", tooltip="From Build HRV or Load HRV."),
                io.String.Input(
                    "concepts", default="", tooltip="Concepts to rank, separated by commas; empty for all."
                ),
                io.Int.Input("top_k", default=10, min=1, max=100_000, tooltip="Heads to list for each concept."),
            ],
            outputs=[
                io.String.Output("text", display_name="text", tooltip="What the node shows: a line for each head."),
                io.String.Output(
                    "json", display_name="JSON", tooltip="For each concept a list of heads with layer and relevance."
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, hrv: HRV, concepts: str, top_k: int) -> io.NodeOutput:
        ranked = top_heads(hrv, split_words(concepts) or None, count=top_k)
        text = ranking_text(ranked)
        return text_output(cls, text, text, json.dumps(ranked))


class Compare(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_Compare",
            display_name="Compare HRVs (image)",
            category=LOOK,
            description="Draws how similar concepts are, for every pair within one HRV or between two: the cosine of "
            "their vectors, how much of one's relevance lies in the other's top heads, or whether their heads rank "
            "alike.",
            search_aliases=["cosine", "similarity", "correlation", "matrix", "rank agreement", "top heads"],
            is_output_node=True,
            inputs=[
                HRVSocket.Input(
                    "hrv", tooltip="Its concepts are the rows, and if there is no second HRV, also the columns."
                ),
                HRVSocket.Input("other", optional=True, tooltip="Its concepts are the columns."),
                io.String.Input(
                    "concepts",
                    default="",
                    tooltip="Concepts to compare, separated by commas; empty for all. With two HRVs: of both.",
                ),
                io.Combo.Input(
                    "measure",
                    options=list(MEASURES),
                    default=COSINE,
                    optional=True,
                    tooltip="'cosine' of the vectors; 'shared relevance': how much of the row's relevance lies in the "
                    "column's top heads, a sixteenth of all; 'rank agreement' of all heads, from -1 to 1.",
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="The matrix, with the names of its rows and columns."),
                io.String.Output("json", display_name="JSON", tooltip="Names of rows and columns, and the numbers."),
            ],
        )

    @classmethod
    def execute(cls, hrv: HRV, concepts: str, other: HRV | None = None, measure: str = COSINE) -> io.NodeOutput:
        names = split_words(concepts)
        rows, columns = (pick(each, names) if names else each for each in (hrv, other or hrv))
        require_room(len(rows.concepts), len(columns.concepts))
        matrix = MEASURES[measure][0](rows, columns)
        title = "Concepts of one HRV" if other is None else "Rows: hrv. Columns: other."
        picture = comparison_picture(matrix, rows.concepts, columns.concepts, measure, title=title)
        name = "cosines" if measure == COSINE else measure.replace(" ", "_")
        table = {"rows": rows.concepts, "columns": columns.concepts, name: matrix.tolist()}
        return picture_output(cls, picture, json.dumps(table))
