"""Side Effects of Weakening: what each concept's heads do to every concept."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.files.results import output_place, save_texts
from ..host.page.texts import show_text
from ..host.work.places import THIS_MACHINE
from ..hrv.errors import HRVError, quoted
from ..hrv.weakening.pictures import side_effects_picture
from ..hrv.weakening.plan import parse_heads
from ..hrv.weakening.tables import side_effects_json, side_effects_table
from .examination import Examination
from .fields import split_words
from .input_groups import with_groups
from .inputs import factor_input, place_input
from .menu import TEST
from .node import Node
from .outputs import picture_output
from .places import place_hidden
from .sampling import Sampling
from .weakening_inputs import BY_FACTOR, concepts_input, factor_of, prefix_input


class SideEffectsOfWeakening(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_SideEffects",
            display_name="Side Effects of Weakening",
            category=TEST,
            description="Weakens the most relevant heads of one concept after another and scores every concept: what "
            "each loses by its own heads (diagonal), and by those of the others.",
            search_aliases=["concept matrix", "disentanglement", "specificity", "ablation", "ordered weakening"],
            is_output_node=True,
            inputs=[
                *Examination.inputs(concepts_input("all in common"), seeds=1, prompts=0),
                *Sampling.inputs(),
                io.String.Input(
                    "heads",
                    default="10%",
                    tooltip="How many of each concept's most relevant heads to weaken: a number or a share.",
                ),
                factor_input(
                    "factor",
                    0.0,
                    "What the attention to all words is multiplied by in weakened heads: 0 removes it; the published "
                    "-2 harms the other concepts too.",
                ),
                prefix_input("hrv/side-effects"),
                place_input(),
            ],
            outputs=[
                io.Image.Output(
                    "picture", tooltip="What is lost of each concept's score (columns) by each one's heads (rows)."
                ),
                io.String.Output("table", tooltip="The same as a table in Markdown, with 95 % intervals."),
                io.String.Output(
                    "json", display_name="JSON", tooltip="The matrix, all scores and provenance; also saved as a file."
                ),
            ],
            hidden=place_hidden(),
        )

    @classmethod
    @with_groups
    def execute(
        cls,
        examined: Examination,
        sampling: Sampling,
        concepts: str,
        heads: str,
        factor: float,
        filename_prefix: str,
        run_on: str = THIS_MACHINE,
    ) -> io.NodeOutput:
        number = parse_heads(heads, examined.head_count)
        if number in (0, examined.head_count):
            raise HRVError(
                f"heads {quoted(heads)} means {number} heads, the same for every concept: write some, such as 10%."
            )
        output_place(filename_prefix)
        checked = factor_of(BY_FACTOR, factor)
        found = examined.side_effects(cls, sampling, split_words(concepts), number, checked, run_on)
        table, json = side_effects_table(found), side_effects_json(found)
        (path,) = save_texts(filename_prefix, {".json": json})
        show_text(cls, f"{table}\nSaved as {path.name} in {path.parent.name}.")
        title = f"Score lost by factor {factor:g} in {number} heads of a concept, by {examined.scorer.name}"
        return picture_output(cls, side_effects_picture(found, title), table, json)
