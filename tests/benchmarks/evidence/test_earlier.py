"""Sections of a document are kept while others are measured again, if all is of the same model, host and seeds."""

from __future__ import annotations

import json
import math
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from evidence_run import Asked, measure
from hrv_pack.benchmarks.evidence.document import OF_MINI, OF_TRANSFORMER, Document, write
from hrv_pack.benchmarks.evidence.earlier import read_earlier
from hrv_pack.benchmarks.evidence.editing import Editing
from hrv_pack.benchmarks.evidence.hrvs import HRVs
from hrv_pack.benchmarks.evidence.measured import Measured
from hrv_pack.benchmarks.evidence.parts import all_parts
from hrv_pack.benchmarks.evidence.pieces import Section, Store, missing
from hrv_pack.benchmarks.evidence.sizes import QUICK
from hrv_pack.host.mini.loader import WEIGHTS
from launcher.errors import LauncherError
from launcher.paths import PACK_ROOT
from PIL import Image

DOCS = PACK_ROOT / "docs"
MADE = {
    "model": "HRV-mini", "host": "ComfyUI", "machine": "a laptop", "processor time": "3.1 hours", "seeds": "50,000",
    "sizes": {"pairs": 16},
}  # fmt: skip
PARTS = all_parts()[1]


def section(name: str, value: float = 0.5) -> Section:
    return Section(PARTS[name].title, {f"{name}.some": Measured(value, math.nan, 1.0, 16)}, f"{value:g} of {name}.\n")


def written(folder: Path, names: list[str], made: dict[str, Any], value: float = 0.5) -> None:
    write(folder, OF_MINI, [section(name, value) for name in names], made)


@pytest.mark.parametrize("document", [OF_MINI, OF_TRANSFORMER])
def test_the_documents_that_ship_come_out_byte_for_byte(document: Document, tmp_path: Path) -> None:
    earlier = read_earlier(DOCS, document, PARTS.values())
    write(tmp_path, document, list(earlier.sections.values()), earlier.made)
    for name in (document.page, document.record):
        assert (tmp_path / name).read_bytes() == (DOCS / name).read_bytes()


def test_there_may_be_no_document_yet(tmp_path: Path) -> None:
    earlier = read_earlier(tmp_path, OF_MINI, PARTS.values())
    assert earlier.sections == {} and earlier.runs([]) == [] and not earlier.fits(MADE)


def test_numbers_texts_and_links_to_pictures_are_those_of_the_part(tmp_path: Path) -> None:
    curves = Section(
        "Effort", {"effort.some": Measured(0.5, 0.25, 1.0, 4)}, "Text.\n", {"a.png": Image.new("L", (2, 2))}
    )
    write(tmp_path, OF_MINI, [section("editing"), curves], MADE)
    sections = read_earlier(tmp_path, OF_MINI, PARTS.values()).sections
    assert list(sections) == ["editing", "effort"]
    assert sections["effort"].numbers == curves.numbers
    assert sections["effort"].text == "Text.\n\n![a](pictures/evidence-a.png)\n"
    (number,) = sections["editing"].numbers.values()
    assert number.value == 0.5 and math.isnan(number.low) and number.n == 16


@pytest.mark.parametrize(("other", "fits"), [
    ({}, True), ({"machine": "a server", "sizes": {}, "processor time": "1 hour"}, True),
    ({"model": "HRV-mini-T"}, False), ({"host": "ComfyUI, a newer one"}, False), ({"seeds": "60,000"}, False),
])  # fmt: skip
def test_all_numbers_of_a_document_are_of_one_model_host_and_seeds(
    other: dict[str, Any], fits: bool, tmp_path: Path
) -> None:
    written(tmp_path, ["editing"], MADE)
    assert read_earlier(tmp_path, OF_MINI, PARTS.values()).fits(MADE | other) is fits


