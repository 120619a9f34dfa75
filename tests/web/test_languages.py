"""The real page in other languages: everything of ours is said in them, and nodes are found by their words."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hrv_pack.tests.support.page_languages import LANGUAGES, expected_in, translated
from launcher.paths import PACK_ROOT

pytestmark = pytest.mark.slow

CONTROL = "HRV_ConceptStrengthen"


@pytest.mark.parametrize("language", LANGUAGES)
def test_nodes_are_called_and_explained_in_the_language(report: dict[str, Any], language: str) -> None:
    seen = report["languages"][language]
    control = translated(language, "nodeDefs.json")[CONTROL]
    names = {name: parts["name"] for name, parts in control["inputs"].items()}
    assert seen["titles"] == expected_in(language)["titles"]
    assert seen["category"] == f"HRV/{translated(language, 'main.json')['nodeCategories']['control']}"
    assert seen["widgets"] == {name: names[name] for name in seen["widgets"]}
    assert seen["inputs"] == [names["model"], names["conditioning"], names["hrv"]]
    assert seen["tooltips"] == {
        "widget": control["inputs"]["strength"]["tooltip"],
        "node": control["description"],
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_panels_and_menus_speak_the_language(report: dict[str, Any], language: str) -> None:
    seen = report["languages"][language]
    texts = translated(language, "main.json")["hrv"]["texts"]
    assert seen["panel"] == texts["Not run yet."]
    shown = {texts["Show {panel}"].replace("{panel}", texts[panel]) for panel in ("progress", "heads")}
    hidden = {texts["Hide {panel}"].replace("{panel}", texts[panel]) for panel in ("progress", "heads")}
    assert len(seen["menu"]) == 2
    assert set(seen["menu"]) <= shown | hidden


@pytest.mark.parametrize("language", LANGUAGES)
def test_help_is_the_page_of_the_language_with_the_picture_of_all(report: dict[str, Any], language: str) -> None:
    written = (PACK_ROOT / "web" / "docs" / CONTROL / f"{language}.md").read_text(encoding="utf-8")
    shown = report["languages"][language]["help"]
    for line in re.findall(r"^#+ (.+)$", written, re.MULTILINE):
        assert line in shown["text"], line
    assert shown["picture"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_nodes_2_shows_the_same(report: dict[str, Any], language: str) -> None:
    shown = report["languages"][language]["nodes2"]
    control = translated(language, "nodeDefs.json")[CONTROL]
    assert shown.startswith(control["display_name"])
    assert control["inputs"]["strength"]["name"] in shown
    assert translated(language, "main.json")["hrv"]["texts"]["no words: no effect"] in shown


@pytest.mark.parametrize("language", LANGUAGES)
def test_nodes_are_found_by_words_of_the_language_and_by_english_names(report: dict[str, Any], language: str) -> None:
    assert report["languages"][language]["found"] == dict.fromkeys(LANGUAGES[language], True)


def test_back_in_english_nodes_have_their_english_names(report: dict[str, Any], own_nodes: dict[str, Any]) -> None:
    titles = {name: info["display_name"] for name, info in own_nodes.items()}
    assert report["languages"]["en"]["titles"] == titles
