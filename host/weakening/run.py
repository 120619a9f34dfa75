"""Ordered weakening over prompts, seeds, numbers of heads and orders (arXiv 2412.02237, section 4) in one run.

Images are made in a fixed grid of batches: those of one cell whose prompts have their words at the same places.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from comfyui_version import __version__ as host_version

from ...hrv.controls.control import Control
from ...hrv.drawing.paper import Pixels
from ...hrv.errors import HRVError
from ...hrv.prompts.tokens import TokenMap
from ...hrv.relevance.vectors import HRV
from ...hrv.scoring.experiments import Case
from ...hrv.scoring.scorer import Scorer
from ...hrv.weakening.images import image_name, save_image, small_picture
from ...hrv.weakening.plan import Cell, Plan, Scores, Weakening, cell_factors, sheet_lines
from ...hrv.weakening.state import KIND, WeakeningState
from ..mechanism import with_mechanism
from ..models.digest import clip_digest, model_digest
from ..models.layouts import describe_model, require_fitting
from ..prompts.carried import CONTROLS_KEY, Conditioning
from ..prompts.encoding import encode_prompt, token_map
from ..work.clock import clock
from ..work.sampling import sample_latents, stacked
from ..work.states import kept_state, states_folder

_SHEET_SIDE = 256
# Changes whenever states of before, of the same settings, do not fit any more.
_STATE = 2
# So many images that all fail say that the scorer does not work at all, and no more are made for it.
_HOPELESS = 8


@dataclass(frozen=True)
class WeakeningSettings:
    """How the images of an analysis are made; ``width`` and ``height`` are pixels.

    The image of a seed is the one that the host's KSampler makes of it alone, but for samplers that draw noise on the
    way.
    """

    seeds: tuple[int, ...]
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    width: int
    height: int
    batch_size: int = 1
    negative: str = ""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise HRVError(f"An analysis needs at least one seed, and each once, not {list(self.seeds)}.")


@dataclass(frozen=True)
class Analysis:
    """What a run made: a result for each concept in order, and the pictures of the first one's contact sheet.

    ``images`` is the folder in which every image was kept, if any was.
    """

    results: tuple[Weakening, ...]
    sheet: Mapping[Cell, Pixels]
    images: Path | None


class _Batch(NamedTuple):
    """Images of one concept and cell, made together: (case, seed) numbers and their words' positions."""

    concept: int
    cell: Cell
    units: tuple[tuple[int, int], ...]
    positions: tuple[int, ...]


