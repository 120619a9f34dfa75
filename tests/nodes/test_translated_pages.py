"""Help pages in other languages say what the English ones say, and follow them when they change."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from hrv_pack.nodes import NODES
from translated_pages import PAGES, Record, lagging, read_records, records_now, translated_pages, updated
from translations import LOCALES, compiled, page_complaints, read_texts

LANGUAGES = sorted(path.name for path in LOCALES.iterdir() if path.is_dir())
TRANSLATED = [(language, node) for language in LANGUAGES for node in translated_pages(language)]
each_page = pytest.mark.parametrize(("language", "node"), TRANSLATED, ids=lambda part: part)


def both(language: str, node: str) -> tuple[str, str]:
    """A page in English and in a language."""
    english, other = PAGES / f"{node}.md", translated_pages(language)[node]
    return english.read_text(encoding="utf-8"), other.read_text(encoding="utf-8")


def shape(page: str) -> dict[str, Any]:
    """All of a page that is the same in every language."""
    lines = page.splitlines()
    return {
        "headings": [len(marks) for marks in re.findall(r"^(#+) ", page, re.MULTILINE)],
        "pictures and links": re.findall(r"\]\(([^)\s]+)\)", page),
        "code": [line for line in lines if line.startswith("    ")],
        "rows": [row.count("|") for row in lines if row.startswith("|")],
        "items": len([line for line in lines if line.startswith("- ")]),
    }


def quoted(page: str, section: int) -> list[str]:
    """What is in italics at the start of a line or an item of a section: errors, in the section on them."""
    return re.findall(r"^(?:- )?\*([^*]+)\*", sections(page)[section], re.MULTILINE)


def sections(page: str) -> list[str]:
    return re.split(r"^## ", page, flags=re.MULTILINE)


def named(page: str) -> set[str]:
    """What is in bold, or first in a row of a table."""
    cells = re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE)
    return set(re.findall(r"\*\*([^*]+)\*\*", page)) | {name for cell in cells for name in re.split(", |、", cell)}


@pytest.fixture(scope="module")
def translated() -> dict[str, dict[str, Any]]:
    """nodeDefs.json of each language."""
    schemas = [node.GET_SCHEMA() for node in NODES]
    return {name: compiled(read_texts(LOCALES / name), schemas)["nodeDefs.json"] for name in LANGUAGES}


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_every_node_has_a_page_in_chinese_and_japanese(language: str) -> None:
    assert translated_pages(language).keys() == {node.GET_SCHEMA().node_id for node in NODES}


@each_page
def test_the_title_is_the_name_of_the_node(language: str, node: str, translated: dict[str, dict[str, Any]]) -> None:
    _, page = both(language, node)
    assert page.partition("\n")[0] == f"# {translated[language][node]['display_name']}"


@each_page
def test_pages_have_the_parts_of_the_english_ones(language: str, node: str) -> None:
    english, page = both(language, node)
    assert shape(page) == shape(english)


@each_page
def test_inputs_are_called_as_on_the_node(language: str, node: str, translated: dict[str, dict[str, Any]]) -> None:
    english, page = both(language, node)
    inputs = translated[language][node].get("inputs", {})
    expected = {parts["name"] for name, parts in inputs.items() if name in named(english)}
    assert expected - named(page) == set()


@each_page
def test_every_number_is_there(language: str, node: str) -> None:
    """Others may be there too: what is a word in English may be a number elsewhere."""
    english, page = (Counter(re.findall(r"\d+", text)) for text in both(language, node))
    assert english - page == Counter()


@each_page
def test_errors_are_quoted_as_they_are_shown(language: str, node: str) -> None:
    english, page = both(language, node)
    for place, section in enumerate(sections(english)):
        if section.startswith("If something is wrong"):
            assert quoted(page, place) == quoted(english, place)


@each_page
def test_emphasis_is_seen(language: str, node: str) -> None:
    """Markdown sees none between a letter and a mark of punctuation inside it."""
    page = re.sub("`[^`\n]*`", "`", both(language, node)[1])
    for found in re.finditer(r"(?<!\*)(\*\*?)(?!\*)([^*\n]+)\1", page):
        before, after = page[found.start() - 1], page[found.end() : found.end() + 1]
        assert not (re.match(r"\w", before) and re.match(r"\W", found[2])), before + found[0]
        assert not (re.match(r"\w", after) and re.search(r"\W$", found[2])), found[0] + after


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_follow_the_english_ones(language: str) -> None:
    """``scripts/translations.py`` writes down what a page was translated from once it has been translated again."""
    folder = LOCALES / language
    assert page_complaints(folder) == [], "Translate it again, then run scripts/translations.py."
    assert read_records(folder) == records_now(language), "Run scripts/translations.py."


OLD, NEW = Record(english="a", translated="b"), Record(english="c", translated="d")


@pytest.mark.parametrize(
    ("now", "behind"),
    [
        (OLD, False),
        (NEW, False),
        (Record(english="a", translated="d"), False),
        (Record(english="c", translated="b"), True),
    ],
)
def test_a_page_lags_behind_if_only_the_english_one_has_changed(now: Record, behind: bool) -> None:
    recorded = {"HRV_Build": OLD, "HRV_Gone": OLD}
    assert lagging(recorded, {"HRV_Build": now}) == ["HRV_Build"] * behind
    assert updated(recorded, {"HRV_Build": now}) == {"HRV_Build": OLD if behind else now}


def test_a_new_page_is_written_down() -> None:
    assert lagging({}, {"HRV_Build": NEW}) == []
    assert updated({}, {"HRV_Build": NEW}) == {"HRV_Build": NEW}
