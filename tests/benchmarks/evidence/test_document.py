"""What is written of the evidence, and which directions have to hold."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hrv_pack.benchmarks.evidence.directions import DIRECTIONS, Direction, flipped
from hrv_pack.benchmarks.evidence.document import OF_MINI, OF_TRANSFORMER, write
from hrv_pack.benchmarks.evidence.measured import Measured
from hrv_pack.benchmarks.evidence.pieces import Section
from PIL import Image

AREA = "ordered_weakening.Color.causal.0.area"


def test_every_number_is_in_the_record_by_its_key(tmp_path: Path) -> None:
    numbers = {AREA: Measured(0.5, 0.25, 0.75, 64), "effort.paper.16.agreement": Measured(0.5, math.nan, math.nan, 16)}
    section = Section("Ordered weakening", numbers, "A table.\n", {"two-heads.png": Image.new("RGB", (4, 4))})
    write(
        tmp_path, OF_MINI, [section, Section("Effort", {}, "More.\n")], {"machine": "a laptop", "sizes": {"pairs": 16}}
    )
    record = json.loads((tmp_path / "evidence.json").read_text("utf-8"))
    assert record["made"] == {"machine": "a laptop", "sizes": {"pairs": 16}}
    assert record[AREA] == {"value": 0.5, "low": 0.25, "high": 0.75, "n": 64}
    assert record["effort.paper.16.agreement"] == {"value": 0.5, "low": None, "high": None, "n": 16}
    text = (tmp_path / "evidence.md").read_text("utf-8")
    assert "- machine: a laptop\n" in text and "sizes" not in text
    assert "## Ordered weakening\n\nA table.\n\n![two heads](pictures/evidence-two-heads.png)\n\n## Effort\n" in text
    assert (tmp_path / "pictures" / "evidence-two-heads.png").is_file()


def test_documents_lie_side_by_side(tmp_path: Path) -> None:
    for document, color in ((OF_MINI, "white"), (OF_TRANSFORMER, "black")):
        section = Section(
            "Curves", {AREA: Measured(0.5, 0.25, 0.75, 64)}, "", {"curves.png": Image.new("RGB", (4, 4), color)}
        )
        write(tmp_path, document, [section], {"model": color})
    for name, color in (("evidence", "white"), ("evidence-transformer", "black")):
        assert json.loads((tmp_path / f"{name}.json").read_text("utf-8"))["made"] == {"model": color}
        text = (tmp_path / f"{name}.md").read_text("utf-8")
        assert f"({name}.json)" in text and f"![curves](pictures/{name}-curves.png)" in text
        picture = Image.open(tmp_path / "pictures" / f"{name}-curves.png")
        assert picture.getpixel((0, 0)) == (255 if color == "white" else 0,) * 3


@pytest.mark.parametrize(("value", "bound", "sentence"), [
    (0.5, 0.2, ""),
    (0.5, AREA.replace("causal", "paper"), ""),
    (0.1, 0.2, f"{AREA} is 0.100, below 0.2."),
    (0.1, AREA.replace("causal", "paper"), f"{AREA} is 0.100, below {AREA.replace('causal', 'paper')}, 0.300."),
    (0.1, "not.measured", ""),
])  # fmt: skip
def test_a_direction_that_flips_is_a_sentence(value: float, bound: str | float, sentence: str) -> None:
    numbers = {AREA: Measured(value, 0.0, 1.0, 64), AREA.replace("causal", "paper"): Measured(0.3, 0.0, 1.0, 64)}
    assert Direction(AREA, bound).flipped(numbers) == sentence


def test_directions_of_what_was_not_measured_hold() -> None:
    assert flipped({}) == [] and len(DIRECTIONS) >= 7
