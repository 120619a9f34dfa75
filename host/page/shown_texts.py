"""The texts that nodes show, so that a page that is opened later can show them again."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

MOST = 256
"""Nodes whose texts are remembered; those that showed one last."""


class ShownTexts:
    """The last text of each node of each workflow, for as long as this process lives; of prompts without a workflow,
    none."""

    def __init__(self) -> None:
        self._texts: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._lock = Lock()

    def put(self, workflow: str, node: str, text: str) -> None:
        """Remember what a node shows from now on."""
        if workflow:
            with self._lock:
                self._texts[workflow, node] = text
                self._texts.move_to_end((workflow, node))
                while len(self._texts) > MOST:
                    self._texts.popitem(last=False)

    def drop(self, workflow: str, node: str) -> None:
        """Forget a node's text, if it has one."""
        with self._lock:
            self._texts.pop((workflow, node), None)

    def of(self, workflow: str) -> dict[str, str]:
        """The texts of a workflow by node."""
        with self._lock:
            return {node: text for (owner, node), text in self._texts.items() if owner == workflow}


SHOWN = ShownTexts()
"""Those of this process."""
