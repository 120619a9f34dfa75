"""HRV Experiment: the prompts that ordered weakening is measured on."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.files.experiments import NO_FILE, experiment_file, experiment_files
from ..host.page.texts import show_text
from ..hrv.errors import HRVError
from ..hrv.scoring.experiments import Experiment, parse_experiment
from .menu import TEST
from .node import FileChoice, Node
from .sockets import ExperimentSocket


class ExperimentNode(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_Experiment",
            display_name="HRV Experiment",
            category=TEST,
            description="Prompts for each concept, with the word that images are scored by: from a file, written here, "
            "or both. The shipped files are the nine concepts of the paper and HRV-mini's world.",
            search_aliases=["prompt templates", "ordered weakening", "evaluation prompts"],
            inputs=[
                FileChoice(
                    "file",
                    options=[*experiment_files(), NO_FILE],
                    tooltip="An experiment that ships with the pack, or your own .txt in models/hrv/experiments; "
                    "press R to refresh.",
                ),
                io.String.Input(
                    "prompts",
                    multiline=True,
                    default="",
                    tooltip="More prompts. A concept in brackets, then one prompt per line: '[Color]', then 'a <red "
                    "| blue> {car | bowl}'. Images are scored by the words in angle brackets; those in "
                    "braces only make more prompts.",
                ),
            ],
            outputs=[ExperimentSocket.Output("experiment", tooltip="For the nodes of ordered weakening.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, file: str, prompts: str) -> io.NodeOutput:
        parts: list[Experiment] = []
        if file != NO_FILE:
            parts.append(parse_experiment(experiment_file(file)))
        if prompts.strip():
            parts.append(parse_experiment(prompts))
        if not parts:
            raise HRVError("The experiment is empty: choose a file, or write prompts.")
        experiment = sum(parts[1:], parts[0])
        lines = [f"{concept}: {len(experiment.of(concept))} prompts" for concept in experiment.concepts]
        show_text(cls, "\n".join(lines))
        return io.NodeOutput(experiment)

    @classmethod
    def fingerprint_inputs(cls, file: str, prompts: str) -> tuple[str, str]:
        """A file that was changed is read again."""
        return ("" if file == NO_FILE else experiment_file(file)), prompts
