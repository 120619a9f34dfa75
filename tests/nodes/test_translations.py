"""Every language of locales/ says all that the pack says, and the host's files are made from what people wrote."""

from __future__ import annotations

import re
from typing import Any

import pytest
from launcher.paths import PACK_ROOT
from translatable import english_texts, outputs_with_names, page_texts, schemas
from translations import LOCALES, all_files, as_file, compiled, complaints, ordered, read_texts

LANGUAGES = sorted(path.name for path in LOCALES.iterdir() if path.is_dir())
MAKE_THEM = "Run scripts/translations.py; it writes the files and says what is to be translated."


@pytest.fixture(scope="module")
def found() -> list[Any]:
    return schemas()


@pytest.fixture(scope="module")
def english(found: list[Any]) -> dict[str, list[str]]:
    return english_texts(found)


def test_chinese_and_japanese_are_there() -> None:
    assert {"zh", "ja"} <= set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_has_a_translation_and_none_is_left_over(language: str, english: dict[str, list[str]]) -> None:
    assert complaints(read_texts(LOCALES / language), english) == [], MAKE_THEM


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_files_of_the_host_follow_from_the_texts(
    language: str, found: list[Any], english: dict[str, list[str]]
) -> None:
    files = all_files(LOCALES / language, found, english)
    there = {path.name: path.read_text(encoding="utf-8") for path in (LOCALES / language).iterdir()}
    assert there == {name: as_file(content) for name, content in files.items()}, MAKE_THEM


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_of_nodes_differ_and_the_english_ones_are_still_found(language: str, found: list[Any]) -> None:
    files = compiled(read_texts(LOCALES / language), found)
    titles = [node["display_name"] for node in files["nodeDefs.json"].values()]
    assert len(set(titles)) == len(found)
    for schema in found:
        assert schema.display_name in files["main.json"]["hrv"]["search"][schema.node_id]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_input_output_and_tooltip_is_where_the_page_looks_for_it(language: str, found: list[Any]) -> None:
    nodes = compiled(read_texts(LOCALES / language), found)["nodeDefs.json"]
    for schema in found:
        node = nodes[schema.node_id]
        for given in schema.inputs:
            assert "." not in given.id  # the page looks for another key then
            assert node["inputs"][given.id].keys() == {"name", "tooltip"} - (
                {"tooltip"} if not given.tooltip else set()
            )
        named = dict(outputs_with_names(schema))
        for place, output in enumerate(schema.outputs):
            parts = {"name"} if place in named else set()
            assert node["outputs"].get(str(place), {}).keys() == parts | ({"tooltip"} if output.tooltip else set())


def test_all_that_the_page_says_is_found() -> None:
    texts = page_texts()
    assert {"Not run yet.", "Show {panel}", "words", "no words: no effect", "expected agreement"} <= set(texts)
    # What else is said is a text of a panel or a field, which page_texts finds by these names.
    modules = [*(PACK_ROOT / "web").glob("*.js"), *(PACK_ROOT / "web" / "hrv").glob("*.js")]
    others = {
        found
        for module in modules
        if module.name != "texts.js"
        for found in re.findall(r"(?<![.\w])say\((?!\s*\")([^)]*)\)(?! \{)", module.read_text(encoding="utf-8"))
    }
    assert others == {"panel.title", "field.empty", "field.all"}


ENGLISH = {"nodes": ["Build HRV"], "search": ["Build HRV"], "page": ["{done} of {total}"]}
TEXTS: dict[str, dict[str, Any]] = {
    "nodes": {"Build HRV": "HRV bauen"},
    "search": {"Build HRV": ["erzeugen"]},
    "page": {"{done} of {total}": "{total}, davon {done}"},
}


def changed(section: str, text: str, translation: Any) -> dict[str, dict[str, Any]]:
    return {**TEXTS, section: {**TEXTS[section], text: translation}}


def test_complete_texts_have_no_complaint() -> None:
    assert complaints(TEXTS, ENGLISH) == []


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        (changed("nodes", "Build HRV", ""), "nodes: nothing for 'Build HRV'."),
        (changed("search", "Build HRV", []), "search: nothing for 'Build HRV'."),
        ({**TEXTS, "page": {}}, "page: nothing for '{done} of {total}'."),
        (changed("nodes", "Make HRV", "HRV machen"), "nodes: 'Make HRV' is no text of the pack any more."),
        (changed("nodes", "Build HRV", "HRV | bauen"), "nodes: 'HRV | bauen' has one of @ { | }: say it in words."),
        (changed("nodes", "Build HRV", "HRV {'@'}"), "nodes: \"HRV {'@'}\" has one of @ { | }: say it in words."),
        (changed("search", "Build HRV", ["a", "b@"]), "search: ['a', 'b@'] has one of @ { | }: say it in words."),
        (changed("nodes", "Build HRV", "HRV bauen "), "nodes: 'HRV bauen ' has blanks at its ends."),
        (
            changed("page", "{done} of {total}", "{done} von {done}"),
            "page: '{done} von {done}' has other values in braces than '{done} of {total}'.",
        ),
        ({**TEXTS, "panels": {}}, "There is no section panels."),
    ],
)
def test_what_is_missing_left_over_or_wrong_is_said(texts: dict[str, dict[str, Any]], complaint: str) -> None:
    assert complaints(texts, ENGLISH) == [complaint]


def test_what_has_no_translation_is_left_to_english(found: list[Any]) -> None:
    files = compiled({"nodes": {found[0].display_name: "X"}, "page": {"loss": ""}}, found)
    first, second, *_ = (files["nodeDefs.json"][schema.node_id] for schema in found)
    assert first["display_name"] == "X" and "description" not in first
    assert "display_name" not in second
    assert files["main.json"]["hrv"]["texts"] == {}


def test_texts_are_kept_when_english_ones_come_and_go() -> None:
    found = ordered(changed("nodes", "Gone", "weg"), {**ENGLISH, "nodes": ["New", "Build HRV"]})
    assert found["nodes"] == {"New": "", "Build HRV": "HRV bauen"}
    assert found["search"] == {"Build HRV": ["erzeugen"]}
