"""Where a node's work is done: what its graph tells of the inputs that workers have to make again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from comfy_api.latest import io

from ..host.page.texts import show_text
from ..host.work.cluster.recipe import recipe_of
from ..host.work.executor import Executor
from ..host.work.places import executor_at


def place_hidden() -> list[io.Hidden]:
    """What the schema of such a node asks for.

    A new list each time, because the host appends to the lists of output nodes.
    """
    return [io.Hidden.unique_id, io.Hidden.prompt]


def executor_of(node: type[io.ComfyNode], place: str, inputs: Sequence[str]) -> AbstractContextManager[Executor]:
    """The executor of a place for a node's work with these of its inputs; sentences about workers show on the node."""
    hidden = node.hidden

    return executor_at(
        place,
        lambda: recipe_of(hidden and hidden.prompt, hidden and hidden.unique_id, inputs),
        lambda sentence: show_text(node, sentence),
    )
