"""Check the translations of the pack and write the files that ComfyUI reads from them.

    python scripts/translations.py

Each folder of locales/ is a language, under ComfyUI's code for it. Its texts.json is written by people: English texts
with their translations. Every run says what is missing or wrong there, puts it in order, adds what is new in English as
"", takes out what is gone, and writes main.json, nodeDefs.json and commands.json beside it. It also says which help
pages were translated from a text that has changed since, and writes down in pages.json what the others were translated
from. The status is 1 if anything was missing or wrong.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from host_process import enter_host
from pack_import import PACK_ROOT
from translatable import PACK_MENU, commands, english_texts, input_names, outputs_with_names, schemas
from translated_pages import RECORDS, lagging, read_records, records_now, updated

LOCALES = PACK_ROOT / "locales"

Texts = dict[str, dict[str, Any]]

# Braces, bars and at signs are syntax for the page (vue-i18n), how they are escaped depends on its version, and
# tooltips are shown as they are. Texts of the pack's own page only have braces, which web/hrv/texts.js reads.
_SYNTAX = set("{}|@")
_PLACES = re.compile(r"\{\w+\}")


def read_texts(folder: Path) -> Texts:
    """The texts of a language as its people wrote them."""
    found: Texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    return found


def complaints(texts: Texts, english: dict[str, list[str]]) -> list[str]:
    """What is missing, left over or wrong in a language's texts, a sentence each."""
    found = [f"There is no section {name}." for name in texts.keys() - english.keys()]
    for section, those in english.items():
        translated = texts.get(section, {})
        found += [f"{section}: nothing for {text!r}." for text in those if not translated.get(text)]
        found += [f"{section}: {text!r} is no text of the pack any more." for text in translated.keys() - set(those)]
        for text, translation in translated.items():
            words = translation if section == "search" else [translation]
            if section == "page":
                if sorted(_PLACES.findall(text)) != sorted(_PLACES.findall(translation)):
                    found.append(f"{section}: {translation!r} has other values in braces than {text!r}.")
            elif any(_SYNTAX & set(word) for word in words):
                found.append(f"{section}: {translation!r} has one of {' '.join(sorted(_SYNTAX))}: say it in words.")
            found += [f"{section}: {word!r} has blanks at its ends." for word in words if word != word.strip() != ""]
    return found


def page_complaints(folder: Path) -> list[str]:
    """Which help pages of a language are to be translated again, a sentence each."""
    now = records_now(folder.name)
    return [f"pages: web/docs/{node}.md has changed." for node in lagging(read_records(folder), now)]


def ordered(texts: Texts, english: dict[str, list[str]]) -> Texts:
    """The texts in the order of the English ones: new ones empty, without those that are gone."""
    return {
        section: {text: texts.get(section, {}).get(text, [] if section == "search" else "") for text in those}
        for section, those in english.items()
    }


def compiled(texts: Texts, found: list[Any]) -> dict[str, Any]:
    """The files that the host reads, by name. A text without a translation is left out, so that it stays English."""

    def said(section: str, text: str | None) -> str:
        return str(texts.get(section, {}).get(text or "", ""))

    nodes, names_of_inputs = {}, input_names(found)
    for schema in found:
        inputs = {
            given.id: _filled(
                name=said("inputs", names_of_inputs[schema.node_id, given.id]),
                tooltip=said("tooltips", given.tooltip),
            )
            for given in schema.inputs
        }
        names = dict(outputs_with_names(schema))
        outputs = {
            str(place): _filled(name=said("outputs", names.get(place)), tooltip=said("tooltips", output.tooltip))
            for place, output in enumerate(schema.outputs)
        }
        nodes[schema.node_id] = _filled(
            display_name=said("nodes", schema.display_name),
            description=said("descriptions", schema.description),
            inputs=inputs,
            outputs=outputs,
        )
    # The page replaces the English names by the translated ones before it searches.
    search = {
        schema.node_id: [schema.display_name, *texts.get("search", {}).get(schema.display_name, [])] for schema in found
    }
    labels = {name.replace(".", "_"): _filled(label=said("commands", label)) for name, label in commands().items()}
    page = {text: translation for text, translation in texts.get("page", {}).items() if translation}
    categories = {text: translation for text, translation in texts.get("categories", {}).items() if translation}
    return {
        "main.json": {"nodeCategories": categories, PACK_MENU.lower(): {"texts": page, "search": search}},
        "nodeDefs.json": nodes,
        "commands.json": labels,
    }


def all_files(folder: Path, found: list[Any], english: dict[str, list[str]]) -> dict[str, Any]:
    """The files of a language as they should be, by name."""
    texts, recorded = read_texts(folder), read_records(folder)
    return {
        "texts.json": ordered(texts, english),
        RECORDS: updated(recorded, records_now(folder.name)),
        **compiled(texts, found),
    }


def _filled(**parts: Any) -> dict[str, Any]:
    return {name: part for name, part in parts.items() if part}


def as_file(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def main() -> int:
    enter_host()
    found = schemas()
    english = english_texts(found)
    status = 0
    for folder in sorted(path for path in LOCALES.iterdir() if path.is_dir()):
        for complaint in complaints(read_texts(folder), english) + page_complaints(folder):
            print(f"{folder.name}: {complaint}")
            status = 1
        for name, content in all_files(folder, found, english).items():
            (folder / name).write_text(as_file(content), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
