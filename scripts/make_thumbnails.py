"""Run example workflows and make the pictures that the host's template browser shows of them.

    python scripts/make_thumbnails.py [NAME ...]

The results of ``example_workflows/NAME.json`` become ``example_workflows/NAME.jpg``: the rows that the workflow
compares, each under the title of its node, or else its lowest picture. All of them take some minutes on two CPU cores.
A workflow for a model of somebody else is not run: its picture says for which one it is.
"""

from __future__ import annotations

import argparse
import io
import json
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import errors_for_people
from launcher.model_files import model_files
from launcher.paths import PACK_ROOT
from launcher.prepare import enter_environment, interrupt_on_termination

if TYPE_CHECKING:
    from launcher.api_client import ApiClient
    from PIL import Image

SIDE, LABEL, MARGIN = 512, 34, 4
PAPER, INK = (255, 255, 255), (32, 33, 36)


def run_workflow(api: ApiClient, path: Path) -> dict[str, list[Image.Image]]:
    """Queue the workflow in ``path`` and return its pictures by the title of the node that shows them, top first."""
    from launcher.progress import ProgressBar
    from launcher.workflow_convert import to_prompt
    from PIL import Image

    graph = json.loads(path.read_text(encoding="utf-8"))
    prompt = to_prompt(graph, api.object_info())
    with ProgressBar(prompt, api.titles()) as bar:
        result = api.run(prompt, bar.show)
    pictures = {}
    for node in sorted(graph["nodes"], key=lambda node: node["pos"][1]):
        records = result.images(str(node["id"]))
        if records:
            title = prompt[str(node["id"])]["_meta"]["title"]
            pictures[title] = [Image.open(io.BytesIO(api.view(record))).convert("RGB") for record in records]
    return pictures


def assemble(pictures: dict[str, list[Image.Image]]) -> Image.Image:
    """A square of SIDE pixels: rows of several pictures with their titles, or else the lowest picture, enlarged.

    If others have its size, they are to be compared, and all of them are there with their titles.
    """
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    rows = {title: row for title, row in pictures.items() if len(row) > 1}
    if not rows:
        lowest = list(pictures.values())[-1][0]
        alike = {title: row[0] for title, row in pictures.items() if row[0].size == lowest.size}
        if len(alike) > 1:
            return stacked(alike)
        return ImageOps.pad(lowest, (SIDE, SIDE), Image.Resampling.LANCZOS, PAPER)
    square = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(square)
    font = ImageFont.load_default(24)
    pitch = SIDE // len(rows)
    cell = pitch - LABEL - MARGIN
    columns = min(SIDE // (cell + MARGIN), *(len(row) for row in rows.values()))
    left = (SIDE - columns * (cell + MARGIN) + MARGIN) // 2
    for line, (title, row) in enumerate(rows.items()):
        draw.text((left, line * pitch + LABEL // 2), title, INK, font, "lm")
        for column, picture in enumerate(row[:columns]):
            place = (left + column * (cell + MARGIN), line * pitch + LABEL)
            square.paste(ImageOps.pad(picture, (cell, cell), Image.Resampling.LANCZOS, PAPER), place)
    return square


def stacked(pictures: dict[str, Image.Image]) -> Image.Image:
    """A square of SIDE pixels with some pictures below each other, each under its title."""
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    square = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(square)
    pitch = SIDE // len(pictures)
    for line, (title, picture) in enumerate(pictures.items()):
        draw.text((SIDE // 2, line * pitch + LABEL // 2), title, INK, ImageFont.load_default(24), "mm")
        strip = ImageOps.pad(picture, (SIDE, pitch - LABEL), Image.Resampling.LANCZOS, PAPER)
        square.paste(strip, (0, line * pitch + LABEL))
    return square


def card(name: str, files: list[Path]) -> Image.Image:
    """A square of SIDE pixels that says what a workflow is for, by its name and the files that it needs."""
    from PIL import Image, ImageDraw, ImageFont

    square = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(square)
    title = textwrap.wrap(name.partition(" ")[2], 24)
    lines = [*((line, 36) for line in title), ("", 24), *((file.name, 22) for file in files)]
    top = (SIDE - sum(size + 14 for _, size in lines)) // 2
    for line, size in lines:
        draw.text((SIDE // 2, top), line, INK, ImageFont.load_default(size), "mt")
        top += size + 14
    return square


def main() -> None:
    examples = {path.stem: path for path in sorted((PACK_ROOT / "example_workflows").glob("*.json"))}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a workflow, without .json; none means all")
    options = parser.parse_args()
    unknown = set(options.names) - examples.keys()
    if unknown:
        parser.error(f"There is no workflow {', '.join(sorted(unknown))}. There are: {', '.join(examples)}.")
    interrupt_on_termination()
    with errors_for_people():
        host = enter_environment(Path(__file__).resolve(), None)

        # These need packages of the environment, which is entered only now.
        from launcher.api_client import ApiClient
        from launcher.comfy_server import ComfyServer

        with ComfyServer(host.folder) as server:
            for name in options.names or examples:
                path = examples[name]
                print(path.name, flush=True)
                files = model_files(json.loads(path.read_text(encoding="utf-8")))
                square = card(name, files) if files else assemble(run_workflow(ApiClient(server.address), path))
                square.save(path.with_suffix(".jpg"), quality=85, optimize=True)


if __name__ == "__main__":
    main()
