"""Attend and Excite, and the report of what it did."""

from __future__ import annotations

import json
from typing import Any

import torch
from comfy_api.latest import io

from ..host.attend_and_excite.subjects import excite
from ..host.models.layouts import require_fitting
from ..hrv.attend_and_excite.pictures import curves_picture, maps_picture
from ..hrv.attend_and_excite.report import ReportLog
from ..hrv.attend_and_excite.settings import ExcitementSettings, parse_thresholds
from ..hrv.attend_and_excite.subjects import parse_subjects
from ..hrv.progress import Window
from ..hrv.relevance.vectors import HRV
from .inputs import clamp_input, progress_input
from .menu import CONTROL
from .node import Node
from .outputs import image_tensor, picture_output
from .sockets import HRVSocket, ReportSocket
from .wiring import check_outputs, wiring_hidden

_DEFAULTS = ExcitementSettings()
_THRESHOLDS = ", ".join(f"{one.progress:g}: {one.maximum:g}" for one in _DEFAULTS.thresholds)


class AttendAndExcite(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_AttendAndExcite",
            display_name="Attend and Excite (HRV)",
            category=CONTROL,
            description="Helps every subject of a prompt to appear: while the image forms, the latent moves until "
            "each subject gets attention somewhere, from the heads that matter for its concept.",
            search_aliases=["attend and excite", "a&e", "missing object", "multi-concept", "two subjects", "hrv"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model to sample with; it is patched to read subjects, which stay on the conditioning.",
                ),
                io.Conditioning.Input("conditioning", tooltip="From CLIP Text Encode (HRV), or from an HRV control."),
                HRVSocket.Input(
                    "hrv", optional=True, tooltip="Needed for subjects with a concept; without one it is plain A&E."
                ),
                io.String.Input(
                    "subjects",
                    default="cat: Animals, frog: Animals",
                    multiline=True,
                    tooltip="Words of the prompt that the image should show, each with a concept of the HRV, or "
                    "without one for plain Attend-and-Excite. Separate them with commas or new lines.",
                ),
                io.Float.Input(
                    "step_size",
                    default=_DEFAULTS.step_size,
                    min=0.0,
                    max=1000.0,
                    step=0.5,
                    tooltip="How far an update moves the latent; published: 20. 0 only watches and changes nothing.",
                ),
                io.Int.Input(
                    "iterations",
                    default=_DEFAULTS.iterations,
                    min=1,
                    max=1000,
                    tooltip="The most updates to reach a threshold; one more follows, as in every step. Published: 20.",
                ),
                io.String.Input(
                    "thresholds",
                    default=_THRESHOLDS,
                    tooltip="Pairs of progress: share of attention that each subject must reach at some place by "
                    "then. Empty for one update per step.",
                    advanced=True,
                ),
                io.Float.Input(
                    "decay",
                    default=_DEFAULTS.decay,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="The step size falls with the square root of a number that goes from 1 to this over the "
                    "run; published: 0.5.",
                    advanced=True,
                ),
                progress_input(
                    "start", _DEFAULTS.window.start, "Sampling progress at which updates begin: 0 is pure noise."
                ),
                progress_input("end", _DEFAULTS.window.end, "Sampling progress at which updates end; published: 0.5."),
                io.Int.Input(
                    "resolution",
                    default=_DEFAULTS.resolution,
                    min=2,
                    max=64,
                    tooltip="Side of the maps of subjects with a concept, for a square image; published: 8.",
                    advanced=True,
                ),
                io.Float.Input(
                    "smoothing",
                    default=_DEFAULTS.smoothing,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    tooltip="Sigma of the 3 x 3 Gaussian over the maps; published: 0.5. 0 for none.",
                    advanced=True,
                ),
                clamp_input(),
                io.Boolean.Input(
                    "checkpointing",
                    default=False,
                    tooltip="Less memory, about a third more time: activations are computed again for the gradient.",
                    advanced=True,
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The model, patched to move latents for conditionings with subjects."),
                io.Conditioning.Output(tooltip="The conditioning with these subjects: the positive of the sampler."),
                ReportSocket.Output("report", display_name="report", tooltip="For Attend and Excite Report."),
            ],
            hidden=wiring_hidden(),
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        conditioning: Any,
        subjects: str,
        step_size: float,
        iterations: int,
        thresholds: str,
        decay: float,
        start: float,
        end: float,
        resolution: int,
        smoothing: float,
        clamp: float,
        checkpointing: bool,
        hrv: HRV | None = None,
    ) -> io.NodeOutput:
        check_outputs(cls)
        if hrv is not None:
            require_fitting(hrv, model)
        settings = ExcitementSettings(
            step_size, decay, parse_thresholds(thresholds), iterations, Window(start, end), resolution, smoothing
        )
        return io.NodeOutput(
            *excite(
                model,
                conditioning,
                parse_subjects(subjects),
                hrv,
                settings,
                clamp=clamp or None,
                checkpointing=checkpointing,
                node=cls.hidden.unique_id if cls.hidden else "",
            )
        )


class AttendAndExciteReport(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_ExcitementReport",
            display_name="Attend and Excite Report",
            category=CONTROL,
            description="Shows what Attend and Excite did in a run: the loss and each subject's maximum at every "
            "update, and where each subject ended up getting attention, as pictures, masks and JSON.",
            search_aliases=["attend and excite curve", "subject maps", "subject masks", "excitement", "loss curve"],
            is_output_node=True,
            inputs=[
                ReportSocket.Input("report", tooltip="From Attend and Excite (HRV)."),
                io.Latent.Input("latent", tooltip="Straight from the sampler: it identifies the run."),
            ],
            outputs=[
                io.Image.Output("curves", display_name="curves", tooltip="Loss and maxima, update by update."),
                io.Image.Output("maps", display_name="maps", tooltip="The last map of each subject, image by image."),
                io.Mask.Output(
                    "masks",
                    display_name="masks",
                    tooltip="The same maps as masks at the size of the image: all subjects of the first image, then "
                    "of the next.",
                ),
                io.String.Output("json", display_name="json", tooltip="All numbers."),
            ],
        )

    @classmethod
    def execute(cls, report: ReportLog, latent: dict[str, Any]) -> io.NodeOutput:
        samples = latent["samples"]
        found = report.find(samples.float().cpu().numpy())
        size = (8 * samples.shape[-2], 8 * samples.shape[-1])
        masks = [
            torch.nn.functional.interpolate(torch.from_numpy(of_subject)[:, None], size, mode="bilinear").clamp(0, 1)
            for of_subject in found.maps
        ]
        # [subjects, B, 1, h, w] to masks image by image.
        ordered = torch.stack(masks, dim=1).flatten(0, 2) if masks else torch.zeros(len(samples), *size)
        text = json.dumps(found.to_json(), indent=2)
        return picture_output(cls, curves_picture(found), image_tensor(maps_picture(found)), ordered, text)
