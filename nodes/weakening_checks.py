"""Ordered weakening for a question: whether an HRV holds on a checkpoint, and what other factors do."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..host.files.results import output_place
from ..host.page.texts import show_text
from ..host.work.places import THIS_MACHINE
from ..hrv.errors import HRVError, quoted
from ..hrv.scoring.experiments import spread
from ..hrv.weakening.pictures import factors_picture, summary_picture
from ..hrv.weakening.plan import Plan, concepts_to_analyse, parse_head_counts
from ..hrv.weakening.statistics import overall
from .examination import Examination
from .fields import split_words
from .input_groups import with_groups
from .inputs import LARGEST_FACTOR, place_input
from .menu import TEST
from .node import Node
from .outputs import image_tensor, picture_output
from .places import place_hidden
from .sampling import Sampling
from .weakening_inputs import (
    AS_PUBLISHED,
    WEAKENINGS,
    concepts_input,
    factor_of,
    head_counts_input,
    one_concept_input,
    only,
    prefix_input,
    table_outputs,
    weakening_input,
)
from .weakening_results import judged, saved_findings

QUICK_COUNTS = "9%, 27%"
"""Where orders differ most, for a check of few images."""

_MOST_CONCEPTS = 3
"""So many take some minutes; a user may name more."""


class QuickCheck(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_QuickCheck",
            display_name="HRV Quick Check",
            category=TEST,
            description="Does this HRV hold on this checkpoint? A small ordered weakening that says yes, weakly or "
            "no, with the numbers behind it. For a fine-tune, an HRV of a relative, or one from the "
            "internet.",
            search_aliases=["validate hrv", "does it hold", "trust", "fine-tune"],
            is_output_node=True,
            inputs=[
                *Examination.inputs(concepts_input(f"{_MOST_CONCEPTS} of those in common"), seeds=2, prompts=4),
                *Sampling.inputs(),
                place_input(),
                weakening_input(WEAKENINGS, AS_PUBLISHED),
            ],
            outputs=[
                io.String.Output("verdict", tooltip="Yes, weakly or no for all together, and for each concept."),
                io.Image.Output("picture", tooltip="A row for each concept."),
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
        run_on: str = THIS_MACHINE,
        weakening: str = AS_PUBLISHED,
    ) -> io.NodeOutput:
        plan = Plan(parse_head_counts(QUICK_COUNTS, examined.head_count), factors=(factor_of(weakening),))
        names = split_words(concepts)
        left: list[str] = []
        if not names:
            common = concepts_to_analyse(examined.hrv, examined.experiment.concepts, ())
            names = spread(common, _MOST_CONCEPTS)
            left = [concept for concept in common if concept not in names]
        analysis = examined.analyse(cls, sampling, names, plan, run_on)
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
        picture = image_tensor(summary_picture(findings, "Does this HRV hold here?"))
        return io.NodeOutput(verdict, picture, ui=ui.PreviewImage(picture, cls=cls))


class FactorSweep(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_FactorSweep",
            display_name="Ordered Weakening by Factor",
            category=TEST,
            description="Compares factors from -2 to 2 as a heat map, with the baseline that weakens all heads "
            "alike: it shows what the published -2 does that other factors, or mere damage, don't.",
            search_aliases=["factor sweep", "morhf", "lerhf", "uniform baseline", "rescaling"],
            is_output_node=True,
            inputs=[
                *Examination.inputs(one_concept_input(), seeds=2, prompts=0),
                *Sampling.inputs(),
                io.String.Input(
                    "factors",
                    default="-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2",
                    tooltip="What the attention to all words is multiplied by in weakened heads, separated by commas.",
                ),
                head_counts_input(
                    "10%, 25%, 50%", "How many heads to weaken, as numbers or shares; 0 and all are added."
                ),
                prefix_input("hrv/weakening-factors"),
                place_input(),
            ],
            outputs=[
                io.Image.Output("picture", tooltip="Score by order and factor (rows) and number of heads (columns)."),
                io.String.Output("areas", tooltip="The area between the orders at each factor."),
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
        concept: str,
        factors: str,
        head_counts: str,
        filename_prefix: str,
        run_on: str = THIS_MACHINE,
    ) -> io.NodeOutput:
        counts = parse_head_counts(head_counts, examined.head_count)
        plan = Plan(counts, 0, _factors(factors), uniform=True)
        output_place(filename_prefix)
        analysis = examined.analyse(cls, sampling, only(concept), plan, run_on)
        (result,) = analysis.results
        findings, csv, json, where = saved_findings(filename_prefix, analysis, plan.factors)
        areas = "\n".join(f"factor {found.factor:g}: area {found.area}" for found in findings)
        show_text(cls, f"{areas}\n\n{where}")
        return picture_output(cls, factors_picture(result), areas, csv, json)


def _factors(text: str) -> tuple[float, ...]:
    """Factors separated by commas."""
    try:
        factors = tuple(float(part) for part in split_words(text))
    except ValueError:
        raise HRVError(f"The factors {quoted(text)} aren't numbers: write some like -2, -1, 0, 1.") from None
    if any(not abs(factor) <= LARGEST_FACTOR for factor in factors):
        raise HRVError(
            f"The factors {quoted(text)} are too large: write some from {-LARGEST_FACTOR:g} to {LARGEST_FACTOR:g}."
        )
    return factors
