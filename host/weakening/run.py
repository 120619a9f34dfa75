"""Ordered weakening over prompts, seeds, numbers of heads and orders (arXiv 2412.02237, section 4) as one job."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from comfyui_version import __version__ as host_version

from ...hrv.drawing.paper import Pixels
from ...hrv.errors import HRVError
from ...hrv.relevance.files import decode_hrv, encode_hrv
from ...hrv.scoring.experiments import Case
from ...hrv.scoring.scorer import Scorer
from ...hrv.weakening.images import image_name, png_of, save_png, small_picture
from ...hrv.weakening.plan import Cell, Plan, Scores, Weakening, sheet_lines
from ...hrv.weakening.state import KIND, WeakeningState
from ..models.capabilities import Capability
from ..models.digest import clip_digest, model_digest
from ..models.layouts import describe_model, require_fitting
from ..prompts.encoding import token_map
from ..work.description import Description
from ..work.executor import HERE, Executor, Tick
from ..work.job import Report, job_key, no_report, run_job
from ..work.memory import require_room
from ..work.states import states_folder
from .grid import Batch, Grid, WeakeningSettings
from .making import HOPELESS, Examined, ImageMaker, Scoring

_SHEET_SIDE = 256
_Made = tuple[Scores, Pixels | None, list[bytes]]
"""Of a batch: a score for each image, the small picture if there is one for the sheet, and the files to be kept."""

# Changes whenever states of before, of the same settings, do not fit any more.
_STATE = 2


@dataclass(frozen=True)
class Analysis:
    """What a run made: a result for each concept in order, and the pictures of the first one's contact sheet.

    ``images`` is the folder in which every image was kept, if any was.
    """

    results: tuple[Weakening, ...]
    sheet: Mapping[Cell, Pixels]
    images: Path | None


def analyse_weakening(
    examined: Examined,
    experiment: Mapping[str, Sequence[Case]],
    plan: Plan,
    settings: WeakeningSettings,
    *,
    images: Path | None = None,
    states: Path | None = None,
    report: Report = no_report,
    executor: Executor = HERE,
) -> Analysis:
    """Make and score every image of the plan for every concept of ``experiment`` (concept -> its cases).

    All words of the prompts are weakened, in the positive conditioning only. The host's progress is told per sampling
    step; a cancel takes effect between two steps; the model is as before afterwards. Scores are saved in the folder
    ``states`` (None: the host's user folder) as :func:`~..work.job.run_job` does; the same run resumes from there, and
    tries again what could not be scored. With ``images`` every image is kept as a file below that folder, in one named
    by the run; those that are missing there are made again. Whatever ``executor`` makes the images, they are the same.

    Raises HRVError for an HRV of another head layout, a plan for another number of heads, a concept that the HRV does
    not have, prompts without words, what the scorer refuses, a scorer that fails on all of the first images, and what
    the executor does.
    """
    hrv, scorer = examined.hrv, examined.scorer
    require_fitting(hrv, examined.model, Capability.WEAKENING)
    if plan.head_count != hrv.layout.head_count:
        raise HRVError(f"The plan is for {plan.head_count} heads, but the model has {hrv.layout.describe()}.")
    if not experiment or not all(experiment.values()):
        raise HRVError("There are no prompts to analyse: connect an experiment with prompts for the concept.")
    concepts = [hrv.concepts[hrv.index(concept)] for concept in experiment]
    cases = [tuple(those) for those in experiment.values()]
    for those in cases:
        scorer.check(those, settings.width, settings.height)
    _require_json(scorer)
    job = _Analysis(examined, concepts, cases, plan, settings, images)
    state = run_job(job, states_folder("analyses") if states is None else states, report, executor)
    return Analysis(
        job.results(state), {cell: state.sheet[place] for cell, place in job.sheet_places.items()}, job.folder
    )


class _Analysis:
    """An analysis as a :class:`~..work.job.Job`; its pieces are numbers of batches of the grid."""

    kind, unit = KIND, "images"

    def __init__(
        self,
        examined: Examined,
        concepts: Sequence[str],
        cases: Sequence[tuple[Case, ...]],
        plan: Plan,
        settings: WeakeningSettings,
        images: Path | None,
    ):
        self.examined, self.concepts, self.cases, self.plan, self.settings = examined, concepts, cases, plan, settings
        maps = {case.prompt: token_map(examined.clip, case.prompt) for those in cases for case in those}
        self.grid = Grid([[maps[case.prompt] for case in those] for those in cases], plan, settings)
        require_room(examined.model, settings, self.grid.images, decoded=True)
        self.units, self.steps = self.grid.images, settings.steps
        self.provenance = _provenance(examined, plan, settings)
        asked = [
            [name, [[case.prompt, case.target] for case in those]] for name, those in zip(concepts, cases, strict=True)
        ]
        self.key = job_key(_STATE, self.provenance, asked)
        self.images, self.folder = images, images / self.key[:8] if images is not None else None
        self.sheet_places = {cell: place for place, cell in enumerate(_sheet_cells(plan))}
        self.scored_before = 0

    def fresh(self) -> WeakeningState:
        size = _sheet_size(self.settings)
        return WeakeningState.beginning(self.key, self.units, len(self.grid), (len(self.sheet_places), *size))

    def description(self) -> Description:
        examined = self.examined
        inputs = {"model": examined.model, "clip": examined.clip, "vae": examined.vae, "scorer": examined.scorer}
        parameters = {
            "hrv": encode_hrv(examined.hrv),
            "concepts": list(self.concepts),
            "cases": [[(case.concept, case.prompt, case.target) for case in those] for those in self.cases],
            "plan": asdict(self.plan),
            "settings": asdict(self.settings),
            "images": None if self.images is None else str(self.images),
            "scored_before": self.scored_before,
        }
        return Description("weakening.run:described", inputs, parameters)

    def left(self, state: WeakeningState) -> list[int]:
        """Batches not yet made, and those with scores or files missing: scorers also fail for want of memory."""
        self.scored_before = int(np.isfinite(state.scores).sum())
        missing = np.isnan(state.scores)
        return [
            number
            for number in range(len(self.grid))
            if number >= state.done
            or missing[self.grid.rows(number)].any()
            or not all(file.exists() for file in self.files(self.grid[number]))
        ]

    def size(self, piece: int) -> int:
        there = self.grid.rows(piece)
        return there.stop - there.start

    def maker(self, tick: Tick) -> Callable[[int], _Made]:
        images = ImageMaker(self.examined, self.cases, self.concepts, self.plan, self.settings, tick)
        fewest = min(HOPELESS, len(self.settings.seeds) * len(self.cases[0]))
        scores = Scoring(self.examined.scorer, self.scored_before, fewest)

        def make(number: int) -> _Made:
            batch = self.grid[number]
            made = images.of(batch)
            found = scores.of(made, [self.cases[batch.concept][case] for case, _ in batch.units])
            small = None
            if batch.concept == 0 and batch.cell in self.sheet_places and (0, 0) in batch.units:
                small = small_picture(made[batch.units.index((0, 0))], _sheet_size(self.settings))
            # What is kept and no more: it may go through a network.
            return found, small, [png_of(image) for image in made] if self.folder is not None else []

        return make

    def keep(self, state: WeakeningState, piece: int, made: _Made) -> None:
        batch = self.grid[piece]
        state.scores[self.grid.rows(piece)], small, contents = made
        if small is not None:
            state.sheet[self.sheet_places[batch.cell]] = small
        for content, file in zip(contents, self.files(batch), strict=True):
            save_png(content, file)
        state.done = max(state.done, piece + 1)

    def is_finished(self, state: WeakeningState) -> bool:
        """Every image of the plan counts."""
        return False

    def detail(self, state: WeakeningState, piece: int) -> str:
        return self.concepts[self.grid[piece].concept]

    def files(self, batch: Batch) -> list[Path]:
        """Where the images of a batch are kept; nowhere without a folder."""
        if self.folder is None:
            return []
        cases, seeds = self.cases[batch.concept], self.settings.seeds
        return [self.folder / image_name(cases, case, seeds[seed], batch.cell) for case, seed in batch.units]

    def results(self, state: WeakeningState) -> tuple[Weakening, ...]:
        """The scores of the grid sorted by concept, cell, case and seed."""
        rows = {cell: row for row, cell in enumerate(self.plan.cells)}
        seeds = self.settings.seeds
        tables = [np.full((len(rows), len(those), len(seeds)), np.nan) for those in self.cases]
        values = iter(state.scores.tolist())
        for batch in self.grid:
            for case, seed in batch.units:
                tables[batch.concept][rows[batch.cell], case, seed] = next(values)
        found = []
        for concept, those, table in zip(self.concepts, self.cases, tables, strict=True):
            prompts = [[case.prompt, case.target] for case in those]
            its = {**self.provenance, "concept": concept, "prompts": prompts}
            found.append(Weakening(concept, those, seeds, self.plan, table, its))
        return tuple(found)


def described(inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> _Analysis:
    """An analysis on a worker: of its own model, by a description's parameters."""
    hrv, images = decode_hrv(parameters["hrv"]), parameters["images"]
    job = _Analysis(
        Examined(inputs["model"], inputs["clip"], inputs["vae"], hrv, inputs["scorer"]),
        parameters["concepts"],
        [tuple(Case(*case) for case in those) for those in parameters["cases"]],
        Plan(**parameters["plan"]),
        WeakeningSettings(**parameters["settings"]),
        None if images is None else Path(images),
    )
    job.scored_before = parameters["scored_before"]
    return job


def _provenance(examined: Examined, plan: Plan, settings: WeakeningSettings) -> dict[str, Any]:
    """What scores depend on, with what people want to know of it."""
    return {
        "model": describe_model(examined.model),
        "model_digest": model_digest(examined.model),
        "text_encoder_digest": clip_digest(examined.clip),
        "vae_digest": model_digest(examined.vae.patcher),
        "hrv_digest": examined.hrv.digest,
        "hrv_provenance": json.loads(examined.hrv.provenance_json()),
        "scorer": examined.scorer.name,
        "scorer_provenance": dict(examined.scorer.provenance),
        "host": f"ComfyUI {host_version}",
        **asdict(plan),
        **asdict(settings),
    }


def _require_json(scorer: Scorer) -> None:
    """Raise HRVError for a scorer that describes itself with what no table can hold."""
    try:
        json.dumps(dict(scorer.provenance))
    except (TypeError, ValueError) as error:
        raise HRVError(
            f"The provenance of the scorer {scorer.name} cannot be written as JSON ({error}): it may contain texts, "
            "numbers, lists and dicts."
        ) from None


def _sheet_cells(plan: Plan) -> dict[Cell, None]:
    return dict.fromkeys(plan.cell(line, heads) for line in sheet_lines(plan.lines) for heads in plan.head_counts)


def _sheet_size(settings: WeakeningSettings) -> tuple[int, int]:
    """Height and width of a small picture."""
    scale = min(1.0, _SHEET_SIDE / max(settings.width, settings.height))
    return max(1, round(settings.height * scale)), max(1, round(settings.width * scale))
