"""What the nodes for ordered weakening share: inputs, and the analysis behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from comfy_api.latest import io, ui
from PIL import Image

from ..host.files.results import save_texts
from ..host.models.layouts import head_layout
from ..host.page.texts import show_text
from ..host.weakening.run import Analysis, WeakeningSettings, analyse_weakening
from ..hrv.errors import HRVError
from ..hrv.relevance.orders import WEAKEN_FACTOR
from ..hrv.relevance.vectors import HRV
from ..hrv.scoring.experiments import Experiment
from ..hrv.scoring.scorer import Scorer
from ..hrv.weakening.plan import Plan, concepts_to_analyse
from ..hrv.weakening.statistics import Finding, finding
from ..hrv.weakening.tables import results_json, scores_csv
from .sockets import ExperimentSocket, HRVSocket, ScorerSocket, image_tensor, sampling_inputs

ALL_COUNTS = "How many heads to weaken, such as 0, 11, 25%; empty for the published numbers of this layout."

LARGEST_FACTOR = 10.0
"""How far factors go, above and below 0."""


def shared_inputs(concept: Any, seeds: int, prompts: int) -> list[Any]:
    """The inputs of :class:`Examination` with one for concepts among them; numbers of seeds and prompts by default."""
    return [
        io.Model.Input("model", tooltip="The model that the HRV is to be trusted on."),
        io.Clip.Input("clip", tooltip="Its text encoder."),
        io.Vae.Input("vae", tooltip="Its VAE: scorers look at finished images."),
        HRVSocket.Input("hrv", tooltip="The HRV to examine."),
        ScorerSocket.Input("scorer", tooltip="What tells how well an image shows a word: one of the Scorer nodes."),
        ExperimentSocket.Input("experiment", tooltip="The prompts, from HRV Experiment."),
        concept,
        io.Int.Input("seeds", default=seeds, min=1, max=1000, tooltip="Images of every prompt, each with its seed."),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=2**63 - 1,
            control_after_generate=False,
            tooltip="The first of the seeds; the others follow. An image is the one that KSampler makes of its seed "
            "(with samplers that add noise on the way: at batch_size 1).",
        ),
        io.Int.Input(
            "prompts",
            default=prompts,
            min=0,
            max=10_000,
            tooltip="At most so many prompts of each concept, evenly spread through the experiment; 0 for all.",
        ),
        *sampling_inputs(),
    ]


def one_concept_input() -> Any:
    return io.String.Input("concept", default="Color", tooltip="One concept of the HRV and the experiment.")


def concepts_input(without: str) -> Any:
    """A field for concepts; ``without`` says which are meant by an empty one."""
    return io.String.Input("concepts", default="", tooltip=f"Some concepts, separated by commas; empty for {without}.")


def random_orders_input() -> Any:
    return io.Int.Input(
        "random_orders",
        default=3,
        min=0,
        max=100,
        tooltip="Random orders, each forwards and backwards: what chance gives. Without them nothing can be sure.",
    )


def factor_input() -> Any:
    return io.Float.Input(
        "factor",
        default=WEAKEN_FACTOR,
        min=-LARGEST_FACTOR,
        max=LARGEST_FACTOR,
        step=0.1,
        tooltip="What the attention to all words is multiplied by in weakened heads; published: -2.",
    )


def head_counts_input(default: str, tooltip: str) -> Any:
    return io.String.Input("head_counts", default=default, tooltip=tooltip)


def order_seed_input() -> Any:
    return io.Int.Input(
        "order_seed",
        default=0,
        min=0,
        max=2**63 - 1,
        control_after_generate=False,
        tooltip="Of the first random order; Weaken Heads by Order makes the same order of the same seed.",
        advanced=True,
    )


def prefix_input(default: str) -> Any:
    return io.String.Input(
        "filename_prefix", default=default, tooltip="Where the tables go in the output folder, as in Save Image."
    )


def table_outputs() -> list[Any]:
    return [
        io.String.Output("csv", display_name="CSV", tooltip="Every image's score; also saved as a file."),
        io.String.Output("json", display_name="JSON", tooltip="Findings, curves and provenance; also saved as a file."),
    ]


def weakening(factor: float) -> float:
    """The factor of a field. Raises HRVError for one that changes nothing."""
    if factor == 1.0:
        raise HRVError("factor is 1, which weakens no head: the published one is -2, and 0 takes heads out.")
    return factor


def only(concept: str) -> list[str]:
    """The one concept of a field. Raises HRVError if it is empty."""
    if not concept.strip():
        raise HRVError("No concept was given: write one that the HRV and the experiment have.")
    return [concept]


@dataclass(frozen=True)
class Examination:
    """What is examined and how its images are made, as :func:`shared_inputs` give it."""

    model: Any
    clip: Any
    vae: Any
    hrv: HRV
    scorer: Scorer
    experiment: Experiment
    prompts: int
    settings: WeakeningSettings

    @classmethod
    def of(
        cls,
        *,
        model: Any,
        clip: Any,
        vae: Any,
        hrv: HRV,
        scorer: Scorer,
        experiment: Experiment,
        seeds: int,
        seed: int,
        prompts: int,
        **sampling: Any,
    ) -> Examination:
        """From the inputs by name; ``sampling`` are those of :func:`~.sockets.sampling_inputs`."""
        settings = WeakeningSettings(seeds=tuple(range(seed, seed + seeds)), **sampling)
        return cls(model, clip, vae, hrv, scorer, experiment, prompts, settings)

    @property
    def head_count(self) -> int:
        return head_layout(self.model).head_count

    def analyse(
        self, node: type[io.ComfyNode], concepts: Sequence[str], plan: Plan, images: Path | None = None
    ) -> Analysis:
        """Analyse some concepts, or all that the HRV and the experiment have in common; ``node`` shows how it goes.

        Raises HRVError as :func:`~..host.weakening.run.analyse_weakening` does, and for a concept that is not there.
        """
        names = concepts_to_analyse(self.hrv, self.experiment.concepts, concepts)
        cases = {name: self.experiment.of(name, self.prompts) for name in names}
        return analyse_weakening(
            self.model, self.clip, self.vae, self.hrv, self.scorer, cases, plan, self.settings,
            images=images,
            report=lambda text: show_text(node, text),
        )  # fmt: skip


def judged(analysis: Analysis, factors: Sequence[float] = ()) -> tuple[list[Finding], list[str]]:
    """The findings of every result, at each of some factors (else at its own), and why others could not be judged."""
    findings: list[Finding] = []
    errors: dict[str, None] = {}
    for result, factor in product(analysis.results, factors or (None,)):
        try:
            findings.append(finding(result, factor))
        except HRVError as error:
            errors[str(error)] = None
    return findings, list(errors)


def saved_findings(
    prefix: str, analysis: Analysis, factors: Sequence[float] = ()
) -> tuple[list[Finding], str, str, str]:
    """Judge, and save the tables; return findings, CSV, JSON and what else there is to say, such as where they are.

    Raises HRVError if nothing could be judged, when the tables with all scores are saved.
    """
    findings, errors = judged(analysis, factors)
    texts = {".csv": scores_csv(analysis.results), ".json": results_json(analysis.results, findings)}
    paths = save_texts(prefix, texts)
    where = f"Saved as {paths[0].name} and {paths[1].name} in {paths[0].parent.name}."
    if analysis.images is not None:
        where += f" Images are in {analysis.images.parent.name}/{analysis.images.name}."
    if not findings:
        raise HRVError(f"{errors[0]} {where}")
    return findings, texts[".csv"], texts[".json"], "\n".join([where, *errors])


def shown_pictures(node: type[io.ComfyNode], pictures: Sequence[Image.Image]) -> tuple[list[Any], Any]:
    """Pictures as IMAGEs, and the first of them on the node."""
    images = [image_tensor(picture) for picture in pictures]
    return images, ui.PreviewImage(images[0], cls=node)
