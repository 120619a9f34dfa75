"""Where the nodes and wires of a saved graph are drawn, computed from its file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

# As the graph library draws (LGraphNode, LGraphGroup, Reroute, LGraphCanvas.renderLink).
TITLE, SLOT = 30, 20
TITLE_OF_FONT = 1.4
CURVE, MOST_CURVE = 0.25, 80
POINTS = 40


NEAR_SLOT = 24
"""Within so many pixels of its slots a wire lies on its own nodes."""

Graph = dict[str, Any]
Link = list[Any]
"""Its number, the node and output that it comes from, the node and input that it goes to, and its type."""

Point = tuple[float, float]


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def holds(self, x: float, y: float) -> bool:
        return self.left < x < self.right and self.top < y < self.bottom


def node_boxes(graph: Graph) -> dict[int, Box]:
    return {
        node["id"]: Box(x, y - TITLE, x + width, y + height)
        for node in graph["nodes"]
        for (x, y), (width, height) in [(node["pos"], node["size"])]
    }


def title_boxes(graph: Graph) -> list[Box]:
    return [
        Box(x, y, x + width, y + TITLE_OF_FONT * group.get("font_size", 24))
        for group in graph["groups"]
        for x, y, width, _ in [group["bounding"]]
    ]


def wires(graph: Graph) -> Iterator[tuple[Link, list[Point]]]:
    """Every link with its points: where it leaves, the reroutes on its way, and where it arrives."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    reroutes = {one["id"]: one for one in graph["extra"].get("reroutes", [])}
    last = {one["id"]: one["parentId"] for one in graph["extra"].get("linkExtensions", [])}
    for link in graph["links"]:
        number, origin, output, target, given, _ = link
        one, other = nodes[origin], nodes[target]
        # Inputs of widgets that no link replaces take no room among the slots.
        slots = [slot for slot in other["inputs"] if not slot.get("widget")]
        place = slots.index(other["inputs"][given])
        via: list[Point] = []
        reroute = last.get(number)
        while reroute is not None:
            assert reroutes[reroute]["linkIds"] == [number], "a reroute of several wires bends by all of them"
            via.insert(0, tuple(reroutes[reroute]["pos"]))
            reroute = reroutes[reroute].get("parentId")
        start = (one["pos"][0] + one["size"][0] - SLOT / 2, one["pos"][1] + (output + 0.7) * SLOT)
        end = (other["pos"][0] + SLOT / 2, other["pos"][1] + (place + 0.7) * SLOT)
        yield link, [start, *via, end]


def drawn(points: list[Point]) -> Iterator[Point]:
    """Points of the line through some points: Bézier curves, bent at each by where it comes from and goes to."""
    leaves: Point = (1.0, 0.0)
    for number, (start, end) in enumerate(pairwise(points)):
        length = math.dist(start, end)
        # Only reroutes bend by at most so much.
        out = CURVE * length if number == 0 else min(MOST_CURVE, CURVE * length)
        arrives, into = (1.0, 0.0), CURVE * length
        if number + 2 < len(points):
            arrives, into = direction(start, end, points[number + 2]), min(MOST_CURVE, CURVE * length)
        controls = [
            start,
            (start[0] + out * leaves[0], start[1] + out * leaves[1]),
            (end[0] - into * arrives[0], end[1] - into * arrives[1]),
            end,
        ]
        for step in range(POINTS + 1):
            part = step / POINTS
            weights = [(1 - part) ** 3, 3 * (1 - part) ** 2 * part, 3 * (1 - part) * part**2, part**3]
            x, y = (sum(w * point[axis] for w, point in zip(weights, controls, strict=True)) for axis in (0, 1))
            yield x, y
        leaves = arrives


def direction(before: Point, at: Point, after: Point) -> Point:
    """Where a wire goes at a reroute: halfway between where it comes from and where it goes to."""
    comes = math.atan2(at[1] - before[1], at[0] - before[0])
    goes = math.atan2(after[1] - at[1], after[0] - at[0])
    half = (comes - goes) / 2
    if abs(half) > math.pi / 2:
        half += math.pi
    return math.cos(comes - half), math.sin(comes - half)


def is_free(link: Link, points: list[Point], boxes: dict[int, Box], titles: list[Box]) -> bool:
    """Whether the wire through some points goes under no node and through no group's title."""
    own = {link[1], link[3]}
    for point in drawn(points):
        near = min(math.dist(point, points[0]), math.dist(point, points[-1])) < NEAR_SLOT
        if any(box.holds(*point) and not (number in own and near) for number, box in boxes.items()):
            return False
        if any(title.holds(*point) for title in titles):
            return False
    return True
