"""Scorers: what tells how well an image shows a word, and a node to try them by hand."""

from __future__ import annotations

import logging
from typing import Any

import torch
from comfy_api.latest import io

from ..host.scoring.clip import ClipScorer
from ..host.scoring.transformers import TransformersScorer, folder_stamp
from ..hrv.errors import HRVError
from ..hrv.relevance.vocabulary import tidy
from ..hrv.scoring.cosine import PLAIN_COLORS, CosineScorer
from ..hrv.scoring.experiments import Case
from ..hrv.scoring.scorer import Scorer
from ..mini.truth_scorer import MiniScorer
from .menu import TEST
from .node import Node
from .outputs import text_output
from .sockets import ScorerSocket

_FEW_COLORS = 4
"""Encoders that were not trained together recognise so many of six colors once in a hundred times."""


def _output(tooltip: str) -> io.Output:
    return ScorerSocket.Output("scorer", display_name="scorer", tooltip=tooltip)


def _tried(node: type[io.ComfyNode], scorer: CosineScorer) -> io.NodeOutput:
    """A CLIP scorer as a node's output, and on the node what it makes of plain colors."""
    found = scorer.recognised_colors()
    text = f"{len(found)} of {len(PLAIN_COLORS)} plain colors recognised."
    if len(found) < _FEW_COLORS:
        text += " A CLIP knows nearly all: do both encoders belong together, and are their files whole?"
        logging.warning("[HRV] %s: %s", scorer.name, text)
    return text_output(node, text, scorer)


class ScorerMini(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_ScorerMini",
            display_name="Scorer: HRV-mini's Truth",
            category=TEST,
            description="Reads from an image of HRV-mini whether it shows what a word says: 1 for yes, 0 for no.",
            search_aliases=["ground truth", "mini scorer", "evaluate", "judge"],
            inputs=[],
            outputs=[_output("For pictures of HRV-mini, and for the words that it knows.")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(MiniScorer())


class ScorerCLIP(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_ScorerCLIP",
            display_name="Scorer: CLIP",
            category=TEST,
            description="Compares images with words by CLIP: the cosine between their vectors. Takes the two halves of "
            "one CLIP, from Load CLIP Vision and Load CLIP.",
            search_aliases=["clip score", "clip similarity", "image text cosine", "evaluate"],
            inputs=[
                io.ClipVision.Input("clip_vision", tooltip="The half that sees, from Load CLIP Vision."),
                io.Clip.Input(
                    "clip",
                    tooltip="The half that reads, with its projection, from Load CLIP. That of an SD 1.x checkpoint "
                    "has no projection.",
                ),
            ],
            outputs=[_output("For images of any size and any words.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, clip_vision: Any, clip: Any) -> io.NodeOutput:
        return _tried(cls, ClipScorer(clip_vision, clip))


class ScorerTransformers(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_ScorerTransformers",
            display_name="Scorer: CLIP from a folder",
            category=TEST,
            description="Compares images with words by a CLIP in a folder, as saved by the library transformers. "
            "Nothing is downloaded.",
            search_aliases=["clip score", "local clip", "transformers", "evaluate"],
            inputs=[
                io.String.Input(
                    "folder",
                    default="clip/clip-vit-large-patch14",
                    tooltip="Inside the models folder, with config.json, model.safetensors and the files of the "
                    "tokenizer and the processor.",
                )
            ],
            outputs=[_output("For images of any size and any words.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, folder: str) -> io.NodeOutput:
        return _tried(cls, TransformersScorer(folder))

    @classmethod
    def fingerprint_inputs(cls, folder: str) -> list[tuple[str, int, int]]:
        """A model that was exchanged is read again."""
        return folder_stamp(folder)


class Score(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_Score",
            display_name="Score Images",
            category=TEST,
            description="Scores images by how well they show a word, to try a scorer by hand.",
            search_aliases=["try scorer", "rate images", "measure images", "evaluate"],
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="Each gets its own score."),
                ScorerSocket.Input("scorer", tooltip="From one of the nodes called Scorer."),
                io.String.Input(
                    "concept",
                    default="Color",
                    tooltip="What the target is about. CLIP doesn't need it; HRV-mini does.",
                ),
                io.String.Input("target", default="red", tooltip="The word or phrase that the images should show."),
            ],
            outputs=[
                io.Float.Output("mean", display_name="mean", tooltip="The mean of the scores; higher is better."),
                io.String.Output("text", display_name="text", tooltip="What the node shows: a line for each image."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, scorer: Scorer, concept: str, target: str) -> io.NodeOutput:
        count, height, width = images.shape[:3]
        cases = [Case(tidy(concept), tidy(target), tidy(target))] * count
        scorer.check(cases, width, height)
        scores = scorer.score(images[..., :3].float().cpu().clamp(0, 1), cases)
        if len(scores) != count:
            raise HRVError(f"The scorer {scorer.name!r} gave {len(scores)} numbers for {count} images.")
        mean = sum(scores) / count
        lines = [f"image {number}: {score:.4f}" for number, score in enumerate(scores, start=1)]
        text = "\n".join([f"{scorer.name}, {tidy(target)!r}: {mean:.4f}", *lines])
        return text_output(cls, text, mean, text)
