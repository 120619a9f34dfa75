"""Outputs of controls that lead nowhere: what the host would do in silence."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from comfy_api.latest import io

import nodes as host_nodes

from ...hrv.errors import short
from .texts import show_text

_MODEL, _CONDITIONING = 0, 1

_Prompt = Mapping[str, Mapping[str, Any]]
_Output = tuple[str, int]


def wiring_complaint(prompt: _Prompt, node_id: str, controls: Collection[str]) -> str | None:
    """What keeps a control's node from having an effect in a prompt as the API takes it, or None.

    ``controls`` are the ids of the classes whose outputs are a MODEL and a CONDITIONING: a model from any of them reads
    the controls of all. Only what the prompt says is known: nodes may be the host's own expansion of others.
    """
    ours = {name for name, node in prompt.items() if node.get("class_type") in controls}
    if node_id not in ours:
        return None
    # A group node or a subgraph hands its inputs on under names like "12:3"; links keep the form [node, output].
    links = [
        (name, link) for name, node in prompt.items() for link in node.get("inputs", {}).values() if _is_link(link)
    ]
    if not any(link == [node_id, _CONDITIONING] for _, link in links):
        return "Nothing uses the CONDITIONING of this node, so its control has no effect: connect it to the sampler."
    if not any(link[0] in ours and link[1] == _MODEL and name not in ours for name, link in links):
        return (
            "Nothing samples with the MODEL of an HRV control, so no control has an effect: connect it to the sampler."
        )
    deaf = _samples_without_mechanism(prompt, node_id, ours)
    if deaf is not None:
        return (
            f"The node '{_title(prompt[deaf])}' ({deaf}) takes the CONDITIONING of this node, but its MODEL doesn't "
            "come from an HRV control, so the control has no effect there: connect the MODEL of this node to it."
        )
    return None


def _samples_without_mechanism(prompt: _Prompt, node_id: str, ours: Collection[str]) -> str | None:
    """The first node where this control's conditioning meets a model that no control has seen, or None.

    A conditioning is followed through whatever gives conditionings again; what the host has no class for ends the way.
    """
    todo: list[_Output] = [(node_id, _CONDITIONING)]
    seen = set(todo)
    while todo:
        output = todo.pop()
        for name, node in prompt.items():
            given = [
                key for key, value in node.get("inputs", {}).items() if _is_link(value) and _output(value) == output
            ]
            if not given:
                continue
            if name in ours:
                further = [_CONDITIONING]
            else:
                inputs, further = _sockets(node)
                models = [
                    value for key, value in node["inputs"].items() if inputs.get(key) == "MODEL" and _is_link(value)
                ]
                if models and not any(_comes_from(prompt, _output(model), ours) for model in models):
                    return name
            new = {(name, number) for number in further} - seen
            seen |= new
            todo.extend(sorted(new))
    return None


def _comes_from(prompt: _Prompt, output: _Output, ours: Collection[str]) -> bool:
    """Whether the MODEL of a control is this output or anywhere in front of it, whatever lies between."""
    todo, seen = [output], {output}
    while todo:
        name, number = todo.pop()
        if name in ours and number == _MODEL:
            return True
        new = {_output(value) for value in prompt.get(name, {}).get("inputs", {}).values() if _is_link(value)} - seen
        seen |= new
        todo.extend(new)
    return False


def _sockets(node: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """The types of a node's inputs by name, and the numbers of its outputs that are conditionings."""
    kind = host_nodes.NODE_CLASS_MAPPINGS.get(node.get("class_type"))
    if kind is None:
        return {}, []
    groups = kind.INPUT_TYPES()
    inputs = {name: given[0] for group in ("required", "optional") for name, given in groups.get(group, {}).items()}
    return inputs, [number for number, given in enumerate(kind.RETURN_TYPES) if given == "CONDITIONING"]


def _title(node: Mapping[str, Any]) -> str:
    """What people call a node: the title that they gave it, if the page told it."""
    return short(str(node.get("_meta", {}).get("title") or node.get("class_type")))


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


def _output(link: Any) -> _Output:
    return link[0], link[1]
