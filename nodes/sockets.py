"""Socket types, inputs and conversions that several nodes share."""

from __future__ import annotations

import re
from typing import Any

import comfy.samplers
import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image

from ..hrv.prompts.tokens import ALL_WORDS

HRVSocket = io.Custom("HRV")
ConceptsSocket = io.Custom("HRV_CONCEPTS")
ScorerSocket = io.Custom("HRV_SCORER")
ExperimentSocket = io.Custom("HRV_EXPERIMENT")

CATEGORY = "HRV"

CONTROL_NODES = (
    "HRV_ConceptStrengthen",
    "HRV_ConceptAdjust",
    "HRV_WeakenHeads",
    "HRV_ScaleHeads",
    "HRV_PromptEdit",
    "HRV_AttendAndExcite",
)
"""The nodes that put something on a conditioning: their first outputs are :func:`control_outputs`."""

CONTROL_HIDDEN = (io.Hidden.prompt, io.Hidden.unique_id)
"""What such a node asks for, so that it can say whether anything uses its outputs."""


def control_connections() -> list[Any]:
    """What every control acts on."""
    return [
        io.Model.Input("model", tooltip="The model that will sample; it gets the mechanism, no setting."),
        io.Conditioning.Input("conditioning", tooltip="From CLIP Text Encode (HRV), or from another HRV control."),
    ]


def hrv_input() -> Any:
    """The HRV of a control."""
    return HRVSocket.Input("hrv", tooltip="Built on this model or on a relative with the same heads.")


def control_outputs() -> list[Any]:
    """What every control gives."""
    return [
        io.Model.Output(tooltip="The model that reads controls; sample with it, whatever the number of controls."),
        io.Conditioning.Output(tooltip="The conditioning with this control added to those it carried."),
    ]


def strength_and_window() -> list[Any]:
    """How much and when a control acts."""
    return [
        io.Float.Input(
            "strength",
            default=1.0,
            min=-5.0,
            max=5.0,
            step=0.05,
            tooltip="0 changes nothing (bit for bit), 1 is the full effect; between and beyond is linear.",
        ),
        io.Float.Input(
            "start",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Sampling progress at which the control begins: 0 is pure noise, 1 the finished image.",
            advanced=True,
        ),
        io.Float.Input(
            "end",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Sampling progress at which the control ends.",
            advanced=True,
        ),
    ]


def clamp_input() -> Any:
    """The limit of the HRV's elements in a control."""
    return io.Float.Input(
        "clamp",
        default=0.0,
        min=0.0,
        max=100.0,
        step=0.5,
        tooltip="Upper limit of the HRV's elements, 0 for none. Published: 9 for SDXL, none for SD 1.x.",
        advanced=True,
    )


def words_input(default: str = "") -> Any:
    """The words of the prompt that a control acts on."""
    return io.String.Input(
        "words",
        default=default,
        tooltip="Words or phrases of the prompt to act on, separated by commas, as written there: 'rose-colored'; "
        f"{ALL_WORDS} for all words. Empty: the conditioning passes through unchanged.",
    )


def occurrence_input() -> Any:
    """Which occurrence of its words a control acts on; the last input, so that older graphs keep their settings."""
    return io.String.Input(
        "occurrence",
        default="all",
        optional=True,
        tooltip="Where a word stands in the prompt several times: all, first, or a number from 1.",
        advanced=True,
    )


def sampling_inputs() -> list[Any]:
    """How images are made that a node makes by itself."""
    return [
        io.Int.Input("steps", default=20, min=1, max=1000, tooltip="Sampling steps of every image."),
        io.Float.Input("cfg", default=7.5, min=0.0, max=100.0, step=0.1, tooltip="As in KSampler."),
        io.Combo.Input(
            "sampler_name", options=comfy.samplers.KSampler.SAMPLERS, default="euler", tooltip="As in KSampler."
        ),
        io.Combo.Input(
            "scheduler", options=comfy.samplers.KSampler.SCHEDULERS, default="normal", tooltip="As in KSampler."
        ),
        io.Int.Input("width", default=512, min=16, max=8192, step=8, tooltip="Pixels; 128 for HRV-mini."),
        io.Int.Input("height", default=512, min=16, max=8192, step=8, tooltip="Pixels; 128 for HRV-mini."),
        io.Int.Input(
            "batch_size",
            default=1,
            min=1,
            max=256,
            tooltip="Images generated at once: faster, but more memory. Draws stay the same.",
            advanced=True,
        ),
        io.String.Input("negative", default="", tooltip="Negative prompt of all images.", advanced=True),
    ]


def split_words(words: str) -> list[str]:
    r"""The phrases of a comma-separated field, without empty ones; "\," is a comma inside a phrase."""
    phrases = [phrase.replace(r"\,", ",").strip() for phrase in re.split(r"(?<!\\),", words)]
    return [phrase for phrase in phrases if phrase]


def image_tensor(picture: Image.Image) -> torch.Tensor:
    """An RGB picture as the host's IMAGE: float32 [1, height, width, 3] from 0 to 1."""
    return torch.from_numpy(np.array(picture, dtype=np.float32) / 255)[None]
