"""The evidence as docs/evidence.md, with its pictures, and docs/evidence.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...hrv.storage.atomic_files import write_atomically
from .measured import Numbers
from .pieces import Section

PICTURES = "pictures"
KEPT = "kept"
"""Under "made", the earlier runs that sections are kept from: the titles of these, and what each run was made with."""


class Document(NamedTuple):
    """A page of evidence: the name of its files, and how it begins."""

    name: str
    beginning: str

    @property
    def page(self) -> str:
        return f"{self.name}.md"

    @property
    def record(self) -> str:
        return f"{self.name}.json"


OF_MINI = Document(
    "evidence",
    """# Evidence

Every claim, measured on HRV-mini, whose pictures can be read without doubt. One command writes this page; stopped, it
resumes:

    python scripts/evidence.py""",
)
OF_TRANSFORMER = Document(
    "evidence-transformer",
    """# Evidence in a transformer

Two of the claims of [the evidence](evidence.md), measured on
[HRV-mini-T](hrv-mini.md#hrv-mini-t-a-transformer-in-the-same-world), in whose 64 heads text and image attend to each
other. Goals are those that were set for HRV-mini. One command writes this page; stopped, it resumes:

    python scripts/evidence.py --transformer""",
)

_INTRODUCTION = """{beginning}

All of it runs through ComfyUI's own sampling and the functions that the nodes call. Where a setting had to be chosen,
it was chosen on other seeds than those reported. Numbers are shares of pictures with 95 % intervals by prompt,
unless a table says otherwise; *n* and more digits are in [{record}]({record}).

{made}
"""


def write(folder: Path, document: Document, sections: Sequence[Section], made: Mapping[str, Any]) -> None:
    """Write everything that sections say into a folder; their pictures bear the document's name."""
    numbers = {key: found for section in sections for key, found in section.numbers.items()}
    parts = [_INTRODUCTION.format(beginning=document.beginning, record=document.record, made=_made(made))]
    for section in sections:
        names = {name: f"{document.name}-{name}" for name in section.pictures}
        shown = "".join(f"![{_told(name)}]({PICTURES}/{file})\n\n" for name, file in names.items())
        parts.append(f"## {section.title}\n\n{section.text}\n{shown}".rstrip() + "\n")
        for name, picture in section.pictures.items():
            (folder / PICTURES).mkdir(parents=True, exist_ok=True)
            picture.save(folder / PICTURES / names[name])
    write_atomically(folder / document.page, "\n".join(parts).encode())
    write_atomically(folder / document.record, (json.dumps(record(numbers, made), indent=1) + "\n").encode())


def record(numbers: Numbers, made: Mapping[str, Any]) -> dict[str, Any]:
    """Every number by its key, and under "made" what they were made with; what is no number is null."""
    return {
        "made": dict(made),
        **{key: {name: _number(one) for name, one in found._asdict().items()} for key, found in numbers.items()},
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _made(made: Mapping[str, Any]) -> str:
    lines = [f"- {name}: {value}" for name, value in made.items() if isinstance(value, str)]
    # The time of a run is that of all it measured, and what was measured again since is no longer here.
    lines += [
        f"- kept from an earlier run ({run['machine']}; {run['processor time']} in all): {', '.join(run['sections'])}"
        for run in made.get(KEPT, [])
    ]
    return "\n".join(lines)


def _told(name: str) -> str:
    """What a picture shows, by its name: "side effects causal"."""
    return Path(name).stem.replace("-", " ")
