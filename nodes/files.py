"""Save HRV and Load HRV."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..host.folders import hrv_files, hrv_path, new_hrv_path
from ..hrv.errors import HRVError
from ..hrv.files import load_hrv, save_hrv
from ..hrv.vectors import HRV
from .sockets import CATEGORY, HRVSocket


class SaveHRV(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_Save",
            display_name="Save HRV",
            category=CATEGORY,
            description="Writes an HRV to models/hrv, where Load HRV finds it. A file that is already there is never "
            "overwritten: another HRV gets a number behind its name.",
            search_aliases=["export hrv", "write hrv", "safetensors"],
            is_output_node=True,
            inputs=[
                HRVSocket.Input("hrv", tooltip="From Build HRV, or any node that makes an HRV."),
                io.String.Input(
                    "name", default="my-hrv", tooltip="File name without ending; folders with / are allowed."
                ),
            ],
            outputs=[io.String.Output("path", display_name="path")],
        )

    @classmethod
    def execute(cls, hrv: HRV, name: str) -> io.NodeOutput:
        wanted = path = new_hrv_path(name)
        number = 2
        while path.exists() and not _holds(path, hrv):
            path = wanted.with_stem(f"{wanted.stem}-{number}")
            number += 1
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_hrv(hrv, path)
        shown = path.relative_to(Path(folder_paths.models_dir).resolve()).as_posix()
        return io.NodeOutput(str(path), ui={"text": [shown], "path": [str(path)]})


def _holds(path: Path, hrv: HRV) -> bool:
    """Whether a file is this very HRV."""
    try:
        return load_hrv(path).same_as(hrv)
    except HRVError:
        return False


class LoadHRV(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_Load",
            display_name="Load HRV",
            category=CATEGORY,
            description="Reads an HRV file from models/hrv, or one that ships with the pack.",
            search_aliases=["open hrv", "import hrv", "head relevance vector"],
            inputs=[io.Combo.Input("file", options=hrv_files(), tooltip="Files in models/hrv; press R to refresh.")],
            outputs=[HRVSocket.Output("hrv", display_name="HRV")],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(load_hrv(hrv_path(file)))

    @classmethod
    def fingerprint_inputs(cls, file: str) -> tuple[str, int]:
        """A file that was written anew is read anew."""
        return file, hrv_path(file).stat().st_mtime_ns
