"""HRVs and vocabularies of the paper's authors: download on the user's word, or import of files on disk."""

from __future__ import annotations

import hashlib
from typing import Any

from comfy_api.latest import io

from ..host.files.catalog import obtain, paper_concepts, read_catalog
from ..host.files.folders import models_folder, read_user_file, user_file
from ..hrv.errors import HRVError
from ..hrv.relevance.published import NAMES_LIMIT, VECTORS_LIMIT, hrv_from_npy
from ..hrv.relevance.vocabulary import Vocabulary, parse_paper_csv
from .menu import FILES, MAKE
from .node import Node
from .sockets import ConceptsSocket, HRVSocket

WORD_LIST_LIMIT = 4 * 1024 * 1024


class Published(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        catalog = read_catalog()
        offered = "; ".join(f"{entry.name}: for {entry.family} models" for entry in catalog.values())
        return io.Schema(
            node_id="HRV_Published",
            display_name="Published HRV",
            category=FILES,
            description="Loads an HRV by the paper's authors, for 34 concepts. It is not part of the pack: turn on "
            "'download' to fetch it once and keep it in models/hrv/published, or put the files there by "
            "hand.",
            search_aliases=["download hrv", "ready-made hrv", "catalog", "paper hrv", "sd 1.4", "sdxl"],
            inputs=[
                io.Combo.Input("name", options=list(catalog), tooltip=f"{offered}. Fine-tunes of these fit as well."),
                io.Boolean.Input(
                    "download",
                    default=False,
                    tooltip="Allow this node to download the files from GitHub (less than 0.5 MB) if they are "
                    "missing. When off, it never uses the network.",
                ),
            ],
            outputs=[
                HRVSocket.Output("hrv", display_name="HRV", tooltip="34 concepts, as published: values, no counts."),
                io.String.Output("credit", display_name="credit", tooltip="Whose work it is, and its licence."),
            ],
        )

    @classmethod
    def execute(cls, name: str, download: bool) -> io.NodeOutput:
        entry = read_catalog()[name]
        hrv = obtain(entry, models_folder() / "published", download=download)
        return io.NodeOutput(hrv, f"{entry.citation} License: {entry.license}.")


class ImportNpy(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_ImportNpy",
            display_name="Import HRV (.npy)",
            category=FILES,
            description="Reads an HRV from the two .npy files that the authors' scripts write. Save HRV saves it in "
            "this pack's own format.",
            search_aliases=["npy", "numpy", "category_vectors", "head_index", "authors' scripts"],
            inputs=[
                io.String.Input(
                    "vectors",
                    default="category_vectors.npy",
                    tooltip="The category_vectors file, in the input folder or in models/hrv; folders with / work.",
                ),
                io.String.Input(
                    "head_index",
                    default="head_index.npy",
                    tooltip="The head_index file that belongs to it; it says which model the vectors are for.",
                ),
                ConceptsSocket.Input(
                    "concepts",
                    optional=True,
                    tooltip="The concepts of the vectors, one for each row. If not connected: the paper's 34 concepts.",
                ),
            ],
            outputs=[
                HRVSocket.Output("hrv", display_name="HRV", tooltip="The vectors of the file: values, no counts.")
            ],
        )

    @classmethod
    def execute(cls, vectors: str, head_index: str, concepts: Vocabulary | None = None) -> io.NodeOutput:
        files = {"vectors": user_file(vectors), "head_index": user_file(head_index)}
        limits = {"vectors": VECTORS_LIMIT, "head_index": NAMES_LIMIT}
        data = {part: read_user_file(path, limits[part]) for part, path in files.items()}
        provenance: dict[str, Any] = {
            "imported_from": {part: path.name for part, path in files.items()},
            "sha256": {part: hashlib.sha256(content).hexdigest() for part, content in data.items()},
        }
        if concepts is not None:
            provenance["vocabulary"] = concepts.to_text()
        names = paper_concepts() if concepts is None else concepts.names
        return io.NodeOutput(hrv_from_npy(data["vectors"], data["head_index"], names, provenance))

    @classmethod
    def fingerprint_inputs(cls, vectors: str, head_index: str, concepts: Vocabulary | None = None) -> list[int]:
        """Files that were rewritten are read again."""
        return [user_file(name).stat().st_mtime_ns for name in (vectors, head_index)]


class ImportConcepts(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_ImportConcepts",
            display_name="Import HRV Concepts (.csv)",
            category=MAKE,
            description="Reads a list of concepts in the authors' format: a line with the concept, then numbered "
            "lines with its words.",
            search_aliases=["vocabulary", "word list", "csv", "340_final_text_list"],
            inputs=[
                io.String.Input(
                    "file",
                    default="340_final_text_list.csv",
                    tooltip="A text file in the input folder or in models/hrv; folders with / work.",
                )
            ],
            outputs=[
                ConceptsSocket.Output(
                    "vocabulary", display_name="concepts", tooltip="For Build HRV or Import HRV (.npy)."
                ),
                io.String.Output(
                    "text",
                    display_name="text",
                    tooltip="The same in the format of HRV Concepts, so you can edit it there.",
                ),
            ],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        path = user_file(file)
        try:
            text = read_user_file(path, WORD_LIST_LIMIT).decode("utf-8")
        except UnicodeDecodeError as error:
            raise HRVError(f"{path} is not UTF-8 text ({error.reason}). Save it in that encoding.") from None
        vocabulary = parse_paper_csv(text)
        return io.NodeOutput(vocabulary, vocabulary.to_text())

    @classmethod
    def fingerprint_inputs(cls, file: str) -> int:
        """A file that was rewritten is read again."""
        return user_file(file).stat().st_mtime_ns
