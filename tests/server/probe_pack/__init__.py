"""Nodes that fail, last until they are cancelled, or look at the process they run in: what no core node does."""

from __future__ import annotations

import gc
import json
import time
from typing import Any

import psutil
import torch
from comfy.utils import ProgressBar
from comfy_api.latest import ComfyExtension, io


class ProbeFail(io.ComfyNode):
    """Raises an error with the given text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeFail",
            inputs=[io.String.Input("message")],
            outputs=[io.Image.Output()],
            category="probe",
        )

    @classmethod
    def execute(cls, message: str) -> io.NodeOutput:
        raise ValueError(message)


class ProbeLast(io.ComfyNode):
    """Takes the given number of steps of 50 ms, and reports each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeLast",
            inputs=[io.Int.Input("steps", default=1, min=1, max=10_000)],
            outputs=[io.Image.Output()],
            category="probe",
        )

    @classmethod
    def fingerprint_inputs(cls, steps: int) -> float:
        return time.monotonic()

    @classmethod
    def execute(cls, steps: int) -> io.NodeOutput:
        bar = ProgressBar(steps)
        for _ in range(steps):
            time.sleep(0.05)
            bar.update(1)
        return io.NodeOutput(torch.zeros(1, 8, 8, 3))


class ProbeState(io.ComfyNode):
    """Tells, once ``after`` is there, the memory of the process and what a MODEL carries."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeState",
            inputs=[io.Model.Input("model"), io.Image.Input("after")],
            is_output_node=True,
            category="probe",
        )

    @classmethod
    def execute(cls, model: Any, after: torch.Tensor) -> io.NodeOutput:
        gc.collect()
        carried = {
            "options": repr(model.model_options),
            "wrappers": repr(model.wrappers),
            "attachments": repr(model.attachments),
            "patches": [len(model.patches), len(model.object_patches), len(model.hook_patches)],
        }
        state = {"bytes": psutil.Process().memory_info().rss, "carried": carried}
        return io.NodeOutput(ui={"text": [json.dumps(state)]})


class ProbeExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [ProbeFail, ProbeLast, ProbeState]


async def comfy_entrypoint() -> ProbeExtension:
    return ProbeExtension()
