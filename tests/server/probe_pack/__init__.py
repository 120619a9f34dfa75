"""Nodes that fail, or that last until they are cancelled, on request: what no core node does."""

from __future__ import annotations

import time

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


class ProbeExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [ProbeFail, ProbeLast]


async def comfy_entrypoint() -> ProbeExtension:
    return ProbeExtension()
