"""What the front end shows of the nodes: where they are found, what their help says, and that no page of ours fails."""

from __future__ import annotations

import re
from typing import Any

import pytest
from launcher.comfy_server import PACK_NAME
from launcher.paths import PACK_ROOT
from launcher.workflow_convert import WIDGET_TYPES

pytestmark = pytest.mark.slow

DOCS = PACK_ROOT / "web" / "docs"


def test_all_nodes_are_in_one_menu_by_job(own_nodes: dict[str, Any]) -> None:
    jobs = [info["category"] for info in own_nodes.values()]
    assert all(re.fullmatch(r"HRV/[a-z]+", job) for job in jobs)
    assert all(3 <= jobs.count(job) <= 10 for job in jobs), jobs


def test_common_words_find_a_node_of_the_pack(report: dict[str, Any]) -> None:
    assert report["commonSearches"] == dict.fromkeys(report["commonSearches"], True)


def test_every_node_is_found_without_its_name(report: dict[str, Any], own_nodes: dict[str, Any]) -> None:
    assert report["searches"] == {info["display_name"]: True for info in own_nodes.values()}


def test_help_pages_open(report: dict[str, Any], own_nodes: dict[str, Any]) -> None:
    assert report["help"].keys() == own_nodes.keys()
    for node_class, shown in report["help"].items():
        written = (DOCS / f"{node_class}.md").read_text(encoding="utf-8")
        for line in re.findall(r"^#+ (.+)$", written, re.MULTILINE):
            assert line in shown["text"], (node_class, line)
        assert shown["picture"], node_class


def test_every_help_page_has_an_example() -> None:
    for file in DOCS.glob("*.md"):
        assert re.search(r"^## Example\n\n\S", file.read_text(encoding="utf-8"), re.MULTILINE), file.stem


def test_help_pages_name_every_setting(own_nodes: dict[str, Any]) -> None:
    assert {file.stem for file in DOCS.glob("*.md")} == own_nodes.keys()
    for node_class, info in own_nodes.items():
        written = (DOCS / f"{node_class}.md").read_text(encoding="utf-8")
        inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        settings = [name for name, (kind, *_) in inputs.items() if kind in WIDGET_TYPES]
        assert [name for name in settings if not re.search(rf"\b{name}\b", written)] == [], node_class


def test_texts_are_shown_on_their_nodes(report: dict[str, Any]) -> None:
    seen = report["texts"]
    assert (seen["end"], seen["message"]) == ("execution_success", "")
    # Nodes 2.0 makes a list of numbered lines, whose numbers are no text.
    head = r"\s+(\d+\. )?\S+ head \d+: \d+\.\d\d"
    short = rf"Color({head}){{3}}\s+Shape({head}){{3}}"
    long = rf"Color({head}){{23}}\s+\.\.\. and \d+ more lines\."
    for node, text in (("2", short), ("3", long), ("4", r"hrv/texts/kept\.safetensors")):
        assert [bool(re.fullmatch(text, shown.strip())) for shown in seen["canvas"]].count(True) == 1, seen["canvas"]
        assert re.search(text, seen["nodes2"][node]), seen["nodes2"]


def test_nothing_of_the_pack_fails_in_the_page(report: dict[str, Any]) -> None:
    assert [entry["text"] for entry in report["console"] if entry["kind"] == "exception"] == []
    lines = [f"{entry['text']} ({entry['from']})" for entry in report["console"]] + report["network"]
    # A help page is looked for in the page's language first.
    translation = re.compile(r"/docs/\w+/en\.md\)?$")
    # A file that is gone is refused in a sentence, which nodes show; one drive is made without the pack's extension.
    refused = re.compile(r"\b400\b.*/hrv/\w+\)?$|Extension hrv is disabled")
    own = re.compile(rf"{PACK_NAME}|hrv", re.IGNORECASE)
    assert [line for line in lines if own.search(line) and not (translation.search(line) or refused.search(line))] == []
