"""Graphs in the form that the host's API takes."""

from __future__ import annotations

from typing import Any


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    """One node of a graph."""
    return {"class_type": class_type, "inputs": inputs}
