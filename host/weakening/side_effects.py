"""What weakening one concept's heads does to every concept, measured from the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from ...hrv.relevance.orders import MOST_RELEVANT_FIRST
from ...hrv.scoring.experiments import Case
from ...hrv.weakening.plan import UNWEAKENED, Line, Plan
from ...hrv.weakening.side_effects import SideEffects
from ..work.executor import HERE, Executor
from ..work.job import Report, no_report, run_job
from ..work.states import states_folder
from .grid import WeakeningSettings
from .job import WeakeningJob
from .making import Examined
from .run import require_weakenable

# Changes whenever states of before, of the same settings, do not fit any more.
_STATE = "side effects 1"


def measure_side_effects(
    examined: Examined,
    concepts: Sequence[str],
    prompts: Sequence[tuple[Case, ...]],
    heads: int,
    factor: float,
    settings: WeakeningSettings,
    *,
    states: Path | None = None,
    report: Report = no_report,
    executor: Executor = HERE,
) -> SideEffects:
    """Make every prompt's images unweakened and with the most relevant ``heads`` of each concept weakened, and score
    each image by all cases of its prompt.

    Work is done, saved and resumed as in :func:`~.run.analyse_weakening`, and the same is refused. ``prompts`` are
    those of :func:`...hrv.weakening.side_effects.cases_by_prompt`.
    """
    plan = Plan((0, heads, examined.hrv.layout.head_count), 0, (factor,))
    cases = [case for those in prompts for case in those]
    names = require_weakenable(examined, dict.fromkeys(concepts, cases), plan, settings)
    weakened = plan.cell(Line(MOST_RELEVANT_FIRST, factor), heads)
    # The images without weakening are the same whoever's heads are meant, so the first concept's stand for all.
    cells = [[UNWEAKENED, weakened], *([weakened] for _ in names[1:])]
    every = [prompts] * len(names)
    asked = [[case.concept, case.prompt, case.target] for case in cases]
    job = WeakeningJob(_STATE, [names, asked], examined, names, every, cells, plan, settings)
    state = run_job(job, states_folder("analyses") if states is None else states, report, executor)
    scores = np.full((1 + len(names), len(cases), len(settings.seeds)), np.nan)
    first = [0, *accumulate(map(len, prompts))]
    for concept, cell, prompt, seed, its in job.found(state):
        row = 0 if cell == UNWEAKENED else 1 + concept
        scores[row, first[prompt] : first[prompt + 1], seed] = its
    more = {"weakened": list(names), "cases": asked}
    return SideEffects(tuple(names), heads, factor, tuple(cases), scores, {**job.provenance, **more})
