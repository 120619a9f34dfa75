"""Where files live: the host's models folder ``hrv``, what ships with the pack, and files of the user's.

People keep models on other disks: folders and files may be symbolic links, which are followed as the host follows them
in its own model folders. What may not lead out of a folder are names (:func:`below`).
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

import folder_paths

from ...hrv.errors import HRVError, quoted
from ...hrv.relevance.files import load_hrv, save_hrv
from ...hrv.relevance.vectors import HRV
from ...hrv.storage.atomic_files import reason

FOLDER = "hrv"
SUFFIX = ".safetensors"
PRESETS = Path(__file__).resolve().parents[2] / "hrv_presets"
SHIPPED = PRESETS / "hrvs"
SHIPPED_LORAS = PRESETS / "loras"

MOST_FOLDERS = 32
"""Folders in a name that a user writes; making folders inside each other calls itself for each."""

# File systems allow 255 bytes, of which endings, numbers and the names of temporary files need some.
_LONGEST_PART = 200

# A name has to work on every system, since models folders are shared and copied: no control characters, halves of
# characters, punctuation or devices of Windows, and no dot or blank at an end, which Windows cuts off.
_NO_CHARACTER = r'[\x00-\x1f\x7f<>:"|?*\ud800-\udfff]'
_NO_PART = re.compile(r"|.*[. ]| .*|(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])( *\..*)?", re.IGNORECASE)


def register_folder() -> None:
    """Make ``models/hrv`` known to the host, with the shipped HRVs behind it; doing it again changes nothing."""
    own = str(Path(folder_paths.models_dir) / FOLDER)
    paths, _ = folder_paths.folder_names_and_paths.get(FOLDER, ([], set()))
    wanted = list(dict.fromkeys([*paths, own, str(SHIPPED)]))
    folder_paths.folder_names_and_paths[FOLDER] = (wanted, {SUFFIX})


def register_loras() -> None:
    """Put the shipped LoRAs into the host's list, behind the user's folders; doing it again changes nothing."""
    folder_paths.add_model_folder_path("loras", str(SHIPPED_LORAS))


def hrv_files() -> list[str]:
    """Names of all HRV files, relative to their folders."""
    return folder_paths.get_filename_list(FOLDER)


def below(folder: Path, name: str) -> Path | None:
    """The place of a name (folders with / allowed) below a folder; None for a name that leads anywhere else.

    Only the name is looked at, not what is there.
    """
    place = Path(os.path.normpath(name))
    if "\0" in name or place.anchor or not place.parts or ".." in place.parts:
        return None
    return folder / place


def hrv_path(name: str) -> Path:
    """The file of a name of :func:`hrv_files`. Raises HRVError if it is gone, or the name leads out of the folders."""
    path = folder_paths.get_full_path(FOLDER, name) if below(Path(), name) else None
    if path is None:
        folder = Path(folder_paths.get_folder_paths(FOLDER)[0]).absolute()
        raise HRVError(
            f"There is no HRV file {quoted(name)} in {folder}. Put it there and press R to refresh the lists."
        )
    return Path(path)


def models_folder() -> Path:
    """The folder ``models/hrv``, whether it exists or not."""
    return Path(folder_paths.models_dir).resolve() / FOLDER


def keep_hrv(hrv: HRV, name: str) -> Path:
    """Save an HRV in the models folder as ``name`` (folders with / allowed) and return its file.

    Nothing is overwritten: if another file is there, the next free number is put behind the name; if the HRV itself
    is, nothing is written. Raises HRVError for a name that is none on some system or leads out of the folder, and if
    it cannot be saved.
    """
    wanted = path = _new_path(name)
    number = 2
    try:
        while path.exists() and not _holds(path, hrv):
            path = wanted.with_stem(f"{wanted.stem}-{number}")
            number += 1
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_hrv(hrv, path)
    except OSError as error:
        raise HRVError(f"Cannot save the HRV as {quoted(name)} in {models_folder()}: {reason(error)}.") from error
    return path


def _new_path(name: str) -> Path:
    stem = name.strip().replace("\\", "/").removesuffix(SUFFIX).rstrip()
    unfit = re.search(_NO_CHARACTER, stem)
    if unfit:
        raise HRVError(f"A file name cannot contain {unfit[0]!r}. Change the name {quoted(name)}.")
    if stem.count("/") > MOST_FOLDERS:
        raise HRVError(f"The name of an HRV can have at most {MOST_FOLDERS} folders: shorten {quoted(name)}.")
    if any(len(part) > _LONGEST_PART for part in stem.split("/")):
        raise HRVError(f"A file name can have at most {_LONGEST_PART} characters: shorten {quoted(name)}.")
    path = below(models_folder(), f"{stem}{SUFFIX}")
    if path is None or any(_NO_PART.fullmatch(part) for part in stem.split("/")):
        raise HRVError(
            f"{quoted(name)} isn't a valid name for an HRV: write one like 'my-checkpoint' or 'sdxl/animals'."
        )
    return path


def _holds(path: Path, hrv: HRV) -> bool:
    """Whether a file is this very HRV."""
    try:
        return load_hrv(path).same_as(hrv)
    except HRVError:
        return False


def user_file(name: str) -> Path:
    """A file of the user's by its name in the input folder or in models/hrv (folders with / allowed).

    Raises HRVError for one that is in neither, also if it exists elsewhere.
    """
    folders = [Path(folder_paths.get_input_directory()).resolve(), models_folder()]
    for folder in folders:
        path = below(folder, name.strip())
        with contextlib.suppress(OSError, ValueError):  # a name that no file can have
            if path is not None and path.is_file():
                return path
    raise HRVError(
        f"There is no file {quoted(name)} in {folders[0]} or {folders[1]}. Put it into one of these folders."
    )


def read_user_file(path: Path, limit: int) -> bytes:
    """The content of a file of at most ``limit`` bytes; HRVError for a larger one and one that cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise HRVError(f"Cannot read {path}: {reason(error)}.") from error
    if len(data) > limit:
        raise HRVError(f"{path} is larger than {limit} bytes, so it cannot be the right file.")
    return data
