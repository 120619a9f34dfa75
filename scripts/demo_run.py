"""What the demo shows once a server with the pack runs: an HRV built, and a word read differently because of it."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from launcher.api_client import ApiClient, Prompt, RunResult
from launcher.paths import PACK_ROOT
from launcher.progress import ProgressBar
from launcher.workflow_convert import to_prompt
from pack_import import import_pack
from PIL import Image

WORKFLOW = PACK_ROOT / "example_workflows" / "01 From nothing to a steered image.json"
ROWS = ("unsteered", "strengthened", "adjusted")


def run_demo(api: ApiClient, output: Path) -> None:
    """Queue the demo's workflow, wait for it with a progress bar, and leave its results in ``output``."""
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    prompt = to_prompt(workflow, api.object_info())
    print(f"Running {WORKFLOW.name}:", flush=True)
    with ProgressBar(prompt, api.titles()) as bar:
        result = api.run(prompt, bar.show)
    text = _only(prompt, "HRV_TextEncode")["inputs"]["text"]
    control = _only(prompt, "HRV_ConceptAdjust")["inputs"]
    build = _only(prompt, "HRV_Build")["inputs"]
    hrv = _copy_hrv(result, _id(prompt, "HRV_Save"), output)
    heat_map = _copy_picture(api, result, _id(prompt, "HRV_HeatMap"), output / "heat-map.png")
    grid = _picture_grid(api, prompt, result, output / "steered.png", text, control)
    print(
        f"\nBuilt an HRV from {build['images']} images of {build['steps']} steps and steered the prompt {text!r}: "
        f"once as it is,\nonce with {control['words']!r} strengthened as {control['desired']}, once with it read as "
        f"{control['desired']} and not as {control['undesired']}.\n"
        f"  the HRV            {hrv}\n"
        f"  all its concepts   {heat_map}\n"
        f"  the same seeds     {grid}",
        flush=True,
    )


def _id(prompt: Prompt, class_type: str) -> str:
    """The one node of a class."""
    (found,) = [node for node, entry in prompt.items() if entry["class_type"] == class_type]
    return found


def _only(prompt: Prompt, class_type: str) -> Any:
    return prompt[_id(prompt, class_type)]


def _copy_hrv(result: RunResult, node: str, output: Path) -> Path:
    (path,) = result.outputs[node]["path"]
    return Path(shutil.copyfile(path, output / "hrv.safetensors"))


def _copy_picture(api: ApiClient, result: RunResult, node: str, path: Path) -> Path:
    path.write_bytes(api.view(result.images(node)[0]))
    return path


def _picture_grid(
    api: ApiClient, prompt: Prompt, result: RunResult, path: Path, text: str, control: dict[str, Any]
) -> Path:
    """The saved images of each row, told apart by the file name that the workflow gives them."""
    import_pack()
    from hrv_pack.hrv.drawing.grid import picture_grid

    rows = []
    for row in ROWS:
        (node,) = [
            node
            for node, entry in prompt.items()
            if entry["class_type"] == "SaveImage" and entry["inputs"]["filename_prefix"].endswith(row)
        ]
        rows.append([np.asarray(Image.open(io.BytesIO(api.view(image)))) for image in result.images(node)])
    labels = (
        "unsteered",
        f"strengthened: {control['words']} as {control['desired']}",
        f"adjusted: {control['desired']}, not {control['undesired']}",
    )
    columns = [f"seed {index + 1}" for index in range(len(rows[0]))]
    picture_grid(rows, labels, columns, title=repr(text)).save(path)
    return path