def test_every_section_keeps_the_run_that_it_comes_from(tmp_path: Path) -> None:
    written(tmp_path, ["editing", "robustness", "effort"], MADE)
    earlier = read_earlier(tmp_path, OF_MINI, PARTS.values())
    first = {"machine": "a laptop", "processor time": "3.1 hours", "sizes": {"pairs": 16}}
    kept = [earlier.sections[name] for name in ("editing", "effort")]
    assert earlier.runs(kept) == [{"sections": ["Editing", "Effort"], **first}]

    second = {"machine": "a server", "processor time": "0.2 hours", "sizes": {"pairs": 32}}
    made = {**MADE, **second, "kept": earlier.runs(kept)}
    write(tmp_path, OF_MINI, [kept[0], section("robustness"), kept[1]], made)
    assert "- kept from an earlier run (a laptop; 3.1 hours in all): Editing, Effort\n" in (
        tmp_path / "evidence.md"
    ).read_text("utf-8")
    earlier = read_earlier(tmp_path, OF_MINI, PARTS.values())
    assert earlier.runs([earlier.sections[name] for name in ("robustness", "effort")]) == [
        {"sections": ["Robustness"], **second}, {"sections": ["Effort"], **first},
    ]  # fmt: skip
    assert earlier.runs([earlier.sections["editing"]]) == [{"sections": ["Editing"], **first}]


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    """One part to measure, all of whose pieces are there already."""
    asked = Asked("quick", ("editing",), 1, None, tmp_path / "state", tmp_path / "out")
    part = Editing(HRVs())
    store = Store(asked.state / f"{sha256(WEIGHTS.read_bytes()).hexdigest()[:16]}-1")
    for piece in missing([part], store, QUICK):
        store.keep(piece, [{"named": {"Shape": "star"}, "targets": {"Shape": "circle"}, "seed": 1, "shown": {}}], 36.0)
    for piece in missing([part], store, QUICK):
        store.keep(piece, {"Shape": {"changed": True, "kept": True, "distance": 0.1}}, 1.0)
    return asked


def _record(asked: Asked) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((asked.out / "evidence.json").read_text("utf-8"))
    return found


def test_a_part_is_measured_again_beside_what_was_there(asked: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    measure(asked)
    alone = _record(asked)
    assert "kept" not in alone["made"] and {key.split(".")[0] for key in alone if key != "made"} == {"editing"}
    before = {**alone["made"], "machine": "a laptop", "processor time": "3.1 hours", "sizes": {"pairs": 16}}
    written(asked.out, ["misinterpretation", "editing", "effort"], before, 0.75)
    capsys.readouterr()
    measure(asked)
    record, text = _record(asked), (asked.out / "evidence.md").read_text("utf-8")
    assert record.pop("misinterpretation.some") == {"value": 0.75, "low": None, "high": 1.0, "n": 16}
    assert record.pop("effort.some")["value"] == 0.75
    kept = {"machine": "a laptop", "processor time": "3.1 hours", "sizes": {"pairs": 16}}
    assert record["made"].pop("kept") == [{"sections": ["Misinterpretation", "Effort"], **kept}]
    assert record == alone, "the part that was measured, and what it was made with"
    assert "## Misinterpretation\n\n0.75 of misinterpretation.\n\n## Editing\n" in text
    assert text.endswith("\n\n## Effort\n\n0.75 of effort.\n") and "0.75 of editing" not in text
    assert "Kept from before: misinterpretation, effort.\n" in capsys.readouterr().out


def test_sections_of_another_host_are_left_out_with_a_sentence(
    asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    measure(asked)
    alone = _record(asked)
    written(asked.out, ["effort"], {**alone["made"], "host": "ComfyUI, an older one"})
    capsys.readouterr()
    measure(asked)
    assert _record(asked) == alone
    assert "Left out, because they were made with another model, host or other seeds: effort.\n" in (
        capsys.readouterr().out
    )


def test_a_record_that_cannot_be_read_is_not_written_over(asked: Asked) -> None:
    measure(asked)
    for spoiled in ("<<<<<<< HEAD\n", "{}"):
        (asked.out / "evidence.json").write_text(spoiled)
        with pytest.raises(LauncherError, match=r"evidence\.json can't be read .*: restore it, or move it away"):
            measure(asked)
        assert (asked.out / "evidence.json").read_text() == spoiled
