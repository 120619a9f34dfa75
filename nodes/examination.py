"""Ordered weakening as its nodes ask for it: a model, an HRV to examine on it, and what scores the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..host.models.layouts import head_layout
from ..host.page.texts import show_text
from ..host.weakening.grid import WeakeningSettings
from ..host.weakening.making import Examined
from ..host.weakening.run import Analysis, analyse_weakening
from ..host.weakening.side_effects import measure_side_effects
from ..host.work.job import Report
from ..hrv.relevance.vectors import HRV
from ..hrv.scoring.experiments import Experiment
from ..hrv.scoring.scorer import Scorer
from ..hrv.weakening.plan import Plan, concepts_to_analyse
from ..hrv.weakening.side_effects import SideEffects, cases_by_prompt
from .input_groups import InputGroup
from .inputs import LARGEST_SEED, seed_input
from .places import executor_of
from .sampling import Sampling
from .sockets import ExperimentSocket, HRVSocket, ScorerSocket

_PARTS = ("model", "clip", "vae", "scorer")
"""The inputs that workers make again."""


@dataclass(frozen=True)
class Examination(InputGroup):
    """What is examined, and from how many prompts and seeds."""

    model: Any
    clip: Any
    vae: Any
    hrv: HRV
    scorer: Scorer
    experiment: Experiment
    seeds: int
    seed: int
    prompts: int

    @staticmethod
    def inputs(concept: Any, seeds: int, prompts: int) -> list[Any]:
        """With the node's input for concepts among them; numbers of seeds and prompts by default."""
        return [
            io.Model.Input("model", tooltip="The model to test the HRV on."),
            io.Clip.Input("clip", tooltip="Its text encoder."),
            io.Vae.Input("vae", tooltip="Its VAE: scorers look at finished images."),
            HRVSocket.Input("hrv", tooltip="The HRV to test."),
            ScorerSocket.Input(
                "scorer", tooltip="Scores how well an image shows a word: from one of the Scorer nodes."
            ),
            ExperimentSocket.Input("experiment", tooltip="The prompts, from HRV Experiment."),
            concept,
            io.Int.Input(
                "seeds",
                default=seeds,
                min=1,
                max=1000,
                tooltip="How many images of every prompt, each with its own seed.",
            ),
            seed_input(
                "seed",
                "The first of the seeds; the others follow. An image is the one that KSampler makes of its seed "
                "(with samplers that add noise on the way: at batch_size 1).",
            ),
            io.Int.Input(
                "prompts",
                default=prompts,
                min=0,
                max=10_000,
                tooltip="At most this many prompts of each concept, evenly spread through the experiment; 0 for all.",
            ),
        ]

    @property
    def head_count(self) -> int:
        return head_layout(self.model).head_count

    def names(self, concepts: Sequence[str]) -> list[str]:
        """The HRV's names of some concepts, or of all that the HRV and the experiment have in common.

        Raises HRVError for a concept that the HRV does not have, and if the two have none in common.
        """
        return concepts_to_analyse(self.hrv, self.experiment.concepts, concepts)

    def analyse(
        self,
        node: type[io.ComfyNode],
        sampling: Sampling,
        concepts: Sequence[str],
        plan: Plan,
        place: str,
        images: Path | None = None,
    ) -> Analysis:
        """Analyse some concepts, or all in common; ``node`` shows how it goes, and ``place`` is where it is done
        (:mod:`..host.work.places`).

        Raises HRVError as :func:`~..host.weakening.run.analyse_weakening` does, and for a concept that is not there.
        """
        cases = {name: self.experiment.of(name, self.prompts) for name in self.names(concepts)}
        settings, report = self._settings(sampling), _shown_on(node)
        with executor_of(node, place, _PARTS) as executor:
            return analyse_weakening(
                self._examined, cases, plan, settings, images=images, report=report, executor=executor
            )

    def side_effects(
        self,
        node: type[io.ComfyNode],
        sampling: Sampling,
        concepts: Sequence[str],
        heads: int,
        factor: float,
        place: str,
    ) -> SideEffects:
        """What weakening the heads of some concepts, or of all in common, does to all of them; ``node`` and ``place``
        as in :meth:`analyse`, and the same is refused.
        """
        names = self.names(concepts)
        prompts = cases_by_prompt(self.experiment, names, self.prompts)
        settings, report = self._settings(sampling), _shown_on(node)
        with executor_of(node, place, _PARTS) as executor:
            return measure_side_effects(
                self._examined, names, prompts, heads, factor, settings, report=report, executor=executor
            )

    @property
    def _examined(self) -> Examined:
        return Examined(self.model, self.clip, self.vae, self.hrv, self.scorer)

    def _settings(self, sampling: Sampling) -> WeakeningSettings:
        # After the largest seed comes 0.
        seeds = tuple((self.seed + number) % (LARGEST_SEED + 1) for number in range(self.seeds))
        return WeakeningSettings(seeds=seeds, **asdict(sampling))


def _shown_on(node: type[io.ComfyNode]) -> Report:
    return lambda progress: show_text(node, str(progress))
