"""A document as it was written earlier: sections that are kept while others are measured again."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .document import KEPT, Document
from .measured import Measured, Numbers
from .pieces import Part, Section

_ALIKE = ("model", "host", "seeds")
"""What all numbers of a document are made with."""

_OF_A_RUN = ("machine", "processor time", "sizes")
"""What a run has of its own."""


@dataclass(frozen=True)
class Earlier:
    """The sections of a document by the names of their parts, and what they were made with."""

    sections: dict[str, Section] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)

    def fits(self, made: Mapping[str, Any]) -> bool:
        """Whether the numbers are of the same model, host and seeds."""
        return all(self.made.get(name) == made[name] for name in _ALIKE)

    def runs(self, sections: Sequence[Section]) -> list[dict[str, Any]]:
        """The runs that some of the sections come from, each with their titles."""
        titles = [section.title for section in sections]
        before = self.made.get(KEPT, [])
        of_before = {title for run in before for title in run["sections"]}
        last = {"sections": [title for title in titles if title not in of_before]}
        last |= {name: self.made[name] for name in _OF_A_RUN if name in self.made}
        runs = [last, *({**run, "sections": [one for one in run["sections"] if one in titles]} for run in before)]
        return [run for run in runs if run["sections"]]


def read_earlier(folder: Path, document: Document, parts: Iterable[Part]) -> Earlier:
    """What a folder has of a document; empty if it has none. Raises ValueError for a record that isn't JSON.

    The text of a section has the links to its pictures, which stay where they are.
    """
    page, record = folder / document.page, folder / document.record
    if not (page.is_file() and record.is_file()):
        return Earlier()
    numbers = json.loads(record.read_text(encoding="utf-8"))
    made = numbers.pop("made")
    # The beginning, then titles and texts in turn.
    _, *found = re.split(r"^## (.+)\n", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    texts = dict(zip(found[::2], found[1::2], strict=True))
    sections = {
        part.name: Section(part.title, _numbers_of(part, numbers), texts[part.title].strip("\n") + "\n")
        for part in parts
        if part.title in texts
    }
    return Earlier(sections, made)


def _numbers_of(part: Part, numbers: Mapping[str, Mapping[str, Any]]) -> Numbers:
    return {key: _measured(found) for key, found in numbers.items() if key.startswith(f"{part.name}.")}


def _measured(found: Mapping[str, Any]) -> Measured:
    value, low, high = (math.nan if found[name] is None else float(found[name]) for name in ("value", "low", "high"))
    return Measured(value, low, high, found["n"])
