"""Text that a node shows on itself in the page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from comfy_api.latest import io
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ...hrv.errors import HRVError, printable
from .running import running_node
from .shown_texts import SHOWN

MOST_LINES = 24
"""In Nodes 2.0, which takes the text for Markdown, a node grows with it and does not scroll."""


def show_text(node: type[io.ComfyNode], text: str) -> None:
    """Show ``text`` on the node that runs; its schema has to ask for ``io.Hidden.unique_id``.

    Of a long text the first lines are shown, and how many follow. The front end shows a ``text`` among a node's
    results only for nodes of the host's own; this message it shows on any node of the page that started the run. A
    node that is called without the host's executor is on no page.
    """
    if node.hidden is not None:
        _send(text, node.hidden.unique_id)


def show_on_running_node(text: str) -> None:
    """Show ``text`` on whatever node the host's executor is running, as :func:`show_text` does on ours."""
    context = get_executing_context()
    if context is not None:
        _send(text, context.node_id)


def showing_errors(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    """A node's ``execute`` that shows the sentence of an HRVError on the node before it raises it.

    The page itself puts a sentence of its own in front and ours behind "View details". What the node showed in an
    earlier run is not shown again to pages that are opened from now on.
    """

    @wraps(execute)
    def execute_showing_errors(node: type[io.ComfyNode], /, *given: Any, **named: Any) -> io.NodeOutput:
        running = running_node()
        if running is not None:
            SHOWN.drop(running.workflow, running.node)
        try:
            return execute(node, *given, **named)
        except HRVError as error:
            show_on_running_node(str(error))
            raise

    return execute_showing_errors


class SaidOnce:
    """Tells the user each sentence once in a run: in the log and on the node that samples."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            logging.warning("[HRV] %s", printable(sentence))
            show_on_running_node(f"HRV: {sentence}")


def _send(text: str, node_id: str) -> None:
    lines = text.splitlines()
    if len(lines) > MOST_LINES:
        lines[MOST_LINES:] = ["", f"... and {len(lines) - MOST_LINES} more lines."]
    shown = printable("\n".join(lines))
    running = running_node(node_id)
    if running is not None:
        SHOWN.put(running.workflow, running.node, shown)
    server = PromptServer.instance
    server.send_progress_text(shown, node_id, server.client_id)
