"""Prompt Edit and Edit Words: an image of a prompt beside images of changed prompts (P2P-HRV)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io

from ..host.editing.prompts import add_row, add_word_edit, edit_prompt, has_concepts, ignored_settings, row_count
from ..host.editing.texts import require_editable
from ..host.mechanism import with_mechanism
from ..host.models.architectures import architecture_of
from ..host.models.capabilities import Capability
from ..host.models.layouts import require_fitting
from ..host.page.texts import show_text
from ..hrv.editing.alignment import read_pairs
from ..hrv.editing.edit import CROSS_END, SELF_END_HRV, SELF_END_PLAIN, EditWindows, WordEdit, with_concept
from ..hrv.errors import HRVError
from ..hrv.progress import Window
from ..hrv.relevance.vectors import HRV
from .control_inputs import occurrence_input, words_input
from .fields import split_words
from .input_groups import InputGroup, with_groups
from .inputs import attention_size_input, clamp_input, progress_input, strength_input
from .menu import EDIT
from .node import Node
from .sockets import HRVSocket
from .wiring import check_outputs, wiring_hidden

# What "end" means where the user leaves it to others.
_LEFT_OPEN = -1.0


def _window(name: str, start: float, end: float) -> Window:
    """The window of two inputs. Raises HRVError that names them."""
    try:
        return Window(start, end)
    except HRVError as error:
        raise HRVError(f"{name}_start and {name}_end: {error}") from None


@dataclass(frozen=True)
class _DecidingConcept(InputGroup):
    """A concept of an HRV whose heads decide about words, and how much it counts; none without an HRV."""

    clamp: float
    hrv: HRV | None = None
    concept: str = ""
    strength: float = 1.0

    @staticmethod
    def inputs(tooltip: str) -> list[Any]:
        """All but :func:`~.inputs.clamp_input`; ``tooltip`` is of the HRV."""
        return [
            HRVSocket.Input("hrv", optional=True, tooltip=tooltip),
            io.String.Input("concept", default="Color", optional=True, tooltip="The name of a concept of the HRV."),
            strength_input(
                "How much the HRV counts: 0 keeps the words' own attention as it is, 1 is the full effect.",
                optional=True,
            ),
        ]

    def edit(self, positions: tuple[int, ...], weight: float = 1.0, window: Window | None = None) -> WordEdit:
        """What the words at these positions do. Raises HRVError as :func:`~..hrv.editing.edit.with_concept` does."""
        if self.hrv is None:
            return WordEdit(positions, weight=weight, window=window)
        return with_concept(self.hrv, self.concept, positions, self.strength, self.clamp or None, weight, window)


class PromptEdit(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_PromptEdit",
            display_name="Prompt Edit (P2P-HRV)",
            category=EDIT,
            description="Makes the image of a prompt and, beside it, the same image with the prompt changed: "
            "swapped, added, removed or re-weighted words. With an HRV, the heads of a concept decide "
            "about changed words.",
            search_aliases=["prompt to prompt", "p2p", "edit image", "word swap", "attention injection", "hrv edit"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model to sample with; it is patched to read edits, which stay on the conditioning.",
                ),
                io.Conditioning.Input(
                    "source",
                    tooltip="The prompt of the image, from CLIP Text Encode (HRV). For another edit of the same "
                    "image, the CONDITIONING of another Prompt Edit.",
                ),
                io.Conditioning.Input(
                    "target", tooltip="The prompt of the edited image, from CLIP Text Encode (HRV) or Edit Words."
                ),
                io.Latent.Input(
                    "latent",
                    tooltip="The latent to sample: empty, an image, or an inverted image. For another edit, the "
                    "LATENT of the Prompt Edit that the source comes from.",
                ),
                io.String.Input(
                    "pairs",
                    default="",
                    multiline=True,
                    tooltip="Which phrases became which, such as 'red car -> blue boat', separated by commas or new "
                    "lines; 'old ->' for removed words, '-> new' for new ones. If empty, words are matched "
                    "automatically.",
                ),
                progress_input(
                    "cross_end",
                    CROSS_END,
                    "Sampling progress until which the edit has the source's cross-attention: lower frees the layout.",
                    advanced=False,
                ),
                progress_input(
                    "self_end",
                    _LEFT_OPEN,
                    "Sampling progress until which the edit has the source's self-attention: lower frees the shapes. "
                    f"-1: as published, {SELF_END_HRV:g} with an HRV (Edit Words' too), {SELF_END_PLAIN:g} without.",
                    least=_LEFT_OPEN,
                    advanced=False,
                ),
                *_DecidingConcept.inputs(
                    "Lets the heads of a concept decide about all changed words; none: plain P2P."
                ),
                clamp_input(),
                progress_input("cross_start", 0.0, "Sampling progress at which that begins."),
                progress_input("self_start", 0.0, "Sampling progress at which that begins."),
                attention_size_input(
                    "self_size",
                    "Largest self-attention that is taken from the source, as a share of the latent's "
                    "positions: 0.0625 is 16x16 of 64x64, 1 is all.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The model, patched to make edits; sample with it."),
                io.Conditioning.Output(tooltip="The sampler's positive: both prompts, a row each."),
                io.Latent.Output(tooltip="The sampler's latent: the source first, then its edits, from one noise."),
                io.String.Output("alignment", display_name="alignment", tooltip="Which words became which, as text."),
            ],
            hidden=wiring_hidden(),
        )

    @classmethod
    @with_groups
    def execute(
        cls,
        model: Any,
        source: Any,
        target: Any,
        latent: Any,
        pairs: str,
        cross_start: float,
        cross_end: float,
        self_start: float,
        self_end: float,
        self_size: float,
        deciding: _DecidingConcept,
    ) -> io.NodeOutput:
        check_outputs(cls)
        hrv = deciding.hrv
        if hrv is not None:
            require_fitting(hrv, model)
        if self_end == _LEFT_OPEN:
            self_end = SELF_END_HRV if hrv is not None or has_concepts(target) else SELF_END_PLAIN
        windows = EditWindows(
            _window("cross", cross_start, cross_end), _window("self", self_start, self_end), self_size
        )
        positive, edit = edit_prompt(
            source, target, windows, read_pairs(pairs), deciding.edit if hrv is not None else None
        )
        architecture = architecture_of(model, Capability.EDITING)
        edit.require_layout(architecture.layout)
        require_editable(architecture, positive)
        text = edit.describe()
        if hrv is not None and not edit.alignment.changed:
            text += "\n\nNo word was swapped or added, so the HRV of this node has nothing to decide."
        if windows.itself.start < windows.itself.end and self_size < architecture.least_share:
            text += (
                f"\n\nEvery attention of {architecture.name} has {architecture.least_share:g} of the latent's "
                f"positions, so self_size {self_size:g} takes no self-attention from the source. 1 takes all."
            )
        if ignored := ignored_settings(source, target):
            said = f"Of the target only its words count, not: {', '.join(ignored)}. All rows have the source's."
            logging.warning("[HRV] Prompt Edit: %s", said)
            text += f"\n\n{said}"
        show_text(cls, text)
        rows = add_row(latent, row_count(positive))
        return io.NodeOutput(with_mechanism(model), positive, rows, text)


class EditWords(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_EditWords",
            display_name="Edit Words (P2P-HRV)",
            category=EDIT,
            description="Gives some words of a target prompt more or less weight in Prompt Edit, a concept of their "
            "own, or a time window of their own.",
            search_aliases=["re-weight", "reweight words", "per word", "prompt to prompt", "p2p"],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="The target prompt, before it goes to Prompt Edit."),
                words_input(),
                io.Float.Input(
                    "weight",
                    default=1.0,
                    min=-10.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Multiplies the attention to the words: 2 doubles it, 0 removes it, below 0 does the "
                    "opposite.",
                ),
                *_DecidingConcept.inputs("Makes the words keep their own attention, by the heads of a concept."),
                progress_input("start", 0.0, "Sampling progress at which this begins."),
                progress_input(
                    "end",
                    _LEFT_OPEN,
                    "Sampling progress at which it ends; -1 for the cross-attention window of Prompt Edit.",
                    least=_LEFT_OPEN,
                ),
                clamp_input(),
                occurrence_input(),
            ],
            outputs=[io.Conditioning.Output(tooltip="The target, with this setting for Prompt Edit to read.")],
        )

    @classmethod
    @with_groups
    def execute(
        cls,
        conditioning: Any,
        words: str,
        weight: float,
        start: float,
        end: float,
        deciding: _DecidingConcept,
        occurrence: str = "all",
    ) -> io.NodeOutput:
        if end == _LEFT_OPEN and start > 0.0:
            raise HRVError(
                f"start is {start:g}, but end is {_LEFT_OPEN:g}, which leaves both to Prompt Edit's cross-attention "
                "window: set end too, or start to 0."
            )
        window = None if end == _LEFT_OPEN else Window(start, end)

        def edit(positions: tuple[int, ...]) -> WordEdit:
            return deciding.edit(positions, weight, window)

        return io.NodeOutput(add_word_edit(conditioning, split_words(words), edit, occurrence))
