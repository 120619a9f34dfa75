"""The pack's routes in the host's web server (``server.py``): JSON in, JSON out, a sentence if something is wrong."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web
from server import PromptServer

from ...hrv.errors import HRVError
from ...hrv.relevance.vectors import HRV
from ..page.shown_texts import SHOWN
from .heads import touched_heads, written_heads
from .prompts import words_of
from .recipes import concepts_of, hrv_of
from .requests import LARGEST, Request, object_of, text_of
from .results import results_of, statuses_of
from .templates import register_links

Answer = Callable[[Request], Any]


def register_routes() -> None:
    """Add the routes to the host's server; where none runs, as in a script, there is nothing to add them to."""
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        for path, answer in ROUTES.items():
            server.routes.post(path)(_handler(answer))
        register_links(server.routes)


def _hrv(request: Request) -> dict[str, Any]:
    return shown_hrv(hrv_of(request))


def shown_hrv(hrv: HRV) -> dict[str, Any]:
    """An HRV for the page: ``values`` are its float32 [N, H] in base64, little-endian, row by row."""
    return {
        "concepts": list(hrv.concepts),
        "layout": json.loads(hrv.layout.to_json()),
        "names": [layer.name for layer in hrv.layout.layers],
        "values": base64.b64encode(hrv.values.astype("<f4").tobytes()).decode("ascii"),
        "digest": hrv.digest,
    }


ROUTES: dict[str, Answer] = {
    "/hrv/hrv": _hrv,
    "/hrv/concepts": lambda request: {"concepts": list(concepts_of(request))},
    "/hrv/heads": written_heads,
    "/hrv/touched": lambda request: {"positions": touched_heads(hrv_of(object_of(request, "hrv")), request)},
    "/hrv/tokens": words_of,
    "/hrv/status": lambda request: {"statuses": statuses_of(text_of(request, "workflow"))},
    "/hrv/results": lambda request: {
        "outputs": results_of(text_of(request, "workflow")),
        "texts": SHOWN.of(text_of(request, "workflow")),
    },
}


def _handler(answer: Answer) -> Callable[[web.Request], Any]:
    async def handle(request: web.Request) -> web.Response:
        try:
            return web.json_response(await asyncio.to_thread(answer, await _read(request)))
        except HRVError as error:
            return web.json_response({"error": str(error)}, status=400)

    return handle


async def _read(request: web.Request) -> Request:
    """The JSON object of a request. Raises HRVError for anything else."""
    content = bytearray()
    async for chunk in request.content.iter_any():
        content += chunk
        if len(content) > LARGEST:
            raise HRVError(f"A request has at most {LARGEST} bytes.")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise HRVError("A request is a JSON object in UTF-8, and this is none.") from None
    return object_of({"request": found}, "request")
