"""The images of ordered weakening, made, scored and kept as one job."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from comfyui_version import __version__ as host_version

from ...hrv.drawing.paper import Pixels
from ...hrv.relevance.files import decode_hrv, encode_hrv
from ...hrv.scoring.experiments import Case
from ...hrv.weakening.images import image_name, png_of, save_png, small_picture
from ...hrv.weakening.plan import Cell, Line, Plan, Scores
from ...hrv.weakening.state import KIND, WeakeningState
from ...hrv.weakening.statistics import orders_of
from ..models.digest import clip_digest, model_digest
from ..models.layouts import describe_model
from ..prompts.encoding import token_map
from ..work.description import Description
from ..work.executor import Tick
from ..work.job import job_key
from ..work.memory import require_room
from ..work.status import Curve, Curves, Seen
from .grid import Batch, Grid, WeakeningSettings
from .making import HOPELESS, Examined, ImageMaker, Scoring

_SHEET_SIDE = 256

Asked = tuple[Case, ...]
"""What one prompt's images are scored by: cases of the same prompt."""

_Made = tuple[Scores, Pixels | None, list[bytes]]
"""Of a batch: its scores, the small picture if there is one for the sheet, and the files to be kept."""


class WeakeningJob:
    """Images of ordered weakening as a :class:`~..work.job.Job`; its pieces are numbers of batches of the grid.

    ``version``   changes whenever states of before, of the same settings, do not fit any more.
    ``told``      plain data that tells ``concepts``, ``asked`` and ``cells`` from any other.
    ``concepts``  whose heads are weakened.
    ``asked``     for each of them its prompts, each with the cases that its images are scored by.
    ``cells``     for each of them what is done to its images.
    ``sheet``     cells of the first concept of whose first prompt and seed a small picture is kept.
    ``images``    where a folder of this work keeps every image as a file; None for nowhere.

    Raises HRVError as :class:`~.grid.Grid` does, and for images that don't fit into memory.
    """

    kind, unit = KIND, "images"

    def __init__(
        self,
        version: int | str,
        told: Any,
        examined: Examined,
        concepts: Sequence[str],
        asked: Sequence[Sequence[Asked]],
        cells: Sequence[Sequence[Cell]],
        plan: Plan,
        settings: WeakeningSettings,
        sheet: Sequence[Cell] = (),
        images: Path | None = None,
    ):
        self.version, self.told, self.examined, self.concepts, self.asked = version, told, examined, concepts, asked
        self.cells, self.plan, self.settings = cells, plan, settings
        self.prompts = [tuple(those[0] for those in prompts) for prompts in asked]
        maps = {case.prompt: token_map(examined.clip, case.prompt) for prompts in self.prompts for case in prompts}
        self.grid = Grid(
            [[maps[case.prompt] for case in prompts] for prompts in self.prompts],
            [[len(those) for those in prompts] for prompts in asked],
            cells,
            settings,
        )
        require_room(examined.model, settings, self.grid.images, decoded=True)
        self.units, self.steps = self.grid.images, settings.steps
        self.provenance = _provenance(examined, plan, settings)
        self.key = job_key(version, self.provenance, told)
        self.images, self.folder = images, images / self.key[:8] if images is not None else None
        self.sheet = {cell: place for place, cell in enumerate(sheet)}
        self.scored_before = 0

    def fresh(self) -> WeakeningState:
        size = _sheet_size(self.settings)
        return WeakeningState.beginning(self.key, self.grid.scores, len(self.grid), (len(self.sheet), *size))

    def description(self) -> Description:
        examined = self.examined
        inputs = {"model": examined.model, "clip": examined.clip, "vae": examined.vae, "scorer": examined.scorer}
        parameters = {
            "version": self.version,
            "told": self.told,
            "hrv": encode_hrv(examined.hrv),
            "concepts": list(self.concepts),
            "asked": [
                [[(case.concept, case.prompt, case.target) for case in those] for those in prompts]
                for prompts in self.asked
            ],
            "cells": [_plain(cells) for cells in self.cells],
            "plan": asdict(self.plan),
            "settings": asdict(self.settings),
            "sheet": _plain(self.sheet),
            "images": None if self.images is None else str(self.images),
            "scored_before": self.scored_before,
        }
        return Description("weakening.job:described", inputs, parameters)

    def left(self, state: WeakeningState) -> list[int]:
        """Batches not yet made, and those with scores or files missing: scorers also fail for want of memory."""
        self.scored_before = int(np.isfinite(state.scores).sum())
        missing = np.isnan(state.scores)
        return [
            number
            for number in range(len(self.grid))
            if number >= state.done
            or missing[self.grid.rows(number)].any()
            or not all(file.exists() for file in self._files(self.grid[number]))
        ]

    def size(self, piece: int) -> int:
        return len(self.grid[piece].units)

    def maker(self, tick: Tick) -> Callable[[int], _Made]:
        images = ImageMaker(self.examined, self.prompts, self.concepts, self.plan, self.settings, tick)
        fewest = min(HOPELESS, len(self.settings.seeds) * sum(map(len, self.asked[0])))
        scores = Scoring(self.examined.scorer, self.scored_before, fewest)

        def make(number: int) -> _Made:
            batch = self.grid[number]
            made = images.of(batch)
            seen = [row for row, (prompt, _) in enumerate(batch.units) for _ in self.asked[batch.concept][prompt]]
            found = scores.of(made[seen], self._cases(batch))
            small = None
            if batch.concept == 0 and batch.cell in self.sheet and (0, 0) in batch.units:
                small = small_picture(made[batch.units.index((0, 0))], _sheet_size(self.settings))
            # What is kept and no more: it may go through a network.
            return found, small, [png_of(image) for image in made] if self.folder is not None else []

        return make

    def keep(self, state: WeakeningState, piece: int, made: _Made) -> None:
        batch = self.grid[piece]
        state.scores[self.grid.rows(piece)], small, contents = made
        if small is not None:
            state.sheet[self.sheet[batch.cell]] = small
        for content, file in zip(contents, self._files(batch), strict=True):
            save_png(content, file)
        state.done = max(state.done, piece + 1)

    def is_finished(self, state: WeakeningState) -> bool:
        """Every image of the plan counts."""
        return False

    def detail(self, state: WeakeningState, piece: int) -> str:
        return self.concepts[self.grid[piece].concept]

    def seen(self, state: WeakeningState) -> Seen:
        """The mean scores so far of the concept and factor that are under way, order by order if all are measured."""
        batch = self.grid[min(state.done, len(self.grid) - 1)]
        if set(self.cells[batch.concept]) != set(self.plan.cells):
            return Seen()
        scores: dict[Cell, list[float]] = {}
        for _, cell, _, _, its in self.found(state, self.grid.of_concept(batch.concept)):
            scores.setdefault(cell, []).extend(its[np.isfinite(its)].tolist())
        factor, counts = batch.cell.line.factor, self.plan.head_counts
        if factor not in self.plan.factors:
            factor = self.plan.factors[0]
        curves = []
        for order, lines in orders_of(self.plan, factor).items():
            known = [[one for line in lines for one in scores.get(self.plan.cell(line, heads), ())] for heads in counts]
            curves.append(Curve.of(order, counts, [sum(those) / len(those) if those else np.nan for those in known]))
        return Seen(Curves("heads weakened", f"score of {self.concepts[batch.concept]}", curves))

    def found(
        self, state: WeakeningState, batches: range | None = None
    ) -> Iterator[tuple[int, Cell, int, int, Scores]]:
        """Of every image the number of its concept, its cell, the numbers of its prompt and seed, and its scores.

        ``batches`` are the numbers of those whose images are meant, all by default.
        """
        for number in range(len(self.grid)) if batches is None else batches:
            batch = self.grid[number]
            numbers = [len(self.asked[batch.concept][prompt]) for prompt, _ in batch.units]
            scores = np.split(state.scores[self.grid.rows(number)], np.cumsum(numbers)[:-1])
            for (prompt, seed), its in zip(batch.units, scores, strict=True):
                yield batch.concept, batch.cell, prompt, seed, its

    def _cases(self, batch: Batch) -> list[Case]:
        """What the images of a batch are scored by, image by image."""
        return [case for prompt, _ in batch.units for case in self.asked[batch.concept][prompt]]

    def _files(self, batch: Batch) -> list[Path]:
        """Where the images of a batch are kept; nowhere without a folder."""
        if self.folder is None:
            return []
        prompts, seeds = self.prompts[batch.concept], self.settings.seeds
        return [self.folder / image_name(prompts, prompt, seeds[seed], batch.cell) for prompt, seed in batch.units]


