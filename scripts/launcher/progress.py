"""One progress bar in the terminal for a whole run."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tqdm import tqdm

from .api_client import Event, Prompt


class ProgressBar:
    """Counts finished nodes, with the running node's own progress as a fraction and its steps beside it.

    A context manager; give :meth:`show` to :meth:`ApiClient.run` as ``on_event``. ``titles`` names node
    classes.
    """

    def __init__(self, prompt: Prompt, titles: Mapping[str, str]) -> None:
        self._names = {node: titles.get(entry["class_type"], entry["class_type"]) for node, entry in prompt.items()}
        self._bar: tqdm[Any] = tqdm(
            total=len(prompt), bar_format="{l_bar}{bar}| {elapsed} {postfix}", dynamic_ncols=True, leave=True
        )
        self._finished: set[str] = set()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def show(self, event: Event) -> None:
        """Bring the bar up to date with one websocket message of the run."""
        data = event["data"]
        if event["type"] == "execution_cached":
            self._finished.update(data["nodes"])
            self._move(0.0)
        elif event["type"] == "progress_state":
            fraction = 0.0
            for state in data["nodes"].values():
                node, value, total = state["display_node_id"], state["value"], state["max"]
                if state["state"] == "finished":
                    self._finished.add(node)
                elif state["state"] == "running":
                    fraction += value / (total or 1)
                    steps = f" {value:.0f}/{total:.0f}" if total > 1 else ""
                    self._bar.set_postfix_str(self._names.get(node, "") + steps, refresh=False)
            self._move(fraction)
        elif event["type"] == "execution_success":
            self._finished.update(self._names)
            self._bar.set_postfix_str("done", refresh=False)
            self._move(0.0)

    def _move(self, fraction: float) -> None:
        self._bar.n = min(len(self._finished & self._names.keys()) + fraction, self._bar.total)
        self._bar.refresh()
