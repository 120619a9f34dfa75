"""Groups of inputs, and that every node takes just what its schema says."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, dataclass, fields
from typing import Any, get_type_hints

import pytest
from comfy_api.latest import io
from hrv_pack.nodes import NODES
from hrv_pack.nodes.input_groups import InputGroup, with_groups


@dataclass(frozen=True)
class Size(InputGroup):
    width: int
    height: int = 8


class Told(io.ComfyNode):
    @classmethod
    @with_groups
    def execute(cls, name: str, size: Size, unit: str = "px") -> io.NodeOutput:
        return io.NodeOutput(cls, name, size, unit)


def told(**inputs: Any) -> tuple[Any, ...]:
    return Told.execute(**inputs).result


def test_the_inputs_of_a_group_become_the_group() -> None:
    assert told(name="a", width=3) == (Told, "a", Size(3, 8), "px")
    assert told(unit="mm", height=5, name="b", width=4) == (Told, "b", Size(4, 5), "mm")


@pytest.mark.parametrize("inputs", [{"name": "a"}, {"width": 3}, {"name": "a", "width": 3, "depth": 1}])
def test_what_is_missing_or_too_much_is_an_error(inputs: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"width|name|depth"):
        told(**inputs)


def taken(node: type[io.ComfyNode]) -> list[tuple[str, bool]]:
    """What a node's ``execute`` takes, with groups taken apart: names of inputs, and whether each can be left out."""
    execute = node.execute
    hints = get_type_hints(execute)
    inputs: list[tuple[str, bool]] = []
    for name, parameter in inspect.signature(execute).parameters.items():
        kind = hints[name]
        if isinstance(kind, type) and issubclass(kind, InputGroup):
            inputs += [(field.name, field.default is not MISSING) for field in fields(kind)]
        else:
            assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
            inputs.append((name, parameter.default is not inspect.Parameter.empty))
    return inputs


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_nodes_take_the_inputs_of_their_schemas_and_no_others(node: type[io.ComfyNode]) -> None:
    schema = [(given.id, bool(given.optional)) for given in node.GET_SCHEMA().inputs]
    assert sorted(taken(node)) == sorted(schema)
