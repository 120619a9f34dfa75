"""Example workflows as they are drawn, computed from their files: no wire under a node or through a group's title, and
the whole graph is legible on one screen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from launcher.paths import PACK_ROOT
from launcher.workflow_drawing import Box, Graph, is_free, node_boxes, title_boxes, wires

EXAMPLES = sorted((PACK_ROOT / "example_workflows").glob("*.json"))

SCREEN = (1860, 960)
"""Of a full-HD screen, what the page's bars leave."""

SMALLEST = 0.5


def graph_of(file: Path) -> Graph:
    found: Graph = json.loads(file.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_no_wire_goes_under_a_node_or_through_a_title(file: Path) -> None:
    graph = graph_of(file)
    boxes, titles = node_boxes(graph), title_boxes(graph)
    tangled = [link for link, points in wires(graph) if not is_free(link, points, boxes, titles)]
    assert tangled == [], f"python scripts/untangle_workflow.py {file.name}"


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_whole_graph_is_legible_on_a_full_hd_screen(file: Path) -> None:
    graph = graph_of(file)
    groups = [Box(x, y, x + width, y + height) for x, y, width, height in (one["bounding"] for one in graph["groups"])]
    everything = [*node_boxes(graph).values(), *groups]
    width = max(box.right for box in everything) - min(box.left for box in everything)
    height = max(box.bottom for box in everything) - min(box.top for box in everything)
    assert min(SCREEN[0] / width, SCREEN[1] / height) >= SMALLEST, (width, height)
