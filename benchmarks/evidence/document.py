"""The evidence as docs/evidence.md, with its pictures, and docs/evidence.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...hrv.storage.atomic_files import write_atomically
from .measured import Numbers
from .pieces import Section

DOCUMENT, RECORD, PICTURES = "evidence.md", "evidence.json", "pictures"

_INTRODUCTION = """# Evidence

Every claim, measured on HRV-mini, whose pictures can be read without doubt. One command writes this page; stopped, it
resumes:

    python scripts/evidence.py

All of it runs through ComfyUI's own sampling and the functions that the nodes call. Where a setting had to be chosen,
it was chosen on other seeds than those reported. Numbers are shares of pictures with 95 % intervals by prompt,
unless a table says otherwise; *n* and more digits are in [evidence.json](evidence.json).

{made}
"""


def write(folder: Path, sections: Sequence[Section], made: Mapping[str, Any]) -> None:
    """Write everything that sections say into a folder."""
    numbers = {key: found for section in sections for key, found in section.numbers.items()}
    parts = [_INTRODUCTION.format(made=_made(made))]
    for section in sections:
        shown = "".join(f"![{_told(name)}]({PICTURES}/{name})\n\n" for name in section.pictures)
        parts.append(f"## {section.title}\n\n{section.text}\n{shown}".rstrip() + "\n")
        for name, picture in section.pictures.items():
            (folder / PICTURES).mkdir(parents=True, exist_ok=True)
            picture.save(folder / PICTURES / name)
    write_atomically(folder / DOCUMENT, "\n".join(parts).encode())
    write_atomically(folder / RECORD, (json.dumps(record(numbers, made), indent=1) + "\n").encode())


def record(numbers: Numbers, made: Mapping[str, Any]) -> dict[str, Any]:
    """Every number by its key, and under "made" what they were made with; what is no number is null."""
    return {
        "made": dict(made),
        **{key: {name: _number(one) for name, one in found._asdict().items()} for key, found in numbers.items()},
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _made(made: Mapping[str, Any]) -> str:
    lines = [f"- {name}: {value}" for name, value in made.items() if not isinstance(value, Mapping)]
    return "\n".join(lines)


def _told(name: str) -> str:
    """What a picture shows, by its file's name: "side effects causal"."""
    return Path(name).stem.removeprefix("evidence-").replace("-", " ")