def analyse_weakening(
    model: Any,
    clip: Any,
    vae: Any,
    hrv: HRV,
    scorer: Scorer,
    experiment: Mapping[str, Sequence[Case]],
    plan: Plan,
    settings: WeakeningSettings,
    *,
    images: Path | None = None,
    states: Path | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> Analysis:
    """Make and score every image of the plan for every concept of ``experiment`` (concept -> its cases).

    All words of the prompts are weakened, in the positive conditioning only. The host's progress is told per sampling
    step; a cancel takes effect between two steps; the model is as before afterwards. Scores are saved in the folder
    ``states`` (None: the host's user folder) at least once a minute and when the run ends in any way, and the same run
    goes on from there, and tries again what could not be scored. With ``images`` every image is kept as a file below
    that folder, in one named by the run; those that are missing there are made again.

    Raises HRVError for an HRV of another head layout, a plan for another number of heads, a concept that the HRV does
    not have, prompts without words, what the scorer refuses, and a scorer that fails on all of the first images.
    """
    require_fitting(hrv, model)
    if plan.head_count != hrv.layout.head_count:
        raise HRVError(f"The plan is for {plan.head_count} heads, but the model has {hrv.layout.describe()}.")
    if not experiment or not all(experiment.values()):
        raise HRVError("There are no prompts to analyse: connect an experiment with prompts for the concept.")
    concepts = [hrv.concepts[hrv.index(concept)] for concept in experiment]
    cases = [tuple(those) for those in experiment.values()]
    for those in cases:
        scorer.check(those, settings.width, settings.height)
    maps = {case.prompt: token_map(clip, case.prompt) for those in cases for case in those}
    batches = [
        batch
        for number, those in enumerate(cases)
        for batch in _batches(number, [maps[case.prompt] for case in those], plan, settings)
    ]
    _require_json(scorer)
    provenance = _provenance(model, clip, vae, hrv, scorer, plan, settings)
    key = _key(provenance, concepts, cases)
    folder = images / key[:8] if images is not None else None
    places = {cell: place for place, cell in enumerate(_sheet_cells(plan))}
    size = _sheet_size(settings)
    fresh = WeakeningState.beginning(key, sum(len(batch.units) for batch in batches), (len(places), *size))
    with kept_state(fresh, states_folder("analyses") if states is None else states, KIND) as kept:
        state = kept.state
        scored = int(np.isfinite(state.scores).sum())
        work = _Work(model, clip, vae, hrv, scorer, cases, concepts, plan, settings, scored)
        files = [_files(folder, batch, cases[batch.concept], settings.seeds) for batch in batches]
        rows = _rows(batches)
        # What could not be scored before is tried again: scorers also fail for want of memory.
        left = [
            number
            for number, there in enumerate(rows)
            if number >= state.done
            or np.isnan(state.scores[there]).any()
            or not all(file.exists() for file in files[number])
        ]
        to_make = sum(len(batches[number].units) for number in left)
        done = len(state.scores) - to_make
        bar = comfy.utils.ProgressBar(len(state.scores) * settings.steps)
        bar.update_absolute(done * settings.steps)
        started, first = time.monotonic(), done
        for number in left:
            batch = batches[number]
            comfy.model_management.throw_exception_if_processing_interrupted()
            made = work.images(batch, bar)
            state.scores[rows[number]] = work.scores(made, [cases[batch.concept][case] for case, _ in batch.units])
            if batch.concept == 0 and batch.cell in places and (0, 0) in batch.units:
                state.sheet[places[batch.cell]] = small_picture(made[batch.units.index((0, 0))], size)
            for image, file in zip(made, files[number], strict=False):
                save_image(image, file)
            state.done = max(state.done, number + 1)
            kept.save_now_and_then()
            done += len(made)
            seconds = (time.monotonic() - started) / (done - first) * (len(state.scores) - done)
            report(f"{concepts[batch.concept]}: {done} of {len(state.scores)} images, {clock(seconds)} left")
    results = _results(state.scores, batches, concepts, cases, plan, settings, provenance)
    return Analysis(results, {cell: state.sheet[place] for cell, place in places.items()}, folder)


class _Work:
    """What making and scoring images needs."""

    def __init__(
        self,
        model: Any,
        clip: Any,
        vae: Any,
        hrv: HRV,
        scorer: Scorer,
        cases: Sequence[tuple[Case, ...]],
        concepts: Sequence[str],
        plan: Plan,
        settings: WeakeningSettings,
        scored: int,
    ):
        self.model = with_mechanism(model)
        self.clip, self.vae, self.hrv, self.scorer = clip, vae, hrv, scorer
        self.cases, self.concepts, self.plan, self.settings = cases, concepts, plan, settings
        self.negative = clip.encode_from_tokens_scheduled(clip.tokenize(settings.negative))
        self.encoded: tuple[int, list[list[Any]]] = (-1, [])
        # Images that have been scored, those of an earlier run included, and how many of this one failed.
        self.scored, self.failed = scored, 0

    def entries(self, concept: int) -> list[list[Any]]:
        """The encoded prompts of a concept; those of one concept are kept at a time."""
        if self.encoded[0] != concept:
            rows = [encode_prompt(self.clip, case.prompt)[0] for case in self.cases[concept]]
            self.encoded = concept, [_only_entry(row) for row in rows]
        return self.encoded[1]

    def images(self, batch: _Batch, bar: comfy.utils.ProgressBar) -> torch.Tensor:
        """Images float32 [B, height, width, 3] in 0..1, on the CPU."""
        hrv, (line, heads) = self.hrv, batch.cell
        rows = [self.entries(batch.concept)[case] for case, _ in batch.units]
        ((tensor, extras),) = stacked(rows)
        factors = cell_factors(batch.cell, hrv, self.concepts[batch.concept], self.plan.order_seed)
        label = f"weaken {heads} heads by {line.factor:g}, {line.order}"
        control = Control(factors, batch.positions, hrv.layout, label=label)
        positive = [[tensor, {**extras, CONTROLS_KEY: (control,)}]]
        seeds = [self.settings.seeds[seed] for _, seed in batch.units]
        latents = sample_latents(
            self.model, seeds, positive, self.negative, self.settings, lambda: bar.update(len(seeds))
        )
        return self.vae.decode(latents).float().cpu().clamp(0, 1)

    def scores(self, images: torch.Tensor, cases: Sequence[Case]) -> Scores:
        """One number for each image; NaN for those that the scorer fails on."""
        try:
            found = _checked(self.scorer.score(images, cases), len(cases))
        except comfy.model_management.InterruptProcessingException:
            raise
        except Exception as error:  # noqa: BLE001 - scorers are other people's code, and one bad image is not the end
            logging.warning("[HRV] %s failed: %s", self.scorer.name, error)
            if len(cases) == 1:
                found = np.array([np.nan])
            else:
                return np.concatenate([self.scores(images[[row]], [case]) for row, case in enumerate(cases)])
        self.scored += len(found)
        self.failed += int(np.isnan(found).sum())
        if self.failed == self.scored >= min(_HOPELESS, len(self.settings.seeds) * len(self.cases[0])):
            raise HRVError(
                f"{self.scorer.name} failed on all of the first {self.failed} images, so no more are made for it. The "
                "log says why it failed."
            )
        return found


def _only_entry(conditioning: Conditioning) -> list[Any]:
    if len(conditioning) != 1:
        raise HRVError("The text encoder changes during sampling (scheduled hooks), which an analysis cannot follow.")
    return conditioning[0]


def _checked(scores: Sequence[float], images: int) -> Scores:
    """Scores as numbers; those that are not finite count as failures."""
    found = np.array([float(score) for score in scores])
    if len(found) != images:
        raise HRVError(f"it gave {len(found)} scores for {images} images")
    return np.where(np.isfinite(found), found, np.nan)


def _batches(concept: int, maps: Sequence[TokenMap], plan: Plan, settings: WeakeningSettings) -> Iterator[_Batch]:
    """The grid of one concept whose cases have these token maps."""
    for tokens in maps:
        if not tokens.words:
            raise HRVError(f"The prompt {tokens.text!r} has no words that could be weakened.")

    def places(case: int) -> tuple[int, tuple[int, ...]]:
        return maps[case].length, maps[case].content_positions

    groups = [list(those) for _, those in groupby(sorted(range(len(maps)), key=places), key=places)]
    for cell in plan.cells:
        for those in groups:
            units = [(case, seed) for case in those for seed in range(len(settings.seeds))]
            for start in range(0, len(units), settings.batch_size):
                some = tuple(units[start : start + settings.batch_size])
                yield _Batch(concept, cell, some, maps[those[0]].content_positions)


def _rows(batches: Sequence[_Batch]) -> list[slice]:
    """Which of all images in order each batch has."""
    ends = np.cumsum([len(batch.units) for batch in batches]).tolist()
    return [slice(end - len(batch.units), end) for end, batch in zip(ends, batches, strict=True)]


def _files(folder: Path | None, batch: _Batch, cases: Sequence[Case], seeds: Sequence[int]) -> list[Path]:
    """Where the images of a batch are kept; nowhere without a folder."""
    if folder is None:
        return []
    return [folder / image_name(cases, case, seeds[seed], batch.cell) for case, seed in batch.units]


def _provenance(
    model: Any, clip: Any, vae: Any, hrv: HRV, scorer: Scorer, plan: Plan, settings: WeakeningSettings
) -> dict[str, Any]:
    """What scores depend on, with what people want to know of it."""
    return {
        "model": describe_model(model),
        "model_digest": model_digest(model),
        "text_encoder_digest": clip_digest(clip),
        "vae_digest": model_digest(vae.patcher),
        "hrv_digest": hrv.digest,
        "hrv_provenance": json.loads(hrv.provenance_json()),
        "scorer": scorer.name,
        "scorer_provenance": dict(scorer.provenance),
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
            f"The provenance of the scorer {scorer.name} has something in it that JSON has no form for ({error}): it "
            "may have texts, numbers, lists and dicts."
        ) from None


def _key(provenance: Mapping[str, Any], concepts: Sequence[str], cases: Sequence[tuple[Case, ...]]) -> str:
    """The same for two runs only if their images and scores are the same."""
    asked = [
        [name, [[case.prompt, case.target] for case in those]] for name, those in zip(concepts, cases, strict=True)
    ]
    text = json.dumps([_STATE, provenance, asked], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _results(
    scores: Scores,
    batches: Sequence[_Batch],
    concepts: Sequence[str],
    cases: Sequence[tuple[Case, ...]],
    plan: Plan,
    settings: WeakeningSettings,
    provenance: dict[str, Any],
) -> tuple[Weakening, ...]:
    """The scores of the grid sorted by concept, cell, case and seed."""
    rows = {cell: row for row, cell in enumerate(plan.cells)}
    tables = [np.full((len(rows), len(those), len(settings.seeds)), np.nan) for those in cases]
    values = iter(scores.tolist())
    for batch in batches:
        for case, seed in batch.units:
            tables[batch.concept][rows[batch.cell], case, seed] = next(values)
    of_each = [
        {**provenance, "concept": concept, "prompts": [[case.prompt, case.target] for case in those]}
        for concept, those in zip(concepts, cases, strict=True)
    ]
    return tuple(
        Weakening(concept, those, settings.seeds, plan, table, its)
        for concept, those, table, its in zip(concepts, cases, tables, of_each, strict=True)
    )


def _sheet_cells(plan: Plan) -> dict[Cell, None]:
    return dict.fromkeys(plan.cell(line, heads) for line in sheet_lines(plan.lines) for heads in plan.head_counts)


def _sheet_size(settings: WeakeningSettings) -> tuple[int, int]:
    """Height and width of a small picture."""
    scale = min(1.0, _SHEET_SIDE / max(settings.width, settings.height))
    return max(1, round(settings.height * scale)), max(1, round(settings.width * scale))
