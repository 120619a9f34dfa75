"""Lead the wires of saved graphs round their nodes, by reroutes.

    python scripts/untangle_workflow.py example_workflows/03*.json

Nodes and groups stay where they are, and so do wires that are in nobody's way; reroutes of before are dropped. Where no
way is found, which is said, make more room between the nodes. In the file only "extra" changes.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from launcher.workflow_drawing import Box, Graph, Link, Point, is_free, node_boxes, title_boxes, wires

STEP = 10
"""Ways are looked for on a grid of so many pixels."""

AROUND = 120
"""Pixels beyond the outermost node that a way may take."""

ROOM = ((14, 9, 5, 20), (8, 5, 2, 12), (3, 2, 1, 6))
"""How far a way keeps from nodes, sideways and up and down, and from titles, and how far from a slot it begins; tried
in this order."""

# What a way costs beside its length in steps of the grid.
BEND, BESIDE_ANOTHER, ALONG_ITS_OWN, BACK = 14, 1.5, -0.35, 0.5

RIGHT, DOWN, UP, LEFT = range(4)
MOVES = ((1, 0), (0, 1), (0, -1), (-1, 0))

Cell = tuple[int, int]
Source = tuple[int, int]
"""A node and its output, all of whose wires are alike."""


class Router:
    """Finds ways between the boxes of a graph, along those that it found before for the same output."""

    def __init__(self, boxes: dict[int, Box], titles: list[Box]):
        self.boxes, self.titles = boxes, titles
        every = [*boxes.values(), *titles]
        self.left, self.top = min(box.left for box in every) - AROUND, min(box.top for box in every) - AROUND
        right, bottom = max(box.right for box in every) + AROUND, max(box.bottom for box in every) + AROUND
        self.size = int((right - self.left) / STEP) + 1, int((bottom - self.top) / STEP) + 1
        self.taken: dict[tuple[Cell, bool], Source] = {}
        self.closed = [self._closed(*room[:3]) for room in ROOM]

    def _closed(self, beside: float, above: float, title: float) -> set[Cell]:
        """The cells that are too near to a box."""
        grown = [(box, beside, above) for box in self.boxes.values()] + [(box, title, title) for box in self.titles]
        return {
            (x, y)
            for box, across, up in grown
            for x in range(
                math.ceil((box.left - across - self.left) / STEP), int((box.right + across - self.left) / STEP) + 1
            )
            for y in range(math.ceil((box.top - up - self.top) / STEP), int((box.bottom + up - self.top) / STEP) + 1)
        }

    def way(self, link: Link, points: list[Point]) -> list[Point] | None:
        """The corners of a way for a wire, with as few points as leave it free; None if there is no way."""
        (_, origin, output, target, _, _), (start, *_, end) = link, points
        for closed, (*_, off) in zip(self.closed, ROOM, strict=True):
            first, last = (self.boxes[origin].right + off, start[1]), (self.boxes[target].left - off, end[1])
            cells = self._path(self._cell(first), self._cell(last), (origin, output), closed)
            if cells is not None:
                break
        else:
            return None
        for one, other in pairwise(cells):
            self.taken[other, one[1] == other[1]] = (origin, output)
        corners = [self._point(cell) for cell in _corners(cells)]
        via = self._fewest(link, start, corners, end)
        if not is_free(link, [start, *via, end], self.boxes, self.titles):
            # Long curves bulge; points along them hold them.
            via = self._fewest(link, start, list(_dense(corners)), end)
        return via if is_free(link, [start, *via, end], self.boxes, self.titles) else None

    def _fewest(self, link: Link, start: Point, via: list[Point], end: Point) -> list[Point]:
        place = 0
        while place < len(via):
            fewer = via[:place] + via[place + 1 :]
            if is_free(link, [start, *fewer, end], self.boxes, self.titles):
                via = fewer
            else:
                place += 1
        return via

    def _cell(self, point: Point) -> Cell:
        return round((point[0] - self.left) / STEP), round((point[1] - self.top) / STEP)

    def _point(self, cell: Cell) -> Point:
        return self.left + cell[0] * STEP, self.top + cell[1] * STEP

    def _path(self, start: Cell, end: Cell, source: Source, closed: set[Cell]) -> list[Cell] | None:
        """The cheapest way that leaves and arrives to the right (A*)."""
        width, height = self.size
        heap: list[tuple[float, float, Cell, int, tuple[Cell, int] | None]] = [(0.0, 0.0, start, RIGHT, None)]
        came: dict[tuple[Cell, int], tuple[Cell, int] | None] = {}
        while heap:
            _, cost, cell, going, before = heapq.heappop(heap)
            if (cell, going) in came:
                continue
            came[cell, going] = before
            if cell == end and going == RIGHT:
                path = [cell]
                while before is not None:
                    path.append(before[0])
                    before = came[before]
                return path[::-1]
            for turn, (dx, dy) in enumerate(MOVES):
                there = cell[0] + dx, cell[1] + dy
                if not (0 <= there[0] < width and 0 <= there[1] < height) or turn + going == RIGHT + LEFT:
                    continue
                if there in closed and there != end:
                    continue
                other = self.taken.get((there, turn in (RIGHT, LEFT)))
                more = 1 + BEND * (turn != going) + BACK * (turn == LEFT)
                if other is not None:
                    more += ALONG_ITS_OWN if other == source else BESIDE_ANOTHER
                left = abs(there[0] - end[0]) + abs(there[1] - end[1])
                heapq.heappush(heap, (cost + more + 0.6 * left, cost + more, there, turn, (cell, going)))
        return None


def _corners(cells: list[Cell]) -> Iterator[Cell]:
    yield cells[0]
    for before, at, after in zip(cells, cells[1:], cells[2:], strict=False):
        if (at[0] - before[0], at[1] - before[1]) != (after[0] - at[0], after[1] - at[1]):
            yield at
    yield cells[-1]


def _dense(points: list[Point], apart: float = 60) -> Iterator[Point]:
    """The points with others between them, so that none is much further from the next than ``apart``."""
    for one, other in pairwise(points):
        parts = max(1, int(math.dist(one, other) // apart))
        for part in range(parts):
            yield tuple(a + (b - a) * part / parts for a, b in zip(one, other, strict=True))  # type: ignore[misc]
    yield points[-1]


def untangle(graph: Graph) -> list[Link]:
    """Give a graph reroutes where wires are in the way of something; the links for which no way was found."""
    extra: dict[str, Any] = graph["extra"]
    for name in ("reroutes", "linkExtensions"):
        extra.pop(name, None)
    boxes, titles = node_boxes(graph), title_boxes(graph)
    router = Router(boxes, titles)
    reroutes: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    lost = []
    for link, points in sorted(wires(graph), key=lambda wire: math.dist(wire[1][0], wire[1][-1])):
        if is_free(link, points, boxes, titles):
            continue
        way = router.way(link, points)
        if way is None:
            lost.append(link)
            continue
        # One for each wire: a reroute of several bends by all of them.
        for number, point in enumerate(way):
            before = {"parentId": len(reroutes)} if number else {}
            at = [round(place) for place in point]
            reroutes.append({"id": len(reroutes) + 1, "pos": at, "linkIds": [link[0]], **before})
        ends.append({"id": link[0], "parentId": len(reroutes)})
    if reroutes:
        extra.update(reroutes=reroutes, linkExtensions=ends)
    return lost


def with_extra(text: str, extra: dict[str, Any]) -> str:
    """The text of a saved graph with another "extra", an entry of a list in a line; all else stays as it is written."""
    begin = text.index('\n  "extra": ') + len('\n  "extra": ')
    _, length = json.JSONDecoder().raw_decode(text[begin:])
    parts = []
    for name, value in extra.items():
        written = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and value:
            written = "[\n" + ",\n".join(f"      {json.dumps(one)}" for one in value) + "\n    ]"
        parts.append(f"    {json.dumps(name)}: {written}")
    return text[:begin] + ("{\n" + ",\n".join(parts) + "\n  }" if parts else "{}") + text[begin + length :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    for file in parser.parse_args().files:
        text = file.read_text(encoding="utf-8")
        graph: Graph = json.loads(text)
        lost = untangle(graph)
        file.write_text(with_extra(text, graph["extra"]), encoding="utf-8")
        print(
            f"{file.name}: {len(graph['extra'].get('reroutes', []))} reroutes", *[f"no way for {link}" for link in lost]
        )


if __name__ == "__main__":
    main()
