"""Groups of inputs: what several nodes take together, read as one value.

The host calls ``execute`` with a keyword argument for each input of the schema. A node that takes a group names it
among its parameters, next to its other inputs::

    @classmethod
    @with_groups
    def execute(cls, model: Any, sampling: Sampling) -> io.NodeOutput: ...

A group's class gives the inputs for the schema too, so that both stand in one place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any, get_type_hints

from comfy_api.latest import io


@dataclass(frozen=True)
class InputGroup:
    """Inputs that belong together: a field for each, named as it is, with a default if the input is optional."""


def with_groups(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    """``execute`` as the host calls it: the inputs of every group among its parameters become that group.

    Raises TypeError for an input that is missing or that nothing takes, as any call does.
    """
    groups = {
        name: kind
        for name, kind in get_type_hints(execute).items()
        if isinstance(kind, type) and issubclass(kind, InputGroup)
    }

    @wraps(execute)
    def execute_with_groups(node: type[io.ComfyNode], /, **inputs: Any) -> io.NodeOutput:
        gathered = {
            name: kind(**{field.name: inputs.pop(field.name) for field in fields(kind) if field.name in inputs})
            for name, kind in groups.items()
        }
        return execute(node, **gathered, **inputs)

    return execute_with_groups