def described(inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> WeakeningJob:
    """The images of ordered weakening on a worker: of its own model, by a description's parameters."""
    images = parameters["images"]
    job = WeakeningJob(
        parameters["version"],
        parameters["told"],
        Examined(inputs["model"], inputs["clip"], inputs["vae"], decode_hrv(parameters["hrv"]), inputs["scorer"]),
        parameters["concepts"],
        [[tuple(Case(*case) for case in those) for those in prompts] for prompts in parameters["asked"]],
        [_cells(cells) for cells in parameters["cells"]],
        Plan(**parameters["plan"]),
        WeakeningSettings(**parameters["settings"]),
        _cells(parameters["sheet"]),
        None if images is None else Path(images),
    )
    job.scored_before = parameters["scored_before"]
    return job


def _plain(cells: Iterable[Cell]) -> list[tuple[Any, ...]]:
    """Cells as plain data: number of heads, then the line."""
    return [(heads, *line) for line, heads in cells]


def _cells(plain: Sequence[tuple[Any, ...]]) -> list[Cell]:
    """Cells of their plain data."""
    return [Cell(Line(*line), heads) for heads, *line in plain]


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


def _sheet_size(settings: WeakeningSettings) -> tuple[int, int]:
    """Height and width of a small picture."""
    scale = min(1.0, _SHEET_SIDE / max(settings.width, settings.height))
    return max(1, round(settings.height * scale)), max(1, round(settings.width * scale))
