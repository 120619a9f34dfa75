"""Published HRVs: what the catalog offers, and getting one into the models folder on the user's word.

Nothing published is part of the pack. A file is taken only if it is, bit for bit, the one that the catalog names.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import urllib.error
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import comfy.utils

from ...hrv.errors import HRVError
from ...hrv.relevance.files import load_hrv, save_hrv
from ...hrv.relevance.published import VECTORS_LIMIT, hrv_from_npy
from ...hrv.relevance.vectors import HRV
from ...hrv.relevance.vocabulary import parse_vocabulary
from ...hrv.storage.atomic_files import reason
from .download import file_from_web
from .folders import PRESETS, SUFFIX, read_user_file


@dataclass(frozen=True)
class RemoteFile:
    """A file on the web, known by its SHA-256 in hex and its size in bytes. HRVError for another than http(s)."""

    url: str
    sha256: str
    size: int

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise HRVError(f"The catalog may only contain http and https addresses, not {self.url!r}.")

    @property
    def name(self) -> str:
        """The name under which a browser saves it."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class PublishedHRV:
    """One entry of the catalog: two .npy files, and whose they are.

    ``concepts`` are the names of the rows; ``model`` is what the authors built it with, ``family`` what it is for.
    ``digest`` is that of the converted HRV without its provenance (:attr:`HRV.digest_without_provenance`).
    """

    name: str
    family: str
    model: str
    concepts: tuple[str, ...]
    vectors: RemoteFile
    head_index: RemoteFile
    digest: str
    license: str
    citation: str

    @property
    def files(self) -> tuple[RemoteFile, RemoteFile]:
        return self.vectors, self.head_index

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of both files, as the provenance of the converted HRV records them."""
        return {"vectors": self.vectors.sha256, "head_index": self.head_index.sha256}


def paper_concepts() -> tuple[str, ...]:
    """The names of the paper's 34 concepts, in the order of the published rows."""
    return _vocabulary_names("paper-34-concepts.txt")


def mini_concepts() -> tuple[str, ...]:
    """The concepts of HRV-mini's world, in order."""
    return _vocabulary_names("hrv-mini.txt")


def read_catalog() -> dict[str, PublishedHRV]:
    """The published HRVs that the pack knows, by name (``hrv_presets/catalog.json``)."""
    entries = json.loads((PRESETS / "catalog.json").read_text(encoding="utf-8"))
    return {entry["name"]: _entry(entry) for entry in entries}


def obtain(entry: PublishedHRV, folder: Path, *, download: bool) -> HRV:
    """The published HRV, kept as ``folder / (name + ".safetensors")`` from then on.

    Its two .npy files are taken from ``folder`` if they lie there under their own names, else from the web if
    ``download`` is true; progress is reported, and a cancel takes effect at once. The converted file appears
    complete or not at all; the .npy files are not kept. Raises HRVError, which says where to put which file by hand,
    when one is missing, cannot be had, or is another than the catalog's.
    """
    path = folder / f"{entry.name}{SUFFIX}"
    if path.exists():
        hrv = load_hrv(path)
        if hrv.digest_without_provenance != entry.digest:
            raise HRVError(f"{path} is not the published HRV '{entry.name}'. Move or rename it, and run again.")
        return replace(hrv, provenance=_provenance(entry))
    missing = [file for file in entry.files if not (folder / file.name).exists()]
    if missing and not download:
        size = sum(file.size for file in missing) / 1000
        only = f" Only {missing[0].name} is missing." if len(missing) < len(entry.files) else ""
        raise HRVError(
            f"The published HRV '{entry.name}' is not on this machine. Turn on 'download' to fetch it ({size:.0f} kB). "
            f"{_by_hand(folder)}{only}"
        )
    progress = comfy.utils.ProgressBar(sum(file.size for file in missing))
    contents: list[bytes] = []
    for file in entry.files:
        fetched = file in missing
        data = _fetch(entry, file, folder, progress) if fetched else read_user_file(folder / file.name, VECTORS_LIMIT)
        digest = hashlib.sha256(data).hexdigest()
        if digest != file.sha256:
            raise HRVError(
                f"{'What came for' if fetched else 'The file'} {file.name} isn't the published file: it has "
                f"{len(data)} bytes and a SHA-256 that begins with {digest[:12]}, the original {file.size} and "
                f"{file.sha256[:12]}. It was not used. {_by_hand(folder)}"
            )
        contents.append(data)
    vectors, head_index = contents
    hrv = hrv_from_npy(vectors, head_index, entry.concepts, _provenance(entry))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HRVError(f"Cannot make the folder {folder}: {reason(error)}.") from error
    save_hrv(hrv, path, overwrite=True)
    return hrv


def _fetch(entry: PublishedHRV, file: RemoteFile, folder: Path, progress: comfy.utils.ProgressBar) -> bytes:
    """The content of a file on the web, of exactly its size."""
    try:
        return file_from_web(file.url, file.size, progress.update)
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if type(error) is urllib.error.URLError else error
        raise HRVError(f"The published HRV '{entry.name}' cannot be downloaded: {cause}. {_by_hand(folder)}") from error


def _by_hand(folder: Path) -> str:
    """What else to do; the addresses, of 200 characters each, are on the node's help page."""
    return (
        "Or download its two files with a browser, by the links on this node's help page, and put them into "
        f"{folder} (create it if necessary), without renaming them."
    )


def _provenance(entry: PublishedHRV) -> dict[str, Any]:
    return {
        "model": entry.model,
        "source": entry.vectors.url,
        "sha256": entry.digests,
        "license": entry.license,
        "citation": entry.citation,
    }


def _entry(entry: Mapping[str, Any]) -> PublishedHRV:
    return PublishedHRV(
        name=entry["name"],
        family=entry["family"],
        model=entry["model"],
        concepts=_vocabulary_names(entry["vocabulary"]),
        vectors=RemoteFile(**entry["vectors"]),
        head_index=RemoteFile(**entry["head_index"]),
        digest=entry["digest"],
        license=entry["license"],
        citation=entry["citation"],
    )


def _vocabulary_names(file: str) -> tuple[str, ...]:
    return parse_vocabulary((PRESETS / "vocabularies" / file).read_text(encoding="utf-8")).names
