"""Links to the example workflows: ``/?template=NAME&source=FOLDER``, where FOLDER is the pack's below ``custom_nodes``.

The page takes a NAME of letters, digits, "_", "." and "-" only (``useTemplateUrlLoader.ts``), and asks for NAME.json
below ``/workflow_templates/FOLDER``, where the host serves the files themselves (``app/custom_node_manager.py``). So
every workflow has a name for links besides, which neither spaces nor a new number change, and those that had other
names keep them.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

# As the host names it: not resolved, because the folder may be a link.
PACK = Path(__file__).parents[2]

FORMER_NAMES = (
    "1-build-and-save-an-hrv",
    "2-strengthen-a-concept",
    "3-read-a-word-as-another-concept",
    "4-from-nothing-to-a-steered-image",
    "5-two-controls-in-one-prompt",
    "6-a-control-on-one-region",
    "7-with-a-lora",
    "8-edit-a-word",
    "9-edit-a-real-image",
    "10-every-concept-in-the-prompt",
    "11-does-this-hrv-hold",
    "12-the-shape-of-another-prompt",
    "14-which-hrv-holds",
    "15-anima-the-style-of-another-prompt",
    "16-z-image-strengthen-a-word",
    "17-flux-the-weather-of-another-prompt",
)


def link_name(stem: str) -> str:
    """The name in links of a workflow: "03 Strengthen a concept" is "strengthen-a-concept"."""
    return re.sub(r"[^a-z0-9]+", "-", stem.lower().lstrip("0123456789 "))


def register_links(routes: web.RouteTableDef) -> None:
    """Add a route for every name in links, the present and the former ones."""
    files = {link_name(file.stem): file for file in (PACK / "example_workflows").glob("*.json")}
    for link, file in files.items():
        for name in (link, *(former for former in FORMER_NAMES if former.partition("-")[2] == link)):
            routes.get(f"/workflow_templates/{PACK.name}/{name}.json")(_giver(file))


def _giver(file: Path) -> Callable[[web.Request], Awaitable[web.FileResponse]]:
    async def give(_: web.Request) -> web.FileResponse:
        return web.FileResponse(file)

    return give
