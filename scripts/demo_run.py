"""What the demo shows once a server with the pack runs: HRVs built, and a word read differently because of them."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from launcher.api_client import ApiClient, Prompt, RunResult
from launcher.paths import PACK_ROOT
from launcher.progress import ProgressBar
from launcher.workflow_convert import to_prompt
from pack_import import import_pack
from PIL import Image

WORKFLOW = PACK_ROOT / "example_workflows" / "01 From nothing to a steered image.json"
ROWS = ("unsteered", "strengthened", "adjusted", "adjusted-causally", "shape")
"""Ends of the file names of what is saved, in the order of the rows."""

PIXEL = 4
"""Side of a pixel of HRV-mini in the decoded images (host/mini)."""


class Asked(NamedTuple):
    """What the workflow is about: the prompt, its word with two meanings, the intended one and the other, and the
    prompt whose shape the last row takes. Prompts end with the name of a shape."""

    text: str
    word: str
    desired: str
    undesired: str
    other_text: str

    def shape_of(self, row: str) -> str:
        """The shape that the images of a row should have."""
        return (self.other_text if row == "shape" else self.text).split()[-1]


class Counts(NamedTuple):
    """Of some images, how many read the word as intended, only so, and how many have the shape once and no other."""

    read: int
    clean: int
    images: int


def demo_prompt(api: ApiClient) -> Prompt:
    """The demo's workflow, ready to be queued."""
    return to_prompt(json.loads(WORKFLOW.read_text(encoding="utf-8")), api.object_info())


def run_demo(api: ApiClient, output: Path) -> None:
    """Queue the demo's workflow, wait for it with a progress bar, and leave its results in ``output``."""
    prompt = demo_prompt(api)
    print(f"Running {WORKFLOW.name}:", flush=True)
    with ProgressBar(prompt, api.titles()) as bar:
        result = api.run(prompt, bar.show)
    asked = what_is_asked(prompt)
    hrv = _copy_hrv(result, _id(prompt, "HRV_Save"), output)
    heat_map = _copy_picture(api, result, _id(prompt, "HRV_HeatMap"), output / "heat-map.png")
    grid = _picture_grid(saved_rows(api, prompt, result), asked, output / "steered.png")
    print(
        f"\nBuilt three HRVs, by what heads look at, by what they change, and from the weights alone, and drew\n"
        f"{asked.text!r} without and with controls on {asked.word!r}.\n"
        f"  the causal HRV     {hrv}\n"
        f"  all its concepts   {heat_map}\n"
        f"  the same seeds     {grid}",
        flush=True,
    )


def what_is_asked(prompt: Prompt) -> Asked:
    """The words of the demo's workflow."""
    control = next(entry["inputs"] for entry in prompt.values() if entry["class_type"] == "HRV_ConceptAdjust")
    reading = _only(prompt, "HRV_ReadByConcept")["inputs"]
    text, other = (prompt[_text_node(prompt, reading, name)]["inputs"]["text"] for name in ("conditioning", "other"))
    return Asked(text, control["words"], control["desired"], control["undesired"], other)


def _text_node(prompt: Prompt, inputs: dict[str, Any], name: str) -> str:
    """The node that encodes the text of an input, behind any controls."""
    node: str = inputs[name][0]
    while "text" not in prompt[node]["inputs"]:
        node = prompt[node]["inputs"]["conditioning"][0]
    return node


def saved_rows(api: ApiClient, prompt: Prompt, result: RunResult) -> dict[str, list[npt.NDArray[np.uint8]]]:
    """The saved images [H, W, 3] of each row, told apart by the file name that the workflow gives them."""
    rows = {}
    for row in ROWS:
        (node,) = [
            node
            for node, entry in prompt.items()
            if entry["class_type"] == "SaveImage" and entry["inputs"]["filename_prefix"].endswith(f"/{row}")
        ]
        rows[row] = [
            np.asarray(Image.open(io.BytesIO(api.view(image))).convert("RGB")) for image in result.images(node)
        ]
    return rows


def count(images: Sequence[npt.NDArray[np.uint8]], asked: Asked, row: str) -> Counts:
    """What the images of a row show, by the truth scorer."""
    import torch

    import_pack()
    from hrv_pack.mini.scorer import meaning, read_pictures

    pixels = np.stack(images)[:, PIXEL // 2 :: PIXEL, PIXEL // 2 :: PIXEL]
    readings = read_pictures(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)
    read = sum(meaning(reading, asked.word) == asked.desired.lower() for reading in readings)
    clean = sum([thing.shape for thing in reading.shapes] == [asked.shape_of(row)] for reading in readings)
    return Counts(read, clean, len(readings))


def labels(asked: Asked) -> dict[str, str]:
    """What was done to each row."""
    return {
        "unsteered": "as the model reads it",
        "strengthened": f"{asked.desired} strengthened",
        "adjusted": f"{asked.desired}, not {asked.undesired}: HRV by attention",
        "adjusted-causally": f"{asked.desired}, not {asked.undesired}: causal HRV",
        "shape": f"and the heads of Shape read “{asked.other_text}”",
    }


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


def _picture_grid(rows: dict[str, list[npt.NDArray[np.uint8]]], asked: Asked, path: Path) -> Path:
    """All rows, each with what was done to it and what it shows, counted."""
    import_pack()
    from hrv_pack.hrv.drawing.grid import picture_grid

    texts = []
    for row, label in labels(asked).items():
        counts = count(rows[row], asked, row)
        texts.append(
            f"{label}: {counts.read} of {counts.images} {asked.word} {asked.desired.lower()}s, "
            f"{counts.clean} clean {asked.shape_of(row)}s"
        )
    columns = [f"seed {index + 1}" for index in range(len(rows[ROWS[0]]))]
    picture_grid([rows[row] for row in ROWS], texts, columns, title=f"“{asked.text}”").save(path)
    return path
