"""Ordered weakening: images as ever more heads are weakened in an order (arXiv 2412.02237, section 4)."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.files.results import output_place
from ..host.page.texts import show_text
from ..host.work.places import THIS_MACHINE
from ..hrv.weakening.pictures import contact_sheet, curves_picture, summary_picture
from ..hrv.weakening.tables import findings_table
from .examination import Examination
from .fields import split_words
from .input_groups import with_groups
from .menu import TEST
from .node import Node
from .outputs import image_tensor, picture_output
from .places import place_hidden
from .sampling import Sampling
from .weakening_inputs import WeakenedHeads, concepts_input, one_concept_input, only, prefix_input, table_outputs
from .weakening_results import saved_findings


class OrderedWeakening(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_OrderedWeakening",
            display_name="Ordered Weakening Analysis",
            category=TEST,
            description="Tests whether the HRV ranks the heads that a concept needs: makes and scores images while "
            "more and more heads are weakened, the most relevant first, the least relevant first, and in "
            "random orders. If interrupted, the same analysis resumes.",
            search_aliases=["morhf", "lerhf", "validate hrv", "ablation study", "evaluate"],
            is_output_node=True,
            inputs=[
                *Examination.inputs(one_concept_input(), seeds=3, prompts=0),
                *Sampling.inputs(),
                *WeakenedHeads.inputs(
                    io.Boolean.Input(
                        "uniform",
                        default=False,
                        tooltip="Also weaken all heads alike, by the same mean factor: it shows what mere damage does.",
                    ),
                    io.Boolean.Input(
                        "save_images",
                        default=False,
                        tooltip="Save every image as a file beside the tables.",
                        advanced=True,
                    ),
                    prefix_input("hrv/weakening"),
                ),
            ],
            outputs=[
                io.Image.Output(
                    "curves", tooltip="Score against the number of heads weakened, a curve for every order."
                ),
                io.Image.Output(
                    "sheet", tooltip="The first prompt and seed: rows are orders, columns numbers of heads."
                ),
                io.String.Output("verdict", tooltip="Whether the HRV passes, in words and numbers."),
                *table_outputs(),
            ],
            hidden=place_hidden(),
        )

    @classmethod
    @with_groups
    def execute(
        cls,
        examined: Examination,
        sampling: Sampling,
        weakened: WeakenedHeads,
        concept: str,
        uniform: bool,
        save_images: bool,
        filename_prefix: str,
        run_on: str = THIS_MACHINE,
    ) -> io.NodeOutput:
        plan = weakened.plan(examined.head_count, uniform)
        folder, _ = output_place(filename_prefix)
        analysis = examined.analyse(cls, sampling, only(concept), plan, run_on, folder if save_images else None)
        (result,) = analysis.results
        (found,), csv, json, where = saved_findings(filename_prefix, analysis)
        show_text(cls, f"{found.sentence()}\n\n{where}")
        sheet = image_tensor(contact_sheet(result, analysis.sheet))
        return picture_output(cls, curves_picture(result, found), sheet, found.sentence(), csv, json)


class WeakeningSummary(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_WeakeningSummary",
            display_name="Ordered Weakening of All Concepts",
            category=TEST,
            description="The analysis for every concept that the HRV and the experiment share: a row each, with the "
            "area between the orders, rank agreement and p-value, as a picture and a table.",
            search_aliases=["morhf", "lerhf", "validate hrv", "evaluate all concepts", "summary"],
            is_output_node=True,
            inputs=[
                *Examination.inputs(concepts_input("all in common"), seeds=3, prompts=0),
                *Sampling.inputs(),
                *WeakenedHeads.inputs(prefix_input("hrv/weakening-summary")),
            ],
            outputs=[
                io.Image.Output("picture", tooltip="A row for each concept."),
                io.String.Output("table", tooltip="The same as a table in Markdown."),
                *table_outputs(),
            ],
            hidden=place_hidden(),
        )

    @classmethod
    @with_groups
    def execute(
        cls,
        examined: Examination,
        sampling: Sampling,
        weakened: WeakenedHeads,
        concepts: str,
        filename_prefix: str,
        run_on: str = THIS_MACHINE,
    ) -> io.NodeOutput:
        plan = weakened.plan(examined.head_count)
        output_place(filename_prefix)
        analysis = examined.analyse(cls, sampling, split_words(concepts), plan, run_on)
        findings, csv, json, where = saved_findings(filename_prefix, analysis)
        table = findings_table(findings)
        show_text(cls, f"{table}\n{where}")
        title = f"Ordered weakening by {plan.factors[0]:g}, scored by {examined.scorer.name}"
        return picture_output(cls, summary_picture(findings, title), table, csv, json)
