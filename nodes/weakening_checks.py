"""Ordered weakening for a question: whether an HRV holds on a checkpoint, and what other factors do."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..host.files.results import output_place
from ..host.page.texts import show_text
from ..hrv.errors import HRVError
from ..hrv.scoring.experiments import spread
from ..hrv.weakening.pictures import factors_picture, summary_picture
from ..hrv.weakening.plan import Plan, concepts_to_analyse, parse_head_counts
from ..hrv.weakening.statistics import overall
from .sockets import CATEGORY, split_words
from .weakening_inputs import (
    LARGEST_FACTOR,
    Examination,
    concepts_input,
    head_counts_input,
    judged,
    one_concept_input,
    only,
    prefix_input,
    saved_findings,
    shared_inputs,
    shown_pictures,
    table_outputs,
)

QUICK_COUNTS = "9%, 27%"
"""Where orders differ most, for a check of few images."""

_MOST_CONCEPTS = 3
"""So many take some minutes; a user may name more."""


class QuickCheck(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_QuickCheck",
            display_name="HRV Quick Check",
            category=CATEGORY,
            description="Does this HRV hold on this checkpoint? A small ordered weakening that says yes, weakly or no, "
            "with the numbers it rests on. For a fine-tune, an HRV of a relative, or one from the net.",
            search_aliases=["validate hrv", "does it hold", "trust", "fine-tune"],
            is_output_node=True,
            inputs=shared_inputs(concepts_input(f"{_MOST_CONCEPTS} of those in common"), seeds=2, prompts=4),
            outputs=[
                io.String.Output("verdict", tooltip="Yes, weakly or no for all together, and for each concept."),
                io.Image.Output("picture", tooltip="A row for each concept."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, concepts: str, **shared: Any) -> io.NodeOutput:
        examined = Examination.of(**shared)
        plan = Plan(parse_head_counts(QUICK_COUNTS, examined.head_count))
        names = split_words(concepts)
        left: list[str] = []
        if not names:
            common = concepts_to_analyse(examined.hrv, examined.experiment.concepts, ())
            names = spread(common, _MOST_CONCEPTS)
            left = [concept for concept in common if concept not in names]
        analysis = examined.analyse(cls, names, plan)
        findings, errors = judged(analysis)
        if not findings:
            raise HRVError(errors[0])
        images = sum(result.scores.size for result in analysis.results)
        verdict = "\n".join(
            [
                f"Does this HRV hold here? {overall(findings).capitalize()}.",
                *(found.sentence() for found in findings),
                *errors,
                *([f"Left out for time, name them to check them: {', '.join(left)}."] if left else []),
                f"From {images} images: a quick check can miss a weak effect. Ordered Weakening Analysis is surer.",
            ]
        )
        show_text(cls, verdict)
        (picture,), shown = shown_pictures(cls, [summary_picture(findings, "Does this HRV hold here?")])
        return io.NodeOutput(verdict, picture, ui=shown)


class FactorSweep(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_FactorSweep",
            display_name="Ordered Weakening by Factor",
            category=CATEGORY,
            description="The analysis over factors from -2 to 2 as a heat map, with the baseline that weakens all "
            "heads alike: what the published -2 does that another factor, or mere damage, does not.",
            search_aliases=["factor sweep", "morhf", "lerhf", "uniform baseline", "rescaling"],
            is_output_node=True,
            inputs=[
                *shared_inputs(one_concept_input(), seeds=2, prompts=0),
                io.String.Input(
                    "factors",
                    default="-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2",
                    tooltip="What the attention to all words is multiplied by in weakened heads, separated by commas.",
                ),
                head_counts_input(
                    "10%, 25%, 50%", "How many heads to weaken, as numbers or shares; 0 and all are added."
                ),
                prefix_input("hrv/weakening-factors"),
            ],
            outputs=[
                io.Image.Output("picture", tooltip="Score by order and factor (rows) and number of heads (columns)."),
                io.String.Output("areas", tooltip="The area between the orders at each factor."),
                *table_outputs(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        concept: str,
        factors: str,
        head_counts: str,
        filename_prefix: str,
        **shared: Any,
    ) -> io.NodeOutput:
        examined = Examination.of(**shared)
        counts = parse_head_counts(head_counts, examined.head_count)
        plan = Plan(counts, 0, _factors(factors), uniform=True)
        output_place(filename_prefix)
        analysis = examined.analyse(cls, only(concept), plan)
        (result,) = analysis.results
        findings, csv, json, where = saved_findings(filename_prefix, analysis, plan.factors)
        areas = "\n".join(f"factor {found.factor:g}: area {found.area}" for found in findings)
        show_text(cls, f"{areas}\n\n{where}")
        (picture,), shown = shown_pictures(cls, [factors_picture(result)])
        return io.NodeOutput(picture, areas, csv, json, ui=shown)


def _factors(text: str) -> tuple[float, ...]:
    """Factors separated by commas."""
    try:
        factors = tuple(float(part) for part in split_words(text))
    except ValueError:
        raise HRVError(f"The factors {text!r} are no numbers: write some like -2, -1, 0, 1.") from None
    if any(not abs(factor) <= LARGEST_FACTOR for factor in factors):
        raise HRVError(f"The factors {text!r} go too far: write some from {-LARGEST_FACTOR:g} to {LARGEST_FACTOR:g}.")
    return factors
