"""Pieces made by the workers of a Ray cluster: this process sends them to one that deals them (:mod:`.dealer`).

Every piece's result comes back as it was made and is merged in the order of the grid, whoever made it and when.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, cast

import comfy.model_management

from ....hrv.errors import HRVError
from ..executor import Crew, Maker, Piece, Tick
from .messages import Channel, Message
from .recipe import Recipe
from .session import input_digest
from .setup import PACK_ROOT, setup

_TURN = 0.05
"""Seconds after which a cancel is noticed."""

_PATIENCE = 20.0
"""Seconds that the dealing process has to let its workers go."""


class RayExecutor:
    """Has pieces made by all GPUs of a cluster, or by all cores where neither it nor this host has one.

    ``address`` is the cluster's, or empty for one of this machine that lives as long as this executor. ``recipe`` says
    how workers make the inputs of the jobs, and ``say`` gets sentences for people. To be closed, which stops all
    workers at once. Raises HRVError if Ray is not installed.
    """

    def __init__(self, address: str, recipe: Recipe, say: Callable[[str], None]):
        if importlib.util.find_spec("ray") is None:
            raise HRVError(
                f"Ray isn't installed. Install it with: {sys.executable} -m pip install ray (in the version of your "
                "cluster, if you have one), and restart ComfyUI. Or work on this machine."
            )
        if address.startswith("ray://"):
            raise HRVError(
                "Addresses with ray:// are not supported, because saved work stays on this machine. Join the cluster "
                "with `ray start --address=HEAD:6379` here, and write auto."
            )
        self.crew = Crew(0, time.monotonic())
        self._address, self._recipe, self._say = address, recipe, say
        self._jobs = 0
        self._heard: queue.Queue[Message | None] = queue.Queue()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None

    def run(self, job: Maker[Piece, Any], pieces: Sequence[Piece], tick: Tick) -> Iterator[tuple[Piece, Any]]:
        """:meth:`~..executor.Executor.run`; no process is started where no piece is left.

        Raises HRVError for inputs that workers cannot make, a cluster that cannot be used or is lost, if no worker is
        able to take part, and for a piece that fails again and again.
        """
        if not pieces:
            return
        self._jobs += 1
        self._send("job", self._described(job), list(pieces))
        waiting: dict[int, Any] = {}
        given = 0
        over = False
        self.crew = Crew(0, time.monotonic())
        try:
            while given < len(pieces):
                message = self._next()
                kind = message[0]
                if kind in ("said", "error"):
                    self._sentence(kind, message[1])
                elif message[1] != self._jobs:
                    continue  # of a job that was left
                elif kind == "workers":
                    self.crew = Crew(message[2], self.crew.since if self.crew.workers else time.monotonic())
                elif kind == "steps":
                    tick(message[2])
                elif kind == "made":
                    waiting[message[2]] = message[3]
                else:
                    over = True
                while given in waiting:
                    yield pieces[given], waiting.pop(given)
                    given += 1
        finally:
            if not over and self._channel is not None and given < len(pieces):
                self._send("stop")

    def close(self) -> None:
        """Stop all workers, in the middle of whatever they do."""
        if self._process is None or self._channel is None:
            return
        self._channel.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = self._channel = None
        self.crew = Crew(0, 0.0)

    def _described(self, job: Maker[Any, Any]) -> dict[str, Any]:
        """A job as workers get it (:meth:`.session.Session.prepare`)."""
        description = job.description()
        missing = [name for name in description.inputs if name not in self._recipe.made]
        if missing:
            raise HRVError(f"The workers cannot make the {missing[0]}: the graph does not tell how. Work here.")
        return {
            "job": description.job,
            "parameters": description.parameters,
            "key": job.key,
            "recipe": (dict(self._recipe.nodes), dict(self._recipe.made)),
            "digests": {name: input_digest(name, value) for name, value in description.inputs.items()},
        }

    def _send(self, *message: Any) -> None:
        if self._process is None:
            self._start()
        assert self._channel is not None
        try:
            self._channel.send(*message)
        except (OSError, ValueError):
            return  # what ended it, the next message tells

    def _start(self) -> None:
        # The workers of this machine may need the memory that this process holds.
        comfy.model_management.unload_all_models()
        begin = setup()
        environment = {**os.environ, "COMFYUI_PATH": begin["host"]}
        command = [sys.executable, str(PACK_ROOT / "scripts" / "deal_work.py")]
        # In a group of its own, so that Ctrl-C reaches this process alone, which ends the other in order.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._channel = Channel(cast(BinaryIO, self._process.stdout), cast(BinaryIO, self._process.stdin))
        self._heard = self._channel.heard()
        self._send("begin", self._address, begin)

    def _next(self) -> Message:
        """The next message; the host's exception once the user has cancelled."""
        while True:
            comfy.model_management.throw_exception_if_processing_interrupted()
            try:
                message = self._heard.get(timeout=_TURN)
            except queue.Empty:
                continue
            if message is None:
                self._heard.put(None)
                raise HRVError(
                    f"The connection to {self._address or 'the workers of this machine'} was lost. What was made is "
                    "saved: run it again to resume."
                )
            return message

    def _sentence(self, kind: str, sentence: str) -> None:
        if kind == "error":
            raise HRVError(sentence)
        logging.warning("[HRV] %s", sentence)
        self._say(sentence)
