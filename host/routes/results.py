"""How a workflow's nodes stand and what they gave, for a page that was opened after their run began."""

from __future__ import annotations

from typing import Any

from server import PromptServer

from ..page.running import workflow_id
from ..work.status_board import BOARD

OURS = "HRV_"
"""What the ids of the pack's node classes begin with."""


def statuses_of(workflow: str) -> list[dict[str, Any]]:
    """The last status of every node of a workflow that did long work; of prompts without a workflow, none."""
    return [status.public() for status in BOARD.of(workflow)] if workflow else []


def results_of(workflow: str) -> dict[str, Any]:
    """What the pack's nodes in a workflow told the page in the last run of each that the host remembers, by node."""
    found: dict[str, Any] = {}
    runs = PromptServer.instance.prompt_queue.get_history(map_function=lambda run: run)
    for run in runs.values() if workflow else ():
        _, _, prompt, extra_data, *_ = run["prompt"]
        if workflow_id(extra_data) == workflow:
            ours = {node for node, made in prompt.items() if str(made.get("class_type")).startswith(OURS)}
            found.update({node: output for node, output in run["outputs"].items() if node in ours})
    return found
