"""Outputs of controls that lead nowhere: what the host would do in silence."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from comfy_api.latest import io

from .node_text import show_text

_MODEL, _CONDITIONING = 0, 1


def wiring_complaint(prompt: Mapping[str, Any], node_id: str, controls: Collection[str]) -> str | None:
    """What keeps a control's node from having an effect in a prompt as the API takes it, or None.

    ``controls`` are the ids of the classes whose outputs are a MODEL and a CONDITIONING: a model from any of them reads
    the controls of all. Only what the prompt says is known: nodes may be the host's own expansion of others.
    """
    nodes = {name for name, node in prompt.items() if node.get("class_type") in controls}
    if node_id not in nodes:
        return None
    # A group node or a subgraph hands its inputs on under names like "12:3"; links keep the form [node, output].
    links = [
        (name, link) for name, node in prompt.items() for link in node.get("inputs", {}).values() if _is_link(link)
    ]
    if not any(link == [node_id, _CONDITIONING] for _, link in links):
        return "Nothing uses the CONDITIONING of this node, so its control acts nowhere: connect it to the sampler."
    if not any(link[0] in nodes and link[1] == _MODEL and name not in nodes for name, link in links):
        return "Nothing samples with the MODEL of an HRV control, so no control acts: connect it to the sampler."
    return None


def check_wiring(node: type[io.ComfyNode], controls: Collection[str]) -> None:
    """Say in the log and on the node what :func:`wiring_complaint` finds; the schema asks for the prompt and its id."""
    if node.hidden is None or not node.hidden.prompt:
        return
    complaint = wiring_complaint(node.hidden.prompt, node.hidden.unique_id, controls)
    if complaint is not None:
        logging.warning("[HRV] %s: %s", node.SCHEMA.display_name, complaint)
        show_text(node, complaint)


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
