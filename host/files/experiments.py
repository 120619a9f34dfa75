"""Experiments as files: those that ship with the pack, and the user's in ``models/hrv/experiments``."""

from __future__ import annotations

from pathlib import Path

from ...hrv.errors import HRVError, quoted
from .folders import models_folder, read_user_file

SHIPPED = Path(__file__).resolve().parents[2] / "hrv_presets" / "experiments"
NO_FILE = "none"

_LARGEST = 1 << 20


def experiment_files() -> list[str]:
    """Names of all experiment files, the shipped ones first; a file of the user's with a shipped name counts alone."""
    return list(_files())


def experiment_file(name: str) -> str:
    """The text of an experiment file. Raises HRVError if it is gone or cannot be read."""
    path = _files().get(name)
    if path is None:
        raise HRVError(
            f"There is no experiment {quoted(name)} in {_own()}. Put it there and press R to refresh the lists."
        )
    try:
        return read_user_file(path, _LARGEST).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise HRVError(f"{path} is not a text file in UTF-8: save it in that encoding.") from None


def _own() -> Path:
    return models_folder() / "experiments"


def _files() -> dict[str, Path]:
    return {path.stem: path for folder in (SHIPPED, _own()) for path in sorted(folder.glob("*.txt")) if path.is_file()}
