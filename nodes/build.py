"""Build HRV: count what every head attends to while images are generated."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from comfy_api.latest import io

from ..host.building.build import MOST_IMAGES, BuildSettings, build_hrv
from ..host.building.concept_words import ESTIMATORS
from ..host.page.texts import show_text
from ..host.work.job import Progress
from ..host.work.places import THIS_MACHINE
from ..hrv.relevance.vocabulary import Vocabulary
from .input_groups import with_groups
from .inputs import place_input, seed_input, shard_inputs, stop_input
from .menu import MAKE
from .node import Node
from .outputs import hrv_output
from .places import executor_of, place_hidden
from .sampling import Sampling
from .sockets import ConceptsSocket, HRVSocket

DEFAULT_PROMPTS = """a photo of a red car
a photo of a dog in the snow
a bowl of green apples on a wooden table
a watercolor painting of a castle at sunset
a small bird on a branch
a woman in a striped dress
a glass vase with a yellow tulip
a street in the rain at night"""


class BuildHRV(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_Build",
            display_name="Build HRV",
            category=MAKE,
            description="Generates images with your model and sampler settings and counts, for every cross-attention "
            "head and step, which concept it attends to most. The counts become one Head Relevance "
            "Vector per concept. Progress is saved: if interrupted, the same build resumes.",
            search_aliases=["head relevance vector", "make hrv", "attention heads", "concepts"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model to look into, LoRAs included. docs/architectures.md lists which ones work.",
                ),
                io.Clip.Input("clip", tooltip="Its text encoder: encodes the prompts and every concept word alone."),
                ConceptsSocket.Input("concepts", tooltip="From HRV Concepts."),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default=DEFAULT_PROMPTS,
                    tooltip="One prompt per line. The more varied, the better; the paper used 2,100.",
                ),
                io.Int.Input(
                    "images",
                    default=64,
                    min=1,
                    max=MOST_IMAGES,
                    tooltip="How many images to generate, cycling through the prompts. More images mean less noise: "
                    "a few dozen show which heads matter, about a thousand settle the details.",
                ),
                seed_input("seed", "Starting noise and drawn words follow from it: the same seed builds the same HRV."),
                *Sampling.inputs(),
                io.Combo.Input(
                    "estimator",
                    options=list(ESTIMATORS),
                    default=BuildSettings.estimator,
                    optional=True,
                    tooltip="'paper' draws one random word per concept at every step and layer, as published, and "
                    "needs fewer images; 'all words' uses every word each time, and ranks heads differently.",
                    advanced=True,
                ),
                stop_input(
                    "Stop early, once the rankings are expected to agree this well with those of an endless "
                    "build (0.98 is good). 0 makes all images."
                ),
                *shard_inputs(),
                place_input(),
            ],
            hidden=place_hidden(),
            outputs=[HRVSocket.Output("hrv", display_name="HRV", tooltip="One vector per concept.")],
        )

    @classmethod
    @with_groups
    def execute(
        cls,
        model: Any,
        clip: Any,
        concepts: Vocabulary,
        prompts: str,
        images: int,
        seed: int,
        sampling: Sampling,
        estimator: str = BuildSettings.estimator,
        stop_at: float = 0.0,
        shard: int = 1,
        shards: int = 1,
        run_on: str = THIS_MACHINE,
    ) -> io.NodeOutput:
        lines = [line.strip() for line in prompts.splitlines() if line.strip()]
        settings = BuildSettings(
            images=images,
            seed=seed,
            **asdict(sampling),
            estimator=estimator,
            shard=(shard, shards),
            stop_at=stop_at,
        )

        def report(progress: Progress) -> None:
            show_text(cls, str(progress))

        with executor_of(cls, run_on, ("model", "clip")) as executor:
            hrv = build_hrv(model, clip, concepts, lines, settings, report=report, executor=executor)
        return hrv_output(hrv)
