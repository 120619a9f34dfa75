"""The house that docs/development.md draws is the one on the disk, and the one whose imports are checked."""

from __future__ import annotations

import ast
import re

import pytest
from launcher.paths import PACK_ROOT

Floors = list[set[str]]
INDENT = "    "


def drawn() -> tuple[list[str], dict[str, Floors]]:
    """The layers of the picture from top to bottom, and the floors of those that have rooms."""
    text = (PACK_ROOT / "docs" / "development.md").read_text(encoding="utf-8")
    _, picture, _ = text[text.index("## The house") :].split("```", 2)
    layers: list[str] = []
    floors: dict[str, Floors] = {}
    for line in picture.strip().splitlines():
        name = re.sub(r"(/|\.py)$", "", line.split()[0])
        if not line.startswith(INDENT):
            layers.append(name)
        elif set(name) == {"-"}:
            floors[layers[-1]].append(set())
        else:
            rooms = floors.setdefault(layers[-1], [set()])
            assert name not in set().union(*rooms), f"{layers[-1]}/{name} is drawn twice"
            rooms[-1].add(name)
    return layers, floors


def contract(name: str) -> list[str]:
    """The layers of the import contract of this name, as pyproject.toml has them."""
    text = (PACK_ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (layers,) = re.findall(rf'name = "{re.escape(name)}"\n(?:(?!\[\[).)*?layers = (\[.*?\])', text, re.DOTALL)
    value = ast.literal_eval(layers)
    assert isinstance(value, list)
    return value


def test_layers_are_those_whose_imports_are_checked() -> None:
    layers, _ = drawn()
    assert [f"hrv_pack.{layer}" for layer in layers] == contract("nodes > mini > host > hrv > hrv_kernels")


@pytest.mark.parametrize("layer", ["host", "hrv"])
def test_rooms_are_those_on_the_disk(layer: str) -> None:
    folder = PACK_ROOT / layer
    rooms = {path.parent.name for path in folder.glob("*/__init__.py")}
    files = {path.stem for path in folder.glob("*.py") if path.stem != "__init__"}
    _, floors = drawn()
    assert set().union(*floors[layer]) == rooms | files


@pytest.mark.parametrize("layer", ["host", "hrv"])
def test_floors_are_those_whose_imports_are_checked(layer: str) -> None:
    _, floors = drawn()
    assert floors[layer] == [set(floor.split(" | ")) for floor in contract(f"floors of {layer}, capabilities apart")]
