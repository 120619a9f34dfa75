"""Nodes that put something on a conditioning, and what each of them does so that its outputs lead somewhere."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.page.wiring import check_wiring

CONTROL_NODES = (
    "HRV_ConceptStrengthen",
    "HRV_ConceptAdjust",
    "HRV_WeakenHeads",
    "HRV_ScaleHeads",
    "HRV_ReadByConcept",
    "HRV_PromptEdit",
    "HRV_AttendAndExcite",
)
"""Their ids; the first outputs of each are a MODEL and a CONDITIONING."""


def wiring_hidden() -> list[io.Hidden]:
    """What such a node asks for, so that it can say whether anything uses its outputs."""
    return [io.Hidden.prompt, io.Hidden.unique_id]


def check_outputs(node: type[io.ComfyNode]) -> None:
    """Say in the log and on the node if its outputs lead nowhere."""
    check_wiring(node, CONTROL_NODES)
