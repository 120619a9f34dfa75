"""A worker inside its own ComfyUI: it makes a job's inputs again, checks that they are the same, and makes pieces."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfyui_version import __version__ as host_version

from ....hrv.errors import HRVError
from ...files.folders import register_folder, register_loras
from ...models.digest import clip_digest, model_digest
from .recipe import Recipe
from .setup import code_digest


class Session:
    """Raises HRVError, as the end of a sentence, for a host or a pack of another version."""

    def __init__(self, setup: dict[str, Any]):
        if host_version != setup["host_version"]:
            raise HRVError(
                f"its ComfyUI is version {host_version}, and here it is {setup['host_version']}. Install the same "
                "version everywhere."
            )
        code = code_digest()
        if code != setup["code"]:
            raise HRVError(
                f"its code of this node pack differs (digest {code[:12]}, here {setup['code'][:12]}). Install the same "
                "version everywhere."
            )
        _add_folders(setup["folders"])
        self.steps = 0
        self._recipe: Recipe | None = None
        self._inputs: dict[str, Any] = {}
        self._make: Callable[[Any], Any] | None = None

    def prepare(self, job: dict[str, Any]) -> None:
        """Get ready for a job as :mod:`.executor` sends it.

        Raises HRVError for inputs that cannot be made here, and for others than those of the sender.
        """
        recipe = Recipe(*job["recipe"])
        with torch.inference_mode():
            if recipe != self._recipe:
                self._recipe, self._make, self._inputs = None, None, {}
                self._inputs = recipe.results()
                self._recipe = recipe
            for name, there in job["digests"].items():
                here = input_digest(name, self._inputs[name])
                if here != there:
                    raise HRVError(
                        f"its {name} is another one than here, by digest {here[:16]} instead of {there[:16]}. Give "
                        "both machines the same files."
                    )
            module, _, function = job["job"].partition(":")
            package = __name__.partition(".host.")[0]
            described = getattr(importlib.import_module(f"{package}.host.{module}"), function)
            same = described(self._inputs, job["parameters"])
            if same.fresh().key != job["key"]:
                raise HRVError("the same work has another key there. Install the same versions of everything.")
            self._make = same.maker(self._tick)

    def make(self, piece: Any) -> tuple[Any, int]:
        """What is made of a piece, and how many units times steps it took."""
        assert self._make is not None, "prepare() comes first"
        self.steps = 0
        with torch.inference_mode():
            return self._make(piece), self.steps

    def _tick(self, units: int) -> None:
        self.steps += units


def input_digest(name: str, value: Any) -> str:
    """What tells an input of a job from others of its name: a model, clip, vae or scorer."""
    if name == "clip":
        return clip_digest(value)
    if name == "scorer":
        return json.dumps([value.name, dict(value.provenance)], sort_keys=True)
    return model_digest(value.patcher if name == "vae" else value)


def _add_folders(others: dict[str, list[str]]) -> None:
    """This machine's further model folders, the pack's, and behind them those of the sender that are here too."""
    own = Path(folder_paths.__file__).parent / "extra_model_paths.yaml"
    if own.is_file():
        importlib.import_module("utils.extra_config").load_extra_path_config(str(own))
    for kind, paths in others.items():
        for path in paths:
            if kind in folder_paths.folder_names_and_paths and Path(path).is_dir():
                folder_paths.add_model_folder_path(kind, path)
    register_folder()
    register_loras()
