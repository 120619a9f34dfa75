"""Help pages in other languages: which there are, and which of them lag behind the English ones.

web/docs/NODE/CODE.md is the translation of web/docs/NODE.md. A language's pages.json has the digests of both as they
were when the translation was last right.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TypedDict

from pack_import import PACK_ROOT

PAGES = PACK_ROOT / "web" / "docs"
RECORDS = "pages.json"


class Record(TypedDict):
    """Digests of a page's text in English and in a language."""

    english: str
    translated: str


def translated_pages(language: str) -> dict[str, Path]:
    """The help pages of a language by node, in the order of their names."""
    return {path.parent.name: path for path in sorted(PAGES.glob(f"*/{language}.md"))}


def records_now(language: str) -> dict[str, Record]:
    """What the pages of a language and those they translate are now, by node.

    Raises:
        FileNotFoundError: a page has no English one: its node is gone.
    """
    return {
        node: Record(english=_digest(PAGES / f"{node}.md"), translated=_digest(path))
        for node, path in translated_pages(language).items()
    }


def read_records(folder: Path) -> dict[str, Record]:
    """What a language's pages.json says, by node: nothing in a language that is new."""
    file = folder / RECORDS
    found: dict[str, Record] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found


def lagging(recorded: dict[str, Record], now: dict[str, Record]) -> list[str]:
    """The nodes whose English page has changed and whose translation has not."""
    return [
        node
        for node, record in now.items()
        if node in recorded
        and record["english"] != recorded[node]["english"]
        and record["translated"] == recorded[node]["translated"]
    ]


def updated(recorded: dict[str, Record], now: dict[str, Record]) -> dict[str, Record]:
    """The records to keep: those of now, but the old ones of pages that lag behind."""
    return {**now, **{node: recorded[node] for node in lagging(recorded, now)}}


def _digest(page: Path) -> str:
    return hashlib.sha256(page.read_text(encoding="utf-8").encode()).hexdigest()[:16]
