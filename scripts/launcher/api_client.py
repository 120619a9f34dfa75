"""Drive a running host over its HTTP API and websocket.

Protocol: ``server.py``, ``execution.py`` and ``tests/execution/test_execution.py`` of the host.
"""

from __future__ import annotations

import asyncio
import json
import mimetypes
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from .errors import LauncherError

Prompt = Mapping[str, Mapping[str, Any]]
"""A workflow in API format: node id -> {"class_type": ..., "inputs": {...}}."""

Event = Mapping[str, Any]
"""One websocket message: {"type": ..., "data": {...}}."""

REQUEST_SECONDS = 60.0

# The host is on this machine: a proxy for the outside has no part in it.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ConnectionLostError(LauncherError):
    """The server does not answer, or went away during a run."""


class WorkflowError(LauncherError):
    """The host refused a workflow, or a node of it failed.

    ``node_id``, ``class_type`` and ``message`` describe the first failed node (empty where the workflow as a
    whole is at fault); ``kind`` is the host's name for the problem: "value_not_in_list", or the exception's
    type.
    """

    def __init__(self, node_id: str, class_type: str, message: str, kind: str) -> None:
        self.node_id = node_id
        self.class_type = class_type
        self.message = message
        self.kind = kind
        super().__init__(f"{class_type} (node {node_id}): {message}" if node_id else message)


class InterruptedRunError(LauncherError):
    """The run was cancelled by somebody."""


class RunTimeoutError(LauncherError):
    """The run took longer than allowed."""


@dataclass
class RunResult:
    """A finished run: its UI outputs by node id (as in the history), which nodes ran, which were cached."""

    prompt_id: str
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    executed: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)

    def images(self, node_id: str) -> list[dict[str, str]]:
        """The image records (filename, subfolder, type) that a node put out, for :meth:`ApiClient.view`."""
        images: list[dict[str, str]] = self.outputs.get(node_id, {}).get("images", [])
        return images


