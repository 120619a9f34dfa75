"""Save HRV and Load HRV."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.files.folders import hrv_files, hrv_path, keep_hrv, models_folder
from ..host.page.texts import show_text
from ..hrv.relevance.files import load_hrv
from ..hrv.relevance.vectors import HRV
from .menu import FILES
from .node import FileChoice, Node
from .sockets import HRVSocket


class SaveHRV(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_Save",
            display_name="Save HRV",
            category=FILES,
            description="Saves an HRV in models/hrv, where Load HRV finds it. Existing files are never overwritten: "
            "a different HRV with the same name gets a number.",
            search_aliases=["export hrv", "write hrv", "safetensors"],
            is_output_node=True,
            inputs=[
                HRVSocket.Input("hrv", tooltip="From Build HRV, or any node that makes an HRV."),
                io.String.Input(
                    "name", default="my-hrv", tooltip="File name without an extension; folders with / are allowed."
                ),
            ],
            outputs=[io.String.Output("path", display_name="path", tooltip="Where the file is.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, hrv: HRV, name: str) -> io.NodeOutput:
        path = keep_hrv(hrv, name)
        shown = path.relative_to(models_folder().parent).as_posix()
        show_text(cls, shown)
        return io.NodeOutput(str(path), ui={"text": [shown], "path": [str(path)]})


class LoadHRV(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_Load",
            display_name="Load HRV",
            category=FILES,
            description="Loads an HRV from models/hrv, or one that ships with the pack.",
            search_aliases=["open hrv", "import hrv", "head relevance vector"],
            inputs=[FileChoice("file", options=hrv_files(), tooltip="Files in models/hrv; press R to refresh.")],
            outputs=[HRVSocket.Output("hrv", display_name="HRV", tooltip="The HRV of the file, as it was saved.")],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(load_hrv(hrv_path(file)))

    @classmethod
    def fingerprint_inputs(cls, file: str) -> tuple[str, int]:
        """A file that was rewritten is read again."""
        return file, hrv_path(file).stat().st_mtime_ns
