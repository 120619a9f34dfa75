"""Ordered weakening over prompts, seeds, numbers of heads and orders (arXiv 2412.02237, section 4) as one job."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...hrv.drawing.paper import Pixels
from ...hrv.errors import HRVError
from ...hrv.scoring.experiments import Case
from ...hrv.scoring.scorer import Scorer
from ...hrv.weakening.plan import Cell, Plan, Weakening, sheet_lines
from ..models.capabilities import Capability
from ..models.layouts import require_fitting
from ..work.executor import HERE, Executor
from ..work.job import Report, no_report, run_job
from ..work.states import states_folder
from .grid import WeakeningSettings
from .job import WeakeningJob
from .making import Examined

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
    concepts = require_weakenable(examined, experiment, plan, settings)
    cases = [tuple(those) for those in experiment.values()]
    asked = [[(case,) for case in those] for those in cases]
    prompts = [[[case.prompt, case.target] for case in those] for those in cases]
    told = [list(one) for one in zip(concepts, prompts, strict=True)]
    sheet = dict.fromkeys(plan.cell(line, heads) for line in sheet_lines(plan.lines) for heads in plan.head_counts)
    cells = [plan.cells] * len(concepts)
    job = WeakeningJob(_STATE, told, examined, concepts, asked, cells, plan, settings, list(sheet), images)
    state = run_job(job, states_folder("analyses") if states is None else states, report, executor)
    tables = [np.full((len(plan.cells), len(those), len(settings.seeds)), np.nan) for those in cases]
    rows = {cell: row for row, cell in enumerate(plan.cells)}
    for concept, cell, case, seed, (score,) in job.found(state):
        tables[concept][rows[cell], case, seed] = score
    results = tuple(
        Weakening(name, those, settings.seeds, plan, table, {**job.provenance, "concept": name, "prompts": its})
        for name, those, table, its in zip(concepts, cases, tables, prompts, strict=True)
    )
    return Analysis(results, {cell: state.sheet[place] for place, cell in enumerate(sheet)}, job.folder)


def require_weakenable(
    examined: Examined, experiment: Mapping[str, Sequence[Case]], plan: Plan, settings: WeakeningSettings
) -> list[str]:
    """The HRV's names of the concepts of an experiment. Raises HRVError as :func:`analyse_weakening` does."""
    hrv, scorer = examined.hrv, examined.scorer
    require_fitting(hrv, examined.model, Capability.WEAKENING)
    if plan.head_count != hrv.layout.head_count:
        raise HRVError(f"The plan is for {plan.head_count} heads, but the model has {hrv.layout.describe()}.")
    if not experiment or not all(experiment.values()):
        raise HRVError("There are no prompts to analyse: connect an experiment with prompts for the concept.")
    concepts = [hrv.concepts[hrv.index(concept)] for concept in experiment]
    for those in experiment.values():
        scorer.check(those, settings.width, settings.height)
    _require_json(scorer)
    return concepts


def _require_json(scorer: Scorer) -> None:
    """Raise HRVError for a scorer that describes itself with what no table can hold."""
    try:
        json.dumps(dict(scorer.provenance))
    except (TypeError, ValueError) as error:
        raise HRVError(
            f"The provenance of the scorer {scorer.name} cannot be written as JSON ({error}): it may contain texts, "
            "numbers, lists and dicts."
        ) from None
