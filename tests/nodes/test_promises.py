"""What graphs that people saved rely on: every node's id, inputs in their order with types and limits, and outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from comfy_api.latest import io
from hrv_pack.nodes import NODES

PROMISES = Path(__file__).with_name("promises.txt")

TEXTS = ("tooltip", "display_name")
ELSEWHERE = ("file", "sampler_name", "scheduler")
"""Inputs whose options depend on the machine's files or on the host."""


def without_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_texts(one) for key, one in value.items() if key not in TEXTS}
    if isinstance(value, (list, tuple)):
        return [without_texts(one) for one in value]
    return value


def promised(node: type[io.ComfyNode]) -> list[str]:
    """A line for each thing that a saved graph knows of a node, without the texts that may be improved."""
    schema = node.GET_SCHEMA()
    lines = [f"{schema.node_id}, output node" if schema.is_output_node else schema.node_id]
    for given in schema.inputs:
        options = without_texts(given.as_dict())
        if given.id in ELSEWHERE:
            options.pop("options", None)
        lines.append(f"  {given.id}: {given.get_io_type()} {json.dumps(options, ensure_ascii=False)}")
    lines += [f"  -> {one.id}: {one.io_type}{' list' if one.is_output_list else ''}" for one in schema.outputs]
    return [*lines, f"  hidden: {', '.join(sorted(one.value for one in schema.hidden)) or 'nothing'}"]


def test_nodes_keep_what_saved_graphs_rely_on(tmp_path: Path) -> None:
    found = [line for node in NODES for line in promised(node)]
    file = tmp_path / PROMISES.name
    file.write_text("\n".join([*found, ""]), encoding="utf-8")
    kept = PROMISES.read_text(encoding="utf-8").splitlines()
    assert found == kept, f"If no saved graph can notice the change (a new node), copy {file} to {PROMISES}."
