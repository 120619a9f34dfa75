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
from ..hrv.relevance.vectors import HRV
from ..hrv.scoring.experiments import Experiment
from ..hrv.scoring.scorer import Scorer
from ..hrv.weakening.plan import Plan, concepts_to_analyse
from .input_groups import InputGroup
from .inputs import LARGEST_SEED, seed_input
from .places import executor_of
from .sampling import Sampling
from .sockets import ExperimentSocket, HRVSocket, ScorerSocket


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

    def analyse(
        self,
        node: type[io.ComfyNode],
        sampling: Sampling,
        concepts: Sequence[str],
        plan: Plan,
        place: str,
        images: Path | None = None,
    ) -> Analysis:
        """Analyse some concepts, or all that the HRV and the experiment have in common; ``node`` shows how it goes,
        and ``place`` is where it is done (:mod:`..host.work.places`).

        Raises HRVError as :func:`~..host.weakening.run.analyse_weakening` does, and for a concept that is not there.
        """
        # After the largest seed comes 0.
        seeds = tuple((self.seed + number) % (LARGEST_SEED + 1) for number in range(self.seeds))
        settings = WeakeningSettings(seeds=seeds, **asdict(sampling))
        names = concepts_to_analyse(self.hrv, self.experiment.concepts, concepts)
        cases = {name: self.experiment.of(name, self.prompts) for name in names}
        with executor_of(node, place, ("model", "clip", "vae", "scorer")) as executor:
            return analyse_weakening(
                Examined(self.model, self.clip, self.vae, self.hrv, self.scorer),
                cases,
                plan,
                settings,
                images=images,
                report=lambda progress: show_text(node, str(progress)),
                executor=executor,
            )
