"""Build Causal HRV: measure how much of what a concept's words do to the image goes through each head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from comfy_api.latest import io, ui

from ..host.building.causal import LEVELS, STEPS, CausalSettings, build_causal_hrv
from ..host.page.texts import show_text
from ..host.work.job import Progress
from ..host.work.places import THIS_MACHINE
from ..hrv.building.pairs import MOST_PAIRS, Example, examples_of
from ..hrv.errors import HRVError, quoted
from ..hrv.prompts.frames import DEFAULT_FRAMES, parse_frames
from ..hrv.relevance.vocabulary import Vocabulary
from ..hrv.scoring.experiments import Experiment
from .fields import split_words
from .input_groups import with_groups
from .inputs import place_input, seed_input, shard_inputs, stop_input
from .menu import MAKE
from .node import Node
from .outputs import hrv_output, image_tensor
from .places import executor_of, place_hidden
from .sampling import Sampling
from .sockets import ConceptsSocket, ExperimentSocket, HRVSocket

_DEFAULT_FRAMES = "\n".join(DEFAULT_FRAMES)
_DEFAULT_LEVELS = ", ".join(map(str, LEVELS))


class BuildCausalHRV(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_BuildCausal",
            display_name="Build Causal HRV",
            category=MAKE,
            description="Measures which cross-attention heads really change the image when a word of a concept "
            "changes: pairs of prompts that differ in one word, on your model's own images. Needs far fewer images "
            "than Build HRV. Measured pairs are saved: if interrupted, the same build resumes.",
            search_aliases=["head relevance vector", "causal relevance", "attribution", "make hrv", "attention heads"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model to measure, LoRAs included; docs/architectures.md lists which ones work. Its "
                    "weights must not be quantized.",
                ),
                io.Clip.Input("clip", tooltip="Its text encoder."),
                ConceptsSocket.Input(
                    "concepts",
                    optional=True,
                    tooltip="From HRV Concepts: each word is put into the sentences of 'frames'. Connect this or "
                    "'experiment'.",
                ),
                ExperimentSocket.Input(
                    "experiment",
                    optional=True,
                    tooltip="From HRV Experiment: its words in angle brackets make the pairs. Connect this or "
                    "'concepts'.",
                ),
                io.Int.Input(
                    "pairs",
                    default=16,
                    min=1,
                    max=MOST_PAIRS,
                    tooltip="Pairs of prompts for each concept. Each takes one image and a few passes with gradients.",
                ),
                seed_input("seed", "The pairs, their images and their noise follow from it."),
                *Sampling.inputs(STEPS),
                io.String.Input(
                    "frames",
                    multiline=True,
                    default=_DEFAULT_FRAMES,
                    optional=True,
                    tooltip="Sentences for the words of 'concepts', one a line, with {word} where the word goes; at "
                    "most 12. Write what your model draws well, such as 'a photo of a {word} car'.",
                    advanced=True,
                ),
                io.String.Input(
                    "levels",
                    default=_DEFAULT_LEVELS,
                    optional=True,
                    tooltip="Noise levels, as sampling progress between 0 (pure noise) and 1, separated by commas. The "
                    "pairs of a concept take them in turn.",
                    advanced=True,
                ),
                stop_input(
                    "End earlier, once every concept is expected to correlate this well with an endless build "
                    "(0.95 is good). 0 measures all pairs."
                ),
                *shard_inputs(),
                place_input(),
            ],
            hidden=place_hidden(),
            outputs=[
                HRVSocket.Output("hrv", display_name="HRV", tooltip="One vector per concept."),
                io.Image.Output("picture", tooltip="What else was found, a row for each concept."),
                io.String.Output("report", tooltip="The same as JSON."),
            ],
        )

    @classmethod
    @with_groups
    def execute(
        cls,
        model: Any,
        clip: Any,
        pairs: int,
        seed: int,
        sampling: Sampling,
        concepts: Vocabulary | None = None,
        experiment: Experiment | None = None,
        frames: str = _DEFAULT_FRAMES,
        levels: str = _DEFAULT_LEVELS,
        stop_at: float = 0.0,
        shard: int = 1,
        shards: int = 1,
        run_on: str = THIS_MACHINE,
    ) -> io.NodeOutput:
        settings = CausalSettings(
            pairs=pairs,
            seed=seed,
            **asdict(sampling),
            levels=_levels(levels),
            shard=(shard, shards),
            stop_at=stop_at,
        )
        examples = _examples(concepts, experiment, frames)

        def report(progress: Progress) -> None:
            show_text(cls, str(progress))

        with executor_of(cls, run_on, ("model", "clip")) as executor:
            build = build_causal_hrv(model, clip, examples, settings, report=report, executor=executor)
        show_text(cls, build.report.text())
        picture = image_tensor(build.report.picture())
        shown = ui.PreviewImage(picture, cls=cls).as_dict()
        return hrv_output(build.hrv, picture, build.report.to_json(), shown=shown)


def _examples(concepts: Vocabulary | None, experiment: Experiment | None, frames: str) -> dict[str, Sequence[Example]]:
    """Prompts by concept, from whichever of the two is connected."""
    if (concepts is None) == (experiment is None):
        raise HRVError("Connect either 'concepts' or 'experiment': that is where the words to compare come from.")
    if concepts is not None:
        return dict(examples_of(concepts, parse_frames(frames)))
    assert experiment is not None
    return {name: [Example(case.prompt, case.target) for case in experiment.of(name)] for name in experiment.concepts}


def _levels(text: str) -> tuple[float, ...]:
    """Numbers separated by commas."""
    try:
        return tuple(float(part) for part in split_words(text))
    except ValueError:
        raise HRVError(f"The noise levels {quoted(text)} aren't numbers: write some like {_DEFAULT_LEVELS}.") from None
