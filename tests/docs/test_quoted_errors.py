"""Help pages quote errors as the code says them."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from launcher.paths import PACK_ROOT

PAGES = sorted((PACK_ROOT / "web" / "docs").glob("*.md"))
HEADING = "## If something is wrong"


@cache
def said() -> str:
    """All texts of the pack in lower case, one per line, with what is filled in at run time left out as ``...``."""
    texts = []
    for folder in ("hrv", "host", "nodes", "mini"):
        for path in (PACK_ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    texts.append(
                        "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return "\n".join(texts).lower()


def quoted(page: Path) -> list[str]:
    """What is in italics at the start of a line, or of an item, of the page's section on errors."""
    section = page.read_text(encoding="utf-8").partition(HEADING)[2]
    return re.findall(r"^(?:- )?\*([^*]+)\*:", section, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_quoted_errors_are_those_of_the_code(page: Path) -> None:
    for sentence in quoted(page):
        for part in re.split(r"\s*\.\.\.\s*|\d+", sentence):
            assert part.strip().lower() in said(), (sentence, part)
