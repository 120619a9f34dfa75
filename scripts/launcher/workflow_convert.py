"""Turn a workflow as the front end saves it (a graph, format 0.4) into what the API runs (a prompt).

The front end does this in the browser; here the widgets of every node are recovered from the host's
``/object_info``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .errors import LauncherError

MUTED = 2
BYPASSED = 4
NOTES = frozenset({"Note", "MarkdownNote"})

WIDGET_TYPES: dict[str, tuple[type, ...]] = {
    "INT": (int,),
    "FLOAT": (float, int),
    "STRING": (str,),
    "BOOLEAN": (bool,),
    "COMBO": (str, int, float, bool),
}
"""Input types that the front end shows as a widget, with the Python types of the values it saves for them."""


class ConversionError(LauncherError):
    """A saved workflow does not fit the host's nodes, or uses what can only be resolved in the browser."""


def to_prompt(graph: Mapping[str, Any], object_info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The API prompt of the saved ``graph``: node id -> {"class_type", "inputs", "_meta"}.

    Muted nodes are left out, bypassed ones are replaced by the input of the same type, reroutes and
    primitives are resolved, notes skipped. Raises :class:`ConversionError` for a node class the host lacks,
    for widget values that do not fit it, and for subgraphs and dynamic combos.
    """
    links = {link[0]: (link[1], link[2]) for link in graph["links"]}
    nodes = {node["id"]: node for node in graph["nodes"]}
    prompt = {}
    for node in graph["nodes"]:
        if node["type"] in NOTES or node["type"] in _RESOLVED or node.get("mode", 0) in (MUTED, BYPASSED):
            continue
        info = object_info.get(node["type"])
        if info is None:
            raise ConversionError(
                f"{_describe(node)}: ComfyUI has no such node. It may be a subgraph (unpack it before "
                "saving) or belong to a pack that isn't installed."
            )
        inputs = dict(_widget_values(node, info))
        for slot in node.get("inputs", []):
            if slot.get("link") is not None:
                inputs.pop(slot["name"], None)
                source = _source(nodes, links, slot["link"], slot["type"])
                if source is not None:
                    inputs[slot["name"]] = source.value
        prompt[str(node["id"])] = {
            "class_type": node["type"],
            "inputs": inputs,
            "_meta": {"title": node.get("title") or info["display_name"] or node["type"]},
        }
    return prompt


class _Source:
    """What feeds an input: ``value`` is [node id, output index], or a primitive's constant."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _source(nodes: Mapping[Any, Any], links: Mapping[Any, Any], link: Any, wanted: str) -> _Source | None:
    """Follow ``link`` through reroutes and bypassed nodes; None where nothing feeds it."""
    node_id, output = links[link]
    node = nodes[node_id]
    mode = node.get("mode", 0)
    if mode == MUTED:
        return None
    if node["type"] == "PrimitiveNode":
        return _Source(node["widgets_values"][0])
    if node["type"] == "Reroute":
        inner = node["inputs"][0]["link"]
    elif mode == BYPASSED:
        inner = _bypass(node, output, wanted)
    else:
        return _Source([str(node_id), output])
    return None if inner is None else _source(nodes, links, inner, wanted)


_RESOLVED = frozenset({"PrimitiveNode", "Reroute"})


def _bypass(node: Mapping[str, Any], output: int, wanted: str) -> Any:
    """The link that a bypassed node passes on to its output: the input at the same place if its type fits,
    else the first.
    """
    inputs = node.get("inputs", [])
    if output < len(inputs) and inputs[output]["type"] == wanted:
        return inputs[output]["link"]
    return next((slot["link"] for slot in inputs if slot["type"] == wanted), None)


def _widgets(node: Mapping[str, Any], info: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(name, type, options) of every input that has a widget, in the order in which values are saved."""
    shown = {slot["widget"]["name"] for slot in node.get("inputs", []) if "widget" in slot}
    for group in ("required", "optional"):
        for name in info["input_order"].get(group, []):
            kind, *rest = info["input"][group][name]
            options = rest[0] if rest else {}
            if isinstance(kind, list):
                kind = "COMBO"
            if kind.startswith("COMFY_DYNAMICCOMBO"):
                raise ConversionError(f"{_describe(node)}: input {name!r} is dynamic and cannot be converted.")
            if (kind in WIDGET_TYPES and not options.get("forceInput")) or name in shown:
                shown.discard(name)
                yield name, kind, options
    if shown:
        raise ConversionError(f"{_describe(node)}: ComfyUI's node has no input {' and no input '.join(sorted(shown))}.")


def _widget_values(node: Mapping[str, Any], info: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """(name, value) of every input that has a widget; values behind the last one belong to display widgets."""
    widgets = list(_widgets(node, info))
    saved = node.get("widgets_values") or []
    if isinstance(saved, dict):
        for name, kind, options in widgets:
            yield name, _checked(node, name, kind, saved.get(name, options.get("default")))
        return
    rest = iter(saved)
    for name, kind, options in widgets:
        yield name, _checked(node, name, kind, next(rest, options.get("default")))
        if _has_control(name, kind, options):
            next(rest, None)


def _has_control(name: str, kind: str, options: Mapping[str, Any]) -> bool:
    """Whether the front end adds a "control after generate" widget, whose value is saved behind the input's
    own.
    """
    by_name = kind == "INT" and name in ("seed", "noise_seed")
    return bool(options.get("control_after_generate", by_name))


def _checked(node: Mapping[str, Any], name: str, kind: str, value: Any) -> Any:
    """``value`` if its type fits the widget: values saved for other widgets must not be taken for its."""
    types = WIDGET_TYPES.get(kind)
    if types is None:
        return value
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ConversionError(f"{_describe(node)}: {value!r} isn't a value for the input {name!r} ({kind}).")
    return value


def _describe(node: Mapping[str, Any]) -> str:
    return f"{node['type']} (node {node['id']})"
