"""What the nodes that put a control on a conditioning take and give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io

from ..host.mechanism import add_control
from ..hrv.controls.control import Control
from ..hrv.progress import Window
from ..hrv.prompts.tokens import ALL_WORDS
from .fields import split_words
from .input_groups import InputGroup
from .inputs import progress_input, strength_input
from .sockets import HRVSocket


def hrv_input() -> Any:
    """The HRV of a control."""
    return HRVSocket.Input("hrv", tooltip="Built on this model or on a relative with the same heads.")


def words_input(default: str = "") -> Any:
    """The words of the prompt that a control acts on."""
    return io.String.Input(
        "words",
        default=default,
        tooltip="Words or phrases of the prompt to act on, separated by commas, as written there: 'rose-colored'; "
        f"{ALL_WORDS} for all words. Empty: the conditioning passes through unchanged.",
    )


def occurrence_input() -> Any:
    """Which occurrence of its words a control acts on; behind the first inputs, so that older graphs keep theirs."""
    return io.String.Input(
        "occurrence",
        default="all",
        optional=True,
        tooltip="If the prompt contains a word several times: all, first, or a number from 1.",
        advanced=True,
    )


@dataclass(frozen=True)
class ControlledWords(InputGroup):
    """What a control acts on, as :meth:`connections`, :func:`words_input` and :func:`occurrence_input` give it."""

    model: Any
    conditioning: Any
    words: str
    occurrence: str = "all"

    @staticmethod
    def connections() -> list[Any]:
        return [
            io.Model.Input(
                "model",
                tooltip="The model to sample with; it is patched to read controls, which stay on the conditioning.",
            ),
            io.Conditioning.Input("conditioning", tooltip="From CLIP Text Encode (HRV), or from another HRV control."),
        ]

    def output(self, control: Callable[[tuple[int, ...]], Control]) -> io.NodeOutput:
        """The node's outputs; ``control`` makes the control for the token positions of the words."""
        return io.NodeOutput(
            *add_control(self.model, self.conditioning, split_words(self.words), control, self.occurrence)
        )


@dataclass(frozen=True)
class Effect(InputGroup):
    """How much and when a control acts."""

    strength: float
    start: float
    end: float

    @staticmethod
    def inputs() -> list[Any]:
        return [
            strength_input("0 changes nothing (bit for bit), 1 is the full effect; between and beyond is linear."),
            progress_input(
                "start", 0.0, "Sampling progress at which the control begins: 0 is pure noise, 1 the finished image."
            ),
            progress_input("end", 1.0, "Sampling progress at which the control ends."),
        ]

    def window(self) -> Window:
        """Raises HRVError for one that ends before it starts."""
        return Window(self.start, self.end)


def control_outputs() -> list[Any]:
    """What every control gives."""
    return [
        io.Model.Output(
            tooltip="The model, patched to read controls; sample with it, however many controls there are."
        ),
        io.Conditioning.Output(tooltip="The conditioning with this control added."),
    ]
