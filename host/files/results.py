"""Texts that nodes leave in the host's output folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import folder_paths

from ...hrv.errors import HRVError, printable, quoted
from ...hrv.storage.atomic_files import reason, write_atomically
from .folders import MOST_FOLDERS


def output_place(prefix: str) -> tuple[Path, str]:
    """The folder below the output folder and the next free name that a prefix stands for, as in Save Image.

    Raises HRVError for a prefix that leads out of the output folder, and for one that can't be the name of a file.
    """
    output = Path(folder_paths.get_output_directory()).resolve()
    if "\n" in prefix or printable(prefix) != prefix or prefix.count("/") > MOST_FOLDERS:
        raise HRVError(
            f"The prefix {quoted(prefix)} can't be the name of a file: write one like hrv/weakening, with at most "
            f"{MOST_FOLDERS} folders."
        )
    if not (output / prefix).resolve().is_relative_to(output):
        raise HRVError(f"The prefix {quoted(prefix)} leads out of the output folder: write one like hrv/weakening.")
    try:
        folder, name, counter, _, _ = folder_paths.get_save_image_path(prefix, str(output))
    except OSError as error:
        raise HRVError(f"Cannot save anything under the prefix {quoted(prefix)}: {reason(error)}.") from error
    return Path(folder), f"{name}_{counter:05}_"


def save_texts(prefix: str, texts: Mapping[str, str]) -> list[Path]:
    """Write texts under the next free name of a prefix, each with its ending (".csv"), and return their files.

    Raises HRVError as :func:`output_place` does, and if a file cannot be written.
    """
    folder, name = output_place(prefix)
    paths = [folder / f"{name}{ending}" for ending in texts]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in zip(paths, texts.values(), strict=True):
            write_atomically(path, text.encode())
    except OSError as error:
        raise HRVError(f"Cannot save the results in {folder}: {reason(error)}.") from error
    return paths
