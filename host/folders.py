"""Where HRV files live: the host's models folder ``hrv``, the HRVs that ship with the pack, and files of the user's."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ..hrv.errors import HRVError

FOLDER = "hrv"
SUFFIX = ".safetensors"
SHIPPED = Path(__file__).resolve().parent.parent / "hrv_presets" / "hrvs"


def register_folder() -> None:
    """Make ``models/hrv`` known to the host, with the shipped HRVs behind it; doing it again changes nothing."""
    own = str(Path(folder_paths.models_dir) / FOLDER)
    paths, _ = folder_paths.folder_names_and_paths.get(FOLDER, ([], set()))
    wanted = list(dict.fromkeys([*paths, own, str(SHIPPED)]))
    folder_paths.folder_names_and_paths[FOLDER] = (wanted, {SUFFIX})


def hrv_files() -> list[str]:
    """Names of all HRV files, relative to their folders."""
    return folder_paths.get_filename_list(FOLDER)


def hrv_path(name: str) -> Path:
    """The file of a name of :func:`hrv_files`. Raises HRVError if it is gone or outside the folders."""
    path = folder_paths.get_full_path(FOLDER, name)
    folders = [Path(folder).resolve() for folder in folder_paths.get_folder_paths(FOLDER)]
    if path is None or not any(Path(path).resolve().is_relative_to(folder) for folder in folders):
        raise HRVError(f"There is no HRV file {name!r} in {folders[0]}. Put it there and press R to refresh the lists.")
    return Path(path)


def models_folder() -> Path:
    """The folder ``models/hrv``, whether it exists or not."""
    return Path(folder_paths.models_dir).resolve() / FOLDER


def new_hrv_path(name: str) -> Path:
    """Where to save an HRV called ``name`` (folders with / allowed) in the models folder.

    Raises HRVError for an empty name and one that leads out of the folder.
    """
    folder = models_folder()
    stem = name.strip().removesuffix(SUFFIX).strip()
    path = (folder / f"{stem}{SUFFIX}").resolve()
    if not stem or stem.endswith(("/", "\\")) or not path.is_relative_to(folder):
        raise HRVError(f"{name!r} is no name for an HRV file: write one like 'my-checkpoint' or 'sdxl/animals'.")
    return path


def user_file(name: str) -> Path:
    """A file of the user's by its name in the input folder or in models/hrv (folders with / allowed).

    Raises HRVError for one that is in neither, also if it exists elsewhere.
    """
    folders = [Path(folder_paths.get_input_directory()).resolve(), models_folder()]
    for folder in folders:
        path = (folder / name.strip()).resolve()
        if path.is_relative_to(folder) and path.is_file():
            return path
    raise HRVError(f"There is no file {name!r} in {folders[0]} or {folders[1]}. Put it into one of these.")


def read_user_file(path: Path, limit: int) -> bytes:
    """The content of a file of at most ``limit`` bytes; HRVError for a larger one and one that cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise HRVError(f"Cannot read {path}: {error.strerror}.") from error
    if len(data) > limit:
        raise HRVError(f"{path} is larger than {limit} bytes, so it is not the file that was meant.")
    return data
