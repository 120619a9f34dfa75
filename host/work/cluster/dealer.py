"""The process that deals work to the workers of a Ray cluster (``scripts/deal_work.py``); it needs Ray, and no ComfyUI.

It hears from its parent, in this order: ("begin", address or "" for this machine, setup), then for each job ("job",
job, pieces), or ("stop",) to leave the rest of one. It tells ("said", sentence), ("error", sentence) and, each with
the number of the job, ("workers", how many work), ("steps", units times steps), ("made", which piece, what), ("over",).
Both end when the other is gone.
"""

from __future__ import annotations

import os
import queue
import secrets
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from . import worker as worker_module
from .dealing import Dealing
from .messages import Channel, Message

# For work of this machine alone. What goes through the workers' shared memory is small: counts, scores, some pictures.
_OWN: dict[str, Any] = {"address": "local", "include_dashboard": False, "object_store_memory": 256 * 2**20}

_LOOK = 1.0
"""Seconds between two looks for machines that came or went."""

_ASK = 0.25
"""Seconds between two questions how far a worker is; with many workers rather longer."""

_TURN = 0.05
"""Seconds that may pass before a message of the parent is heard."""

_FAREWELL = 10.0
"""Seconds that workers may take to be gone."""

_WAITING = 60.0
"""Seconds without any worker after which people are told."""

_DEATHS = 3
"""So many workers in a row may be lost on one machine before it makes a piece."""


class WorkError(Exception):
    """A sentence for people: why the work cannot go on."""


class _GoneError(Exception):
    """The parent is gone."""


@dataclass(eq=False)
class _Hired:
    """A worker of the cluster.

    ``doing`` is the answer that it owes, ``asked`` how far it is, also owed. It has come if Ray found a place for it.
    It is ready for the job of the number ``job``, or getting so, and makes ``piece`` of it.
    """

    actor: Any
    name: str
    node: str
    doing: Any
    asked: Any = None
    asked_at: float = 0.0
    has_come: bool = False
    job: int = 0
    is_ready: bool = False
    piece: int | None = None


def deal_for(parent: Channel) -> None:
    """Do what the parent says until it is gone."""
    heard = parent.heard()
    begin = heard.get()
    if begin is None:
        return
    _, address, setup = begin
    crew = None
    try:
        _connect(address)
        crew = _Crew(parent, heard, address, setup)
        while (message := heard.get()) is not None:
            if message[0] == "job":
                crew.do(*message[1:])
    except WorkError as error:
        parent.send("error", str(error))
    except (BrokenPipeError, _GoneError):
        return
    finally:
        if crew is not None:
            crew.dismiss_all()
        _disconnect()


