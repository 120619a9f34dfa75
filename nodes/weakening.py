"""Ordered weakening: images as ever more heads are weakened in an order (arXiv 2412.02237, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from comfy_api.latest import io, ui
from PIL import Image

from ..host.head_layout import head_layout
from ..host.node_text import show_text
from ..host.result_files import output_place, save_texts
from ..host.weakening_run import Analysis, WeakeningSettings, analyse_weakening
from ..hrv.controls import WEAKEN_FACTOR
from ..hrv.errors import HRVError
from ..hrv.experiments import Case, Experiment
from ..hrv.vectors import HRV
from ..hrv.weakening import Plan, concepts_to_analyse, parse_head_counts
from ..hrv.weakening_pictures import contact_sheet, curves_picture, factors_picture, summary_picture
from ..hrv.weakening_statistics import Finding, finding, overall
from ..hrv.weakening_tables import findings_table, results_json, scores_csv
from .sockets import (
    CATEGORY,
    ExperimentSocket,
    HRVSocket,
    ScorerSocket,
    image_tensor,
    sampling_inputs,
    split_words,
)

QUICK_COUNTS = "9%, 27%"
"""Where orders differ most, for a check of few images."""


def _connections() -> list[Any]:
    """What every analysis is of."""
    return [
        io.Model.Input("model", tooltip="The model that the HRV is to be trusted on."),
        io.Clip.Input("clip", tooltip="Its text encoder."),
        io.Vae.Input("vae", tooltip="Its VAE: scorers look at finished images."),
        HRVSocket.Input("hrv", tooltip="The HRV to examine."),
        ScorerSocket.Input("scorer", tooltip="What tells how well an image shows a word: one of the Scorer nodes."),
        ExperimentSocket.Input("experiment", tooltip="The prompts, from HRV Experiment."),
    ]


def _seeds_inputs(seeds: int, prompts: int) -> list[Any]:
    return [
        io.Int.Input("seeds", default=seeds, min=1, max=1000, tooltip="Images of every prompt, each with its seed."),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**63 - 1,
            control_after_generate=False,
            tooltip="The first of the seeds; the others follow. An image is the one that KSampler makes of its seed.",
        ),
        io.Int.Input(
            "prompts",
            default=prompts,
            min=0,
            max=10_000,
            tooltip="At most so many prompts of each concept, evenly spread through the experiment; 0 for all.",
        ),
    ]


def _random_orders_input() -> Any:
    return io.Int.Input(
        "random_orders",
        default=3,
        min=0,
        max=100,
        tooltip="Random orders, each forwards and backwards: what chance gives. Without them nothing can be sure.",
    )


def _factor_input() -> Any:
    return io.Float.Input(
        "factor",
        default=WEAKEN_FACTOR,
        min=-10.0,
        max=10.0,
        step=0.1,
        tooltip="What the attention to all words is multiplied by in weakened heads; published: -2.",
    )


def _head_counts_input(default: str, tooltip: str) -> Any:
    return io.String.Input("head_counts", default=default, tooltip=tooltip)


def _order_seed_input() -> Any:
    return io.Int.Input(
        "order_seed",
        default=0,
        min=0,
        max=2**63 - 1,
        control_after_generate=False,
        tooltip="Of the first random order; Weaken Heads by Order makes the same order of the same seed.",
        advanced=True,
    )


def _prefix_input(default: str) -> Any:
    return io.String.Input(
        "filename_prefix", default=default, tooltip="Where the tables go in the output folder, as in Save Image."
    )


def _table_outputs() -> list[Any]:
    return [
        io.String.Output("csv", display_name="CSV", tooltip="Every image's score; also saved as a file."),
        io.String.Output("json", display_name="JSON", tooltip="Findings, curves and provenance; also saved as a file."),
    ]


def _settings(
    seeds: int,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    width: int,
    height: int,
    batch_size: int,
    negative: str,
) -> WeakeningSettings:
    return WeakeningSettings(
        seeds=tuple(range(seed, seed + seeds)),
        steps=steps,
        cfg=cfg,
        sampler_name=sampler_name,
        scheduler=scheduler,
        width=width,
        height=height,
        batch_size=batch_size,
        negative=negative,
    )


def _chosen(hrv: HRV, experiment: Experiment, concepts: Sequence[str], prompts: int) -> dict[str, tuple[Case, ...]]:
    """The cases of some concepts, or of all that the HRV and the experiment have in common."""
    names = concepts_to_analyse(hrv, experiment.concepts, concepts)
    return {name: experiment.of(name, prompts) for name in names}


def _only(concept: str) -> list[str]:
    if not concept.strip():
        raise HRVError("No concept was given: write one that the HRV and the experiment have.")
    return [concept]


def _save(prefix: str, analysis: Analysis, findings: Sequence[Finding]) -> tuple[str, str, str]:
    """Save the tables; return CSV, JSON and a line that says where they are."""
    texts = {".csv": scores_csv(analysis.results), ".json": results_json(analysis.results, findings)}
    paths = save_texts(prefix, texts)
    return texts[".csv"], texts[".json"], f"Saved as {paths[0].name} and {paths[1].name} in {paths[0].parent.name}."


def _shown(node: type[io.ComfyNode], pictures: Sequence[Image.Image]) -> tuple[list[Any], Any]:
    """Pictures as IMAGEs, and the first of them on the node."""
    images = [image_tensor(picture) for picture in pictures]
    return images, ui.PreviewImage(images[0], cls=node)


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
                *_connections(),
                io.String.Input("concept", default="Color", tooltip="One concept of the HRV and the experiment."),
                *_seeds_inputs(3, 0),
                *sampling_inputs(),
                _head_counts_input(
                    "", "How many heads to weaken, such as 0, 11, 25%; empty for the published numbers of this layout."
                ),
                _random_orders_input(),
                _factor_input(),
                io.Boolean.Input(
                    "uniform",
                    default=False,
                    tooltip="Also weaken all heads alike, as much as the others do as a mean: what mere damage does.",
                ),
                io.Boolean.Input(
                    "save_images", default=False, tooltip="Keep every image as a file beside the tables.", advanced=True
                ),
                _prefix_input("hrv/weakening"),
                _order_seed_input(),
            ],
            outputs=[
                io.Image.Output("curves", tooltip="Score over the number of heads weakened, a curve for every order."),
                io.Image.Output(
                    "sheet", tooltip="The first prompt and seed: rows are orders, columns numbers of heads."
                ),
                io.String.Output("verdict", tooltip="Whether the HRV separates, in words and numbers."),
                *_table_outputs(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        hrv: HRV,
        scorer: Any,
        experiment: Experiment,
        concept: str,
        seeds: int,
        seed: int,
        prompts: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        width: int,
        height: int,
        batch_size: int,
        negative: str,
        head_counts: str,
        random_orders: int,
        factor: float,
        uniform: bool,
        save_images: bool,
        filename_prefix: str,
        order_seed: int,
    ) -> io.NodeOutput:
        counts = parse_head_counts(head_counts, head_layout(model).head_count)
        plan = Plan(counts, random_orders, (factor,), uniform, order_seed)
        settings = _settings(seeds, seed, steps, cfg, sampler_name, scheduler, width, height, batch_size, negative)
        chosen = _chosen(hrv, experiment, _only(concept), prompts)
        folder, _ = output_place(filename_prefix)
        analysis = analyse_weakening(
            model, clip, vae, hrv, scorer, chosen, plan, settings,
            images=folder if save_images else None,
            report=lambda text: show_text(cls, text),
        )  # fmt: skip
        (result,) = analysis.results
        found = finding(result)
        csv, json, where = _save(filename_prefix, analysis, [found])
        show_text(cls, f"{found.sentence()}\n\n{where}")
        (curves, sheet), shown = _shown(cls, [curves_picture(result, found), contact_sheet(result, analysis.sheet)])
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
                *_connections(),
                io.String.Input(
                    "concepts", default="", tooltip="Some concepts, separated by commas; empty for all in common."
                ),
                *_seeds_inputs(3, 0),
                *sampling_inputs(),
                _head_counts_input(
                    "", "How many heads to weaken, such as 0, 11, 25%; empty for the published numbers of this layout."
                ),
                _random_orders_input(),
                _factor_input(),
                _prefix_input("hrv/weakening-summary"),
                _order_seed_input(),
            ],
            outputs=[
                io.Image.Output("picture", tooltip="A row for each concept."),
                io.String.Output("table", tooltip="The same as a table in Markdown."),
                *_table_outputs(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        hrv: HRV,
        scorer: Any,
        experiment: Experiment,
        concepts: str,
        seeds: int,
        seed: int,
        prompts: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        width: int,
        height: int,
        batch_size: int,
        negative: str,
        head_counts: str,
        random_orders: int,
        factor: float,
        filename_prefix: str,
        order_seed: int,
    ) -> io.NodeOutput:
        counts = parse_head_counts(head_counts, head_layout(model).head_count)
        plan = Plan(counts, random_orders, (factor,), order_seed=order_seed)
        settings = _settings(seeds, seed, steps, cfg, sampler_name, scheduler, width, height, batch_size, negative)
        chosen = _chosen(hrv, experiment, split_words(concepts), prompts)
        output_place(filename_prefix)
        analysis = analyse_weakening(
            model, clip, vae, hrv, scorer, chosen, plan, settings, report=lambda text: show_text(cls, text)
        )
        findings = [finding(result) for result in analysis.results]
        csv, json, where = _save(filename_prefix, analysis, findings)
        table = findings_table(findings)
        show_text(cls, f"{table}\n{where}")
        title = f"Ordered weakening by {factor:g}, scored by {scorer.name}"
        (picture,), shown = _shown(cls, [summary_picture(findings, title)])
        return io.NodeOutput(picture, table, csv, json, ui=shown)


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
            inputs=[
                *_connections(),
                io.String.Input(
                    "concepts", default="", tooltip="Some concepts, separated by commas; empty for all in common."
                ),
                *_seeds_inputs(2, 4),
                *sampling_inputs(),
            ],
            outputs=[
                io.String.Output("verdict", tooltip="Yes, weakly or no for all together, and for each concept."),
                io.Image.Output("picture", tooltip="A row for each concept."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        hrv: HRV,
        scorer: Any,
        experiment: Experiment,
        concepts: str,
        seeds: int,
        seed: int,
        prompts: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        width: int,
        height: int,
        batch_size: int,
        negative: str,
    ) -> io.NodeOutput:
        plan = Plan(parse_head_counts(QUICK_COUNTS, head_layout(model).head_count))
        settings = _settings(seeds, seed, steps, cfg, sampler_name, scheduler, width, height, batch_size, negative)
        chosen = _chosen(hrv, experiment, split_words(concepts), prompts)
        analysis = analyse_weakening(
            model, clip, vae, hrv, scorer, chosen, plan, settings, report=lambda text: show_text(cls, text)
        )
        findings = [finding(result) for result in analysis.results]
        images = sum(result.scores.size for result in analysis.results)
        verdict = "\n".join(
            [
                f"Does this HRV hold here? {overall(findings).capitalize()}.",
                *(found.sentence() for found in findings),
                f"From {images} images: a quick check can miss a weak effect. Ordered Weakening Analysis is surer.",
            ]
        )
        show_text(cls, verdict)
        (picture,), shown = _shown(cls, [summary_picture(findings, "Does this HRV hold here?")])
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
                *_connections(),
                io.String.Input("concept", default="Color", tooltip="One concept of the HRV and the experiment."),
                *_seeds_inputs(2, 0),
                *sampling_inputs(),
                io.String.Input(
                    "factors",
                    default="-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2",
                    tooltip="What the attention to all words is multiplied by in weakened heads, separated by commas.",
                ),
                _head_counts_input(
                    "10%, 25%, 50%", "How many heads to weaken, as numbers or shares; 0 and all are added."
                ),
                _prefix_input("hrv/weakening-factors"),
            ],
            outputs=[
                io.Image.Output("picture", tooltip="Score by order and factor (rows) and number of heads (columns)."),
                io.String.Output("areas", tooltip="The area between the orders at each factor."),
                *_table_outputs(),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        vae: Any,
        hrv: HRV,
        scorer: Any,
        experiment: Experiment,
        concept: str,
        seeds: int,
        seed: int,
        prompts: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        width: int,
        height: int,
        batch_size: int,
        negative: str,
        factors: str,
        head_counts: str,
        filename_prefix: str,
    ) -> io.NodeOutput:
        counts = parse_head_counts(head_counts, head_layout(model).head_count)
        plan = Plan(counts, 0, _factors(factors), uniform=True)
        settings = _settings(seeds, seed, steps, cfg, sampler_name, scheduler, width, height, batch_size, negative)
        chosen = _chosen(hrv, experiment, _only(concept), prompts)
        output_place(filename_prefix)
        analysis = analyse_weakening(
            model, clip, vae, hrv, scorer, chosen, plan, settings, report=lambda text: show_text(cls, text)
        )
        (result,) = analysis.results
        findings = [finding(result, factor) for factor in plan.factors]
        areas = "\n".join(f"factor {found.factor:g}: area {found.area}" for found in findings)
        csv, json, where = _save(filename_prefix, analysis, findings)
        show_text(cls, f"{areas}\n\n{where}")
        (picture,), shown = _shown(cls, [factors_picture(result)])
        return io.NodeOutput(picture, areas, csv, json, ui=shown)


def _factors(text: str) -> tuple[float, ...]:
    """Factors separated by commas."""
    try:
        return tuple(float(part) for part in split_words(text))
    except ValueError:
        raise HRVError(f"The factors {text!r} are no numbers: write some like -2, -1, 0, 1.") from None