class ApiClient:
    """A client of the host at ``address`` ("127.0.0.1:8188"); holds no connection between calls."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._client_id = uuid.uuid4().hex

    # ---- single requests

    def get(self, path: str, **query: str) -> Any:
        """The JSON answer of ``GET path``."""
        return json.loads(self._request(f"{path}?{urllib.parse.urlencode(query)}" if query else path))

    def post(self, path: str, body: Any) -> Any:
        """The JSON answer of ``POST path`` with a JSON body, None where the host answers with nothing."""
        answer = self._request(path, json.dumps(body).encode(), "application/json")
        return json.loads(answer) if answer else None

    def object_info(self) -> dict[str, Any]:
        """The description of every node class, by name."""
        info: dict[str, Any] = self.get("/object_info")
        return info

    def titles(self) -> dict[str, str]:
        """How every node class is called in the user interface."""
        return {name: info["display_name"] or name for name, info in self.object_info().items()}

    def history(self, prompt_id: str) -> dict[str, Any]:
        """What the host remembers of a finished run; empty while it is unfinished or unknown."""
        entry: dict[str, Any] = self.get(f"/history/{prompt_id}").get(prompt_id, {})
        return entry

    def view(self, image: Mapping[str, str]) -> bytes:
        """The file behind an image record of :meth:`RunResult.images`."""
        return self._request(f"/view?{urllib.parse.urlencode(dict(image))}")

    def upload_image(self, name: str, content: bytes) -> str:
        """Put an image file into the host's input folder; returns the name to give to Load Image."""
        boundary = uuid.uuid4().hex
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        body = (
            (
                f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
                f"Content-Type: {kind}\r\n\r\n"
            ).encode()
            + content
            + f"\r\n--{boundary}--\r\n".encode()
        )
        answer = json.loads(self._request("/upload/image", body, f"multipart/form-data; boundary={boundary}"))
        return f"{answer['subfolder']}/{answer['name']}" if answer["subfolder"] else str(answer["name"])

    def interrupt(self) -> None:
        """Ask the host to cancel the run in progress."""
        self.post("/interrupt", {})

    def cancel(self, prompt_id: str) -> None:
        """Take a run out of the queue, or cancel it if it is in progress."""
        self.post("/queue", {"delete": [prompt_id]})
        self.post("/interrupt", {"prompt_id": prompt_id})

    def free_memory(self) -> None:
        """Ask the host to unload its models and forget cached results before its next run."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    # ---- runs

    def queue(self, prompt: Prompt, *, workflow: str = "") -> str:
        """Queue a workflow; its prompt id. ``workflow`` is the id that it has in a page, if it comes from one.

        Raises :class:`WorkflowError` when the host refuses it.
        """
        page = {"extra_data": {"extra_pnginfo": {"workflow": {"id": workflow}}}} if workflow else {}
        try:
            answer = self.post("/prompt", {"prompt": prompt, "client_id": self._client_id, **page})
        except RefusedError as refusal:
            raise _validation_error(refusal.answer) from None
        prompt_id = str(answer["prompt_id"])
        # The host runs the valid part of a graph whose other outputs are invalid; here that is a failure too.
        if answer["node_errors"]:
            self.cancel(prompt_id)
            raise _validation_error(answer)
        return prompt_id

    def run(
        self,
        prompt: Prompt,
        on_event: Callable[[Event], None] | None = None,
        *,
        timeout: float | None = None,
        workflow: str = "",
    ) -> RunResult:
        """Queue a workflow as :meth:`queue` does and wait for its end.

        ``on_event`` sees every message about this run; it may call the client's single requests. Raises
        :class:`WorkflowError` (refused, or a node failed), :class:`InterruptedRunError`,
        :class:`ConnectionLostError`, and :class:`RunTimeoutError` when the run takes longer than ``timeout``
        seconds and was cancelled for it.
        """
        try:
            return asyncio.run(asyncio.wait_for(self._run(prompt, on_event, workflow), timeout))
        except asyncio.TimeoutError:
            self.interrupt()
            raise RunTimeoutError(f"The run took longer than {timeout} s and was cancelled.") from None

    async def _run(self, prompt: Prompt, on_event: Callable[[Event], None] | None, workflow: str) -> RunResult:
        url = f"http://{self.address}/ws?clientId={self._client_id}"
        try:
            async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
                result = RunResult(self.queue(prompt, workflow=workflow))
                async for message in socket:
                    if message.type is not aiohttp.WSMsgType.TEXT:  # previews are binary
                        continue
                    event = json.loads(message.data)
                    if event["data"].get("prompt_id") != result.prompt_id:
                        continue
                    if on_event is not None:
                        on_event(event)
                    if _take(event, result, prompt):
                        result.outputs = self.history(result.prompt_id)["outputs"]
                        return result
        except aiohttp.ClientError as error:
            raise ConnectionLostError(f"The server at {self.address} does not answer: {error}") from error
        raise ConnectionLostError(f"The server at {self.address} stopped during the run.")

    def _request(self, path: str, body: bytes | None = None, kind: str | None = None) -> bytes:
        headers = {"Content-Type": kind} if kind else {}
        request = urllib.request.Request(f"http://{self.address}{path}", data=body, headers=headers)
        try:
            with _opener.open(request, timeout=REQUEST_SECONDS) as response:
                content: bytes = response.read()
                return content
        except urllib.error.HTTPError as error:
            raise RefusedError(path, error.code, error.read().decode("utf-8", "replace")) from None
        except OSError as error:
            raise ConnectionLostError(f"The server at {self.address} does not answer: {error}") from error


class RefusedError(LauncherError):
    """The host answered a request with an error status; ``answer`` is the decoded body, or {} where it is not
    JSON.
    """

    def __init__(self, path: str, status: int, body: str) -> None:
        self.status = status
        try:
            self.answer: dict[str, Any] = json.loads(body)
        except ValueError:
            self.answer = {}
        super().__init__(f"ComfyUI refused {path} with status {status}: {body[:500]}")


def _take(event: Event, result: RunResult, prompt: Prompt) -> bool:
    """Record ``event`` in ``result``; whether the run is over. Raises for a failed or cancelled run."""
    data = event["data"]
    kind = event["type"]
    if kind == "execution_cached":
        result.cached.extend(data["nodes"])
    elif kind == "executing" and data["node"] is not None:
        result.executed.append(data["node"])
    elif kind == "execution_error":
        raise WorkflowError(
            data["node_id"], data["node_type"], data["exception_message"].strip(), data["exception_type"]
        )
    elif kind == "execution_interrupted":
        raise InterruptedRunError("The run was cancelled.")
    return bool(kind == "executing" and data["node"] is None)


def _validation_error(answer: Mapping[str, Any]) -> WorkflowError:
    for node_id, found in answer.get("node_errors", {}).items():
        problems = [
            f"{problem['message']}: {problem['details']}" if problem["details"] else problem["message"]
            for problem in found["errors"]
        ]
        return WorkflowError(node_id, found["class_type"], "; ".join(problems), found["errors"][0]["type"])
    error = answer["error"]
    node_id = str(error["extra_info"].get("node_id", "") or "")
    class_type = str(error["extra_info"].get("class_type", "") or "")
    return WorkflowError(node_id, class_type, error["message"], error["type"])
