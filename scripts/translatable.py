"""What of the pack can be said in other languages: the texts of its nodes' schemas and of its page, in English.

Needs a ComfyUI on the import path, as the nodes do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pack_import import PACK_ROOT, import_pack

SECTIONS = ("categories", "nodes", "search", "descriptions", "inputs", "outputs", "tooltips", "commands", "page")
"""Of a language's texts.json: English texts with their translations, and in "search" other words for nodes' names."""

PACK_MENU = "HRV"
"""The menu that has the nodes, called so in every language."""

_LITERAL = r'("(?:[^"\\]|\\.)*")'
# What web/hrv/texts.js is asked for, and the texts that panels and fields have for it.
_SAID = re.compile(rf"(?:(?<![.\w])say\(|\b(?:title|empty|all): )\s*{_LITERAL}")
_COMMAND = re.compile(rf"\bid: {_LITERAL}, label: {_LITERAL}")


def schemas() -> list[Any]:
    """The schemas of all nodes."""
    import_pack()
    from hrv_pack.host.files.folders import register_folder, register_loras
    from hrv_pack.nodes import NODES

    register_folder()
    register_loras()
    return [node.GET_SCHEMA() for node in NODES]


def input_names(found: list[Any]) -> dict[tuple[str, str], str]:
    """What the page calls each input, by node and input; with its type if others called so have another.

    "pairs" is a number of pairs at one node and a text at another, which may be different words in other languages.
    """
    types: dict[str, set[str]] = {}
    for schema in found:
        for given in schema.inputs:
            types.setdefault(given.display_name or given.id, set()).add(given.get_io_type())
    names = {}
    for schema in found:
        for given in schema.inputs:
            name = str(given.display_name or given.id)
            several = len(types[name]) > 1
            names[schema.node_id, given.id] = f"{name} ({given.get_io_type()})" if several else name
    return names


def outputs_with_names(schema: Any) -> Iterator[tuple[int, str]]:
    """Places and names of the outputs that have one; the page calls all others by their types."""
    for place, output in enumerate(schema.outputs):
        if output.display_name and output.display_name != output.io_type:
            yield place, output.display_name


def english_texts(found: list[Any]) -> dict[str, list[str]]:
    """All texts of some schemas and of the page by section, each once, in their order."""
    texts: dict[str, list[str]] = {section: [] for section in SECTIONS}
    for schema in found:
        texts["categories"] += [part for part in schema.category.split("/") if part != PACK_MENU]
        texts["nodes"].append(schema.display_name)
        texts["search"].append(schema.display_name)
        texts["descriptions"].append(schema.description)
        texts["outputs"] += [name for _, name in outputs_with_names(schema)]
        texts["tooltips"] += [one.tooltip for one in (*schema.inputs, *schema.outputs) if one.tooltip]
    texts["inputs"] = list(input_names(found).values())
    texts["commands"] = list(commands().values())
    texts["page"] = page_texts()
    return {section: list(dict.fromkeys(those)) for section, those in texts.items()}


def page_texts() -> list[str]:
    """What the modules of the page say."""
    modules = sorted((PACK_ROOT / "web").glob("*.js")) + sorted((PACK_ROOT / "web" / "hrv").glob("*.js"))
    return [json.loads(found) for module in modules for found in _SAID.findall(_read(module))]


def commands() -> dict[str, str]:
    """The labels of the page's commands by their ids."""
    found = _COMMAND.findall(_read(PACK_ROOT / "web" / "hrv.js"))
    return {json.loads(name): json.loads(label) for name, label in found}


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8")
