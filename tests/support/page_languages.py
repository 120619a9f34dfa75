"""What the page should say in other languages, by the files that the host reads."""

from __future__ import annotations

import json
from typing import Any

from launcher.paths import PACK_ROOT

LANGUAGES: dict[str, dict[str, str]] = {
    "zh": {"构建": "HRV_Build", "风格迁移": "HRV_ReadByConcept", "Concept Adjust": "HRV_ConceptAdjust"},
    "ja": {"構築": "HRV_Build", "画風": "HRV_ReadByConcept", "Concept Adjust": "HRV_ConceptAdjust"},
}
"""What people may type in a language, and the node that it finds: parts of titles, other words, English titles."""


def translated(language: str, file: str) -> dict[str, Any]:
    """A file of a language."""
    found: dict[str, Any] = json.loads((PACK_ROOT / "locales" / language / file).read_text(encoding="utf-8"))
    return found


def expected_in(language: str) -> dict[str, dict[str, str]]:
    """The titles of all nodes in a language, and those that should be found by some words."""
    titles = {name: node["display_name"] for name, node in translated(language, "nodeDefs.json").items()}
    return {"titles": titles, "searches": {words: titles[name] for words, name in LANGUAGES[language].items()}}
