"""Ordered weakening: images as ever more heads are weakened in an order (arXiv 2412.02237, section 4)."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..host.files.results import output_place
from ..host.page.texts import show_text
from ..hrv.weakening.pictures import contact_sheet, curves_picture, summary_picture
from ..hrv.weakening.plan import Plan, parse_head_counts
from ..hrv.weakening.tables import findings_table
from .sockets import CATEGORY, split_words
from .weakening_inputs import (
    ALL_COUNTS,
    Examination,
    concepts_input,
    factor_input,
    head_counts_input,
    one_concept_input,
    only,
    order_seed_input,
    prefix_input,
    random_orders_input,
    saved_findings,
    shared_inputs,
    shown_pictures,
    table_outputs,
    weakening,
)


class OrderedWeakening(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_OrderedWeakening",
            display_name="Ordered Weakening Analysis",
            category=CATEGORY,
            description="Makes images while ever more heads are weakened, the most relevant of a concept first, the "
            "least relevant first, and in random orders, and scores them: whether the HRV found the heads that the "
            "concept needs. Cancelled or cut off, the same analysis goes on where it was.",
            search_aliases=["morhf", "lerhf", "validate hrv", "ablation study", "evaluate"],
            is_output_node=True,
            inputs=[
                *shared_inputs(one_concept_input(), seeds=3, prompts=0),
                head_counts_input("", ALL_COUNTS),
                random_orders_input(),
                factor_input(),
                io.Boolean.Input(
                    "uniform",
                    default=False,
                    tooltip="Also weaken all heads alike, as much as the others do as a mean: what mere damage does.",
                ),
                io.Boolean.Input(
                    "save_images", default=False, tooltip="Keep every image as a file beside the tables.", advanced=True
                ),
                prefix_input("hrv/weakening"),
                order_seed_input(),
            ],
            outputs=[
                io.Image.Output("curves", tooltip="Score over the number of heads weakened, a curve for every order."),
                io.Image.Output(
                    "sheet", tooltip="The first prompt and seed: rows are orders, columns numbers of heads."
                ),
                io.String.Output("verdict", tooltip="Whether the HRV separates, in words and numbers."),
                *table_outputs(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        concept: str,
        head_counts: str,
        random_orders: int,
        factor: float,
        uniform: bool,
        save_images: bool,
        filename_prefix: str,
        order_seed: int,
        **shared: Any,
    ) -> io.NodeOutput:
        examined = Examination.of(**shared)
        counts = parse_head_counts(head_counts, examined.head_count)
        plan = Plan(counts, random_orders, (weakening(factor),), uniform, order_seed)
        folder, _ = output_place(filename_prefix)
        analysis = examined.analyse(cls, only(concept), plan, images=folder if save_images else None)
        (result,) = analysis.results
        (found,), csv, json, where = saved_findings(filename_prefix, analysis)
        show_text(cls, f"{found.sentence()}\n\n{where}")
        (curves, sheet), shown = shown_pictures(
            cls, [curves_picture(result, found), contact_sheet(result, analysis.sheet)]
        )
        return io.NodeOutput(curves, sheet, found.sentence(), csv, json, ui=shown)


class WeakeningSummary(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_WeakeningSummary",
            display_name="Ordered Weakening of All Concepts",
            category=CATEGORY,
            description="The analysis for every concept that the HRV and the experiment have in common: a row each, "
            "with the area between the orders, rank agreement and p-value, as a picture and a table.",
            search_aliases=["morhf", "lerhf", "validate hrv", "evaluate all concepts", "summary"],
            is_output_node=True,
            inputs=[
                *shared_inputs(concepts_input("all in common"), seeds=3, prompts=0),
                head_counts_input("", ALL_COUNTS),
                random_orders_input(),
                factor_input(),
                prefix_input("hrv/weakening-summary"),
                order_seed_input(),
            ],
            outputs=[
                io.Image.Output("picture", tooltip="A row for each concept."),
                io.String.Output("table", tooltip="The same as a table in Markdown."),
                *table_outputs(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        concepts: str,
        head_counts: str,
        random_orders: int,
        factor: float,
        filename_prefix: str,
        order_seed: int,
        **shared: Any,
    ) -> io.NodeOutput:
        examined = Examination.of(**shared)
        counts = parse_head_counts(head_counts, examined.head_count)
        plan = Plan(counts, random_orders, (weakening(factor),), order_seed=order_seed)
        output_place(filename_prefix)
        analysis = examined.analyse(cls, split_words(concepts), plan)
        findings, csv, json, where = saved_findings(filename_prefix, analysis)
        table = findings_table(findings)
        show_text(cls, f"{table}\n{where}")
        title = f"Ordered weakening by {factor:g}, scored by {examined.scorer.name}"
        (picture,), shown = shown_pictures(cls, [summary_picture(findings, title)])
        return io.NodeOutput(picture, table, csv, json, ui=shown)