def _connect(address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not address:
        # A cluster for this work alone: on the loopback device, with a secret of its own.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ.setdefault("RAY_worker_niceness", "0")
        os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
    elif address != "auto":
        _require_answer(address)
    import ray

    ray.cloudpickle.register_pickle_by_value(worker_module)
    try:
        ray.init(**(_OWN if not address else {"address": address}), log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray's own, and those of what it is made with, have no class in common
        first = (str(error).strip() or repr(error)).partition("\n")[0][:300]
        raise WorkError(f"Ray cannot be used at {address or 'this machine'}: {first}") from error


def _disconnect() -> None:
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


def _require_answer(address: str) -> None:
    """A wrong address is told at once; Ray itself tries for a minute."""
    name, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in name:
        raise WorkError(
            f"{address!r} isn't the address of a Ray cluster: write one like 10.0.0.5:6379, as `ray start --head` "
            "prints it, or auto for the cluster that this machine is part of."
        )
    try:
        socket.create_connection((name.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise WorkError(
            f"No Ray cluster answers at {address} ({error}). Is its head running there, and does a firewall let this "
            "machine in?"
        ) from None


class _Crew:
    """The workers of a cluster, hired as its machines come and go."""

    def __init__(self, parent: Channel, heard: queue.Queue[Message | None], address: str, setup: dict[str, Any]):
        import ray

        self.ray, self.parent, self.heard, self.address, self.setup = ray, parent, heard, address, setup
        self.place = f"the cluster at {address}" if address else "this machine"
        self.kind = "GPU"
        self.workers: list[_Hired] = []
        self.refused: dict[str, str] = {}
        self.deaths: Counter[str] = Counter()
        self.hired: Counter[str] = Counter()
        self.looked = self.began = 0.0
        self.number = 0
        self.told_workers = 0
        self.said_waiting = False

    def do(self, job: dict[str, Any], pieces: list[Any]) -> None:
        """Have all pieces made, or until the parent says stop."""
        self.number += 1
        self.began = time.monotonic()
        self.deaths.clear()
        self.told_workers = 0
        self.dealing, self.pieces = Dealing(len(pieces)), pieces
        # Once in the cluster's memory, however many workers read it.
        self.job = self.ray.put(job)
        for worker in self.workers:
            worker.piece, worker.is_ready = None, False
        while not self.dealing.is_over:
            if self._stopped():
                return
            self._look()
            self._give()
            self._hear()
            self._tell()
        self.parent.send("over", self.number)

    def _stopped(self) -> bool:
        try:
            message = self.heard.get_nowait()
        except queue.Empty:
            return False
        if message is None:
            raise _GoneError
        return message[0] == "stop"

    def _look(self) -> None:
        """Hire a worker for every GPU (or core) of every machine that is there."""
        now = time.monotonic()
        if now - self.looked < _LOOK:
            return
        self.looked = now
        nodes = [node for node in self.ray.nodes() if node["Alive"]]
        if not any(node["Resources"].get("GPU") for node in nodes) and self.address and not self.setup["gpu"]:
            # A host on the CPU does not ask for more than its like.
            self.kind = "CPU"
        slots = {node["NodeID"]: int(node["Resources"].get(self.kind, 0)) for node in nodes}
        if not sum(slots.values()):
            raise WorkError(self._nobody())
        if self.refused and not self.workers and all(node in self.refused for node, count in slots.items() if count):
            raise WorkError(self._nobody_left())
        for node in nodes:
            identity = node["NodeID"]
            have = sum(worker.node == identity for worker in self.workers)
            for _ in range(have, 0 if identity in self.refused else slots[identity]):
                self._hire(identity, f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})")

    def _nobody(self) -> str:
        """What to say where no machine can work."""
        if not self.address:
            return "Ray finds no GPU on this machine. Work in this process, or give the address of a Ray cluster."
        return f"No machine of {self.place} has a GPU. Join one to it with `ray start --address=...`."

    def _nobody_left(self) -> str:
        """What to say where no machine can take part: why the first cannot; what the others said was told already."""
        first, *others = dict.fromkeys(self.refused.values())
        more = f" The log says why {len(others)} more cannot." if others else ""
        return f"No worker is left. {first}{more}"

    def _hire(self, node: str, machine: str) -> None:
        self.hired[node] += 1
        remote = self.ray.remote(
            num_cpus=int(self.kind == "CPU"),
            num_gpus=int(self.kind == "GPU"),
            max_restarts=0,
            # One thread works, one tells how far it is.
            concurrency_groups={"work": 1, "watch": 1},
            scheduling_strategy=self.ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False),
        )(worker_module.Worker)
        actor = remote.remote({**self.setup, "gpu": self.kind == "GPU"})
        name = f"worker {self.hired[node]} on {machine}"
        self.workers.append(_Hired(actor, name, node, actor.process.options(concurrency_group="work").remote()))

    def _give(self) -> None:
        """Give every idle worker something to do."""
        for worker in self.workers:
            if worker.doing is not None:
                continue
            if worker.job != self.number:
                worker.job = self.number
                worker.doing = worker.actor.prepare.options(concurrency_group="work").remote(self.job)
                continue
            number = self.dealing.deal(worker, len(self.workers), time.monotonic())
            if number is not None:
                worker.piece = number
                worker.asked = None
                worker.doing = worker.actor.make.options(concurrency_group="work").remote(self.pieces[number])

    def _hear(self) -> None:
        """What workers have done, and how far they are."""
        doing = {worker.doing: worker for worker in self.workers if worker.doing is not None}
        asked = {worker.asked: worker for worker in self.workers if worker.asked is not None}
        every = [*doing, *asked]
        if not every:
            time.sleep(_TURN)
            return
        done, _ = self.ray.wait(every, num_returns=1, timeout=_TURN)
        more, _ = self.ray.wait(every, num_returns=len(every), timeout=0)
        for reference in dict.fromkeys([*done, *more]):
            if reference in doing:
                self._done(doing[reference], reference)
            else:
                self._heard_steps(asked[reference], reference)
        now, pause = time.monotonic(), max(_ASK, len(self.workers) / 400)
        for worker in self.workers:
            if worker.piece is not None and worker.asked is None and now - worker.asked_at > pause:
                worker.asked, worker.asked_at = worker.actor.steps.options(concurrency_group="watch").remote(), now

    def _heard_steps(self, worker: _Hired, reference: Any) -> None:
        if worker.asked is not reference:
            return
        worker.asked = None
        try:
            self.dealing.advance(worker, self.ray.get(reference))
        except self.ray.exceptions.RayError:
            return  # its work tells of its death too

    def _done(self, worker: _Hired, reference: Any) -> None:
        if worker not in self.workers:
            return
        worker.doing, number, worker.piece = None, worker.piece, None
        try:
            result = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            self._lost(worker, (str(error).strip() or repr(error)).partition("\n")[0][:200])
            return
        if isinstance(result, int):
            worker.has_come = True
        elif isinstance(result, str):
            self._prepared(worker, result)
        elif number is not None:
            self._made(worker, *result)

    def _prepared(self, worker: _Hired, refusal: str) -> None:
        if worker.job != self.number:
            return  # it gets ready again, for the job at hand
        worker.is_ready = not refusal
        if refusal:
            sentence = f"{worker.name[0].upper()}{worker.name[1:]} cannot take part: {refusal}"
            self.refused[worker.node] = sentence
            self._dismiss(worker)
            self.parent.send("said", sentence)

    def _made(self, worker: _Hired, succeeded: bool, made: Any, steps: int) -> None:
        if succeeded:
            self.deaths.pop(worker.node, None)
            number = self.dealing.finish(worker, steps, time.monotonic())
            if number is not None:
                self.parent.send("made", self.number, number, made)
            return
        sentence, everywhere = made
        if everywhere:
            raise WorkError(sentence)
        # What made it fail may be in the process, such as memory that is in pieces.
        self._lost(worker, sentence)

    def _lost(self, worker: _Hired, why: str) -> None:
        """A worker died or failed: its piece goes to another, and another takes its place."""
        self._dismiss(worker)
        self.deaths[worker.node] += 1
        if self.deaths[worker.node] >= _DEATHS:
            self.refused[worker.node] = f"{_DEATHS} workers were lost in a row, the last was {worker.name}: {why}"
        self.parent.send("said", f"Lost {worker.name} ({why}). What it was making is made by another.")
        if self.dealing.lose(worker) is not None:
            raise WorkError(f"Several workers were lost over the same piece, last {worker.name}: {why}")

    def _dismiss(self, worker: _Hired) -> None:
        self.workers.remove(worker)
        # At once, also in the middle of a sampling step.
        self.ray.kill(worker.actor)

    def dismiss_all(self) -> None:
        """Let all workers go, whatever they are doing, and wait until the cluster knows."""
        actors = [worker.actor for worker in self.workers]
        for worker in list(self.workers):
            self._dismiss(worker)
        # Who is gone cannot answer, and that is known once it is so.
        asked = [actor.process.options(concurrency_group="watch").remote() for actor in actors]
        if asked:
            self.ray.wait(asked, num_returns=len(asked), timeout=_FAREWELL)

    def _tell(self) -> None:
        """Progress of all workers together."""
        working = sum(worker.is_ready for worker in self.workers)
        if working != self.told_workers:
            self.told_workers = working
            self.parent.send("workers", self.number, working)
        further = self.dealing.news()
        if further:
            self.parent.send("steps", self.number, further)
        has_waited = bool(self.workers) and time.monotonic() - self.began > _WAITING
        if has_waited and not self.said_waiting and not any(worker.has_come for worker in self.workers):
            self.said_waiting = True
            self.parent.send("said", f"Still waiting for a worker of {self.place}: every {self.kind} may be in use.")
