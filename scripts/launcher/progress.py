"""One progress bar in the terminal for a whole run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from tqdm import tqdm

from .api_client import Event, Prompt


class ProgressBar:
    """Counts steps: one for every node, and as many as it reports for a node that reports its own progress.

    How many those are is known only once such a node runs, so the whole grows then. A context manager; give
    :meth:`show` to :meth:`ApiClient.run` as ``on_event``. ``titles`` names node classes.
    """

    def __init__(self, prompt: Prompt, titles: Mapping[str, str]) -> None:
        self._names = {node: titles.get(entry["class_type"], entry["class_type"]) for node, entry in prompt.items()}
        self._steps = dict.fromkeys(prompt, 1.0)
        self._done = dict.fromkeys(prompt, 0.0)
        self._bar: tqdm[Any] = tqdm(
            total=len(prompt), bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}", dynamic_ncols=True
        )

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
            self._finish(data["nodes"])
        elif event["type"] == "progress_state":
            for node, state in data["nodes"].items():
                self._steps[node] = max(state["max"], 1.0)
                self._done[node] = min(state["value"], self._steps[node])
                if state["state"] == "running":
                    self._say(self._names.get(state["display_node_id"], ""), state["value"], state["max"])
        elif event["type"] == "execution_success":
            self._finish(self._steps)
            self._bar.set_postfix_str("done", refresh=False)
        else:
            return
        self._bar.total = sum(self._steps.values())
        self._bar.n = sum(self._done.values())
        self._bar.refresh()

    def _finish(self, nodes: Iterable[str]) -> None:
        for node in nodes:
            self._done[node] = self._steps.setdefault(node, 1.0)

    def _say(self, name: str, value: float, steps: float) -> None:
        self._bar.set_postfix_str(f"{name} {value:.0f}/{steps:.0f}" if steps > 1 else name, refresh=False)
