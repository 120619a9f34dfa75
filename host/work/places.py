"""Where work is done, as people choose it: one setting for nodes and commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .cluster.executor import RayExecutor
from .cluster.recipe import Recipe
from .executor import HERE, Executor

THIS_MACHINE = "this machine"
ALL_GPUS = "all GPUs of this machine"


@contextmanager
def executor_at(place: str, recipe: Callable[[], Recipe], say: Callable[[str], None]) -> Iterator[Executor]:
    """The executor of a place: :data:`THIS_MACHINE`, :data:`ALL_GPUS`, or the address of a Ray cluster.

    ``recipe`` is asked only where work leaves this process; ``say`` gets sentences about workers. Whatever is still
    under way at the end of the block is stopped. Raises HRVError as :class:`.cluster.executor.RayExecutor` does.
    """
    chosen = place.strip()
    if chosen.lower() in ("", THIS_MACHINE.lower()):
        yield HERE
        return
    executor = RayExecutor("" if chosen.lower() == ALL_GPUS.lower() else chosen, recipe(), say)
    try:
        yield executor
    finally:
        executor.close()
