"""What a job is, as data: enough to do it on another machine that has the same model."""

from __future__ import annotations

from typing import Any, NamedTuple


class Description(NamedTuple):
    """A job for the workers of a cluster.

    ``job``         where it is described: the module below ``host`` and the name of a function there, such as
                    "building.build:described", which makes the job again of all that follows.
    ``inputs``      the live model and what else a graph makes, by name; they do not travel, but are made again.
    ``parameters``  everything else, as plain data: builtins and arrays.
    """

    job: str
    inputs: dict[str, Any]
    parameters: dict[str, Any]
