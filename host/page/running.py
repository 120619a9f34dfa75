"""Which node of which workflow the host is running."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from comfy_execution.utils import get_executing_context
from server import PromptServer


class RunningNode(NamedTuple):
    """A node in a run: the ids of the workflow as the page saves it (empty without a page), the run, and the node.

    In subgraphs a node's id is a path such as "4:1".
    """

    workflow: str
    prompt_id: str
    node: str


def running_node(node: str = "") -> RunningNode | None:
    """The node that the host is running, or ``node`` of the same run; None outside of a run and without a server."""
    context, server = get_executing_context(), getattr(PromptServer, "instance", None)
    if context is None or server is None:
        return None
    running, _ = server.prompt_queue.get_current_queue_volatile()
    workflow = next((workflow_id(extra) for _, run, _, extra, *_ in running if run == context.prompt_id), "")
    return RunningNode(workflow, context.prompt_id, node or context.node_id)


def workflow_id(extra_data: Mapping[str, Any]) -> str:
    """The id of the workflow that a page sent along with a prompt; empty if it sent none."""
    workflow = (extra_data.get("extra_pnginfo") or {}).get("workflow")
    found = workflow.get("id") if isinstance(workflow, dict) else None
    return found if isinstance(found, str) else ""
