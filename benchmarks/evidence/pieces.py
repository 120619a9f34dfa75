"""What the evidence is made of: pieces of some seconds, each a file, so that a run which was stopped resumes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from ...hrv.storage.atomic_files import write_atomically
from .measured import Numbers
from .sizes import Sizes


@dataclass(frozen=True)
class Piece:
    """A piece of a part's work: ``what`` tells it from all others, as JSON; ``cost`` is about how many evaluations."""

    part: str
    what: dict[str, Any]
    cost: float

    @cached_property
    def name(self) -> str:
        return f"{self.part}-{sha256(json.dumps(self.what, sort_keys=True).encode()).hexdigest()[:24]}"


class Store:
    """A folder of results, one JSON file a piece."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._read: dict[str, Any] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def place(self, piece: Piece, ending: str = ".json") -> Path:
        """Where a piece is, or a further file of it."""
        return self.folder / (piece.name + ending)

    def has(self, piece: Piece) -> bool:
        return piece.name in self._read or self.place(piece).exists()

    def of(self, piece: Piece) -> Any:
        """What a piece came to."""
        if piece.name not in self._read:
            self._read[piece.name] = json.loads(self.place(piece).read_text(encoding="utf-8"))["found"]
        return self._read[piece.name]

    def keep(self, piece: Piece, found: Any, seconds: float) -> None:
        """Keep what a piece came to, and the processor's seconds that it took."""
        record = {"part": piece.part, "what": piece.what, "seconds": seconds, "found": found}
        write_atomically(self.place(piece), json.dumps(record).encode())

    def seconds(self) -> float:
        """What all pieces so far took."""
        files = self.folder.glob("*-" + "[0-9a-f]" * 24 + ".json")
        return float(sum(json.loads(file.read_text(encoding="utf-8"))["seconds"] for file in files))


def missing(parts: Iterable[Part], store: Store, sizes: Sizes) -> list[Piece]:
    """Pieces of some parts that are known to be needed and are not there, the longest first.

    So no process is left with a long one at the end.
    """
    needed = {piece.name: piece for part in parts for piece in part.pieces(store, sizes)}
    return sorted((piece for piece in needed.values() if not store.has(piece)), key=lambda piece: -piece.cost)


@dataclass
class Section:
    """What a part has to say: its numbers, its text in Markdown, and pictures by file name."""

    title: str
    numbers: Numbers
    text: str
    pictures: dict[str, Image.Image] = field(default_factory=dict)


class Part(Protocol):
    """One of the claims, measured."""

    @property
    def name(self) -> str:
        """What its pieces and the keys of its numbers begin with."""
        ...

    @property
    def title(self) -> str:
        """The heading of its section."""
        ...

    def pieces(self, store: Store, sizes: Sizes) -> Sequence[Piece]:
        """Every piece that is known to be needed: more once pieces that others depend on are there."""
        ...

    def make(self, store: Store, sizes: Sizes, what: dict[str, Any]) -> Any:
        """What a piece comes to, as JSON; in a process that has the host."""
        ...

    def section(self, store: Store, sizes: Sizes) -> Section:
        """What all pieces say."""
        ...
