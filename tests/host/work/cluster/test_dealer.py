"""How work is dealt to machines that cannot take part, are in use or fail: a stand-in for Ray, workers to order."""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from hrv_pack.host.work.cluster import dealer
from hrv_pack.host.work.cluster.dealer import deal_for
from hrv_pack.host.work.cluster.dealing import TRIES

PIECES = [3, 1, 4, 1, 5]

MISSING = (
    "the node CheckpointLoaderSimple failed: Model in folder 'checkpoints' with filename 'sdxl.safetensors' not found."
)
OTHER_HOST = "its ComfyUI is version 0.0.1, and here it is 0.30.0. Install the same version everywhere."
OTHER_PACK = "its code of this node pack differs (digest 0123456789ab, here ba9876543210). Install the same version."


@dataclass
class Machine:
    """A machine with one GPU or none, and what a worker there does; it has room for one once ``room`` is set."""

    name: str
    refusal: str = ""
    gpus: int = 1
    make: Callable[[int], tuple[bool, Any, int]] = lambda piece: (True, piece * piece, 2)
    room: Event = field(default_factory=Event)
    prepared: list[Any] = field(default_factory=list)
    made: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.room.set()


class RayError(Exception):
    """A worker that is gone."""


class Method:
    """A method of a worker, called in the worker's own thread."""

    def __init__(self, actor: Actor, name: str):
        self.actor, self.name = actor, name

    def options(self, concurrency_group: str) -> Method:
        return self

    def remote(self, *given: Any) -> Future[Any]:
        if self.actor.is_gone:
            gone: Future[Any] = Future()
            gone.set_exception(RayError("The actor died."))
            return gone
        return self.actor.thread.submit(getattr(self.actor, f"do_{self.name}"), *given)


class Actor:
    def __init__(self, machine: Machine):
        self.machine, self.thread, self.is_gone = machine, ThreadPoolExecutor(1), False

    def __getattr__(self, name: str) -> Method:
        return Method(self, name)

    def do_process(self) -> int:
        self.machine.room.wait()
        return 1

    def do_prepare(self, job: Any) -> str:
        self.machine.prepared.append(job)
        return self.machine.refusal

    def do_make(self, piece: int) -> tuple[bool, Any, int]:
        self.machine.made.append(piece)
        return self.machine.make(piece)

    def do_steps(self) -> int:
        return 0


class Cluster(SimpleNamespace):
    """As much of Ray as the dealing process asks for."""

    def __init__(self, machines: list[Machine]):
        super().__init__(
            exceptions=SimpleNamespace(RayError=RayError),
            cloudpickle=SimpleNamespace(register_pickle_by_value=lambda module: None),
            util=SimpleNamespace(
                scheduling_strategies=SimpleNamespace(NodeAffinitySchedulingStrategy=lambda node, soft: node)
            ),
        )
        self.machines = {machine.name: machine for machine in machines}

    def init(self, **settings: Any) -> None:
        assert settings["address"] == "auto"

    def shutdown(self) -> None:
        """Nothing is open."""

    def put(self, value: Any) -> Any:
        return value

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "NodeID": name, "Alive": True, "Resources": {"CPU": 8.0, "GPU": float(machine.gpus)},
                "NodeManagerHostname": name, "NodeManagerAddress": "10.0.0.1",
            }
            for name, machine in self.machines.items()
        ]  # fmt: skip

    def remote(self, scheduling_strategy: str, **resources: Any) -> Callable[[type], Any]:
        return lambda kind: SimpleNamespace(remote=lambda setup: Actor(self.machines[scheduling_strategy]))

    def wait(self, those: list[Future[Any]], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        done = wait(those, timeout, "FIRST_COMPLETED" if num_returns < len(those) else "ALL_COMPLETED").done
        return [one for one in those if one in done], [one for one in those if one not in done]

    def get(self, reference: Future[Any]) -> Any:
        return reference.result()

    def kill(self, actor: Actor) -> None:
        actor.is_gone = True
        actor.thread.shutdown(wait=False)


class Parent:
    """What the dealing process hears and says; it is gone once as many jobs are over as it has."""

    def __init__(self, jobs: int = 1, when_said: Callable[[str], None] = lambda sentence: None):
        self.messages: queue.Queue[Any] = queue.Queue()
        self.messages.put(("begin", "auto", {"gpu": True}))
        self.left, self.when_said = jobs, when_said
        self.said: list[str] = []
        self.errors: list[str] = []
        self.made: dict[int, Any] = {}
        self._next()

    def _next(self) -> None:
        self.messages.put(("job", {"number": self.left}, PIECES) if self.left else None)
        self.left -= 1

    def heard(self) -> queue.Queue[Any]:
        return self.messages

    def send(self, kind: str, *what: Any) -> None:
        if kind == "said":
            self.said.append(what[0])
            self.when_said(what[0])
        elif kind == "error":
            self.errors.append(what[0])
        elif kind == "made":
            self.made[what[1]] = what[2]
        elif kind == "over":
            self._next()


Deal = Callable[..., None]


@pytest.fixture
def deal(monkeypatch: pytest.MonkeyPatch) -> Deal:
    """Deals the work of a parent to machines."""
    monkeypatch.setattr(dealer, "_LOOK", 0.01)
    monkeypatch.setattr(dealer, "_TURN", 0.01)

    def with_machines(parent: Any, *machines: Machine) -> None:
        monkeypatch.setitem(sys.modules, "ray", Cluster(list(machines)))
        try:
            deal_for(parent)
        finally:
            for machine in machines:
                machine.room.set()

    return with_machines


@pytest.mark.parametrize("refusal", [MISSING, OTHER_HOST, OTHER_PACK], ids=["checkpoint", "host", "pack"])
def test_a_machine_that_cannot_take_part_is_named_and_the_others_go_on(deal: Deal, refusal: str) -> None:
    said = Event()

    def make(piece: int) -> tuple[bool, Any, int]:
        # Not done before the other has come so far.
        assert said.wait(60)
        return True, piece * piece, 2

    lacking, good, parent = (
        Machine("lacking", refusal),
        Machine("good", make=make),
        Parent(when_said=lambda _: said.set()),
    )
    deal(parent, lacking, good)
    assert parent.said == [f"Worker 1 on lacking (10.0.0.1) cannot take part: {refusal}"]
    assert not parent.errors and parent.made == {number: piece**2 for number, piece in enumerate(PIECES)}
    assert len(lacking.prepared) == 1 and not lacking.made and sorted(good.made) == sorted(PIECES)


def test_if_no_machine_can_take_part_the_first_is_named_and_the_others_counted(deal: Deal) -> None:
    parent = Parent()
    deal(parent, *(Machine(f"m{number}", MISSING) for number in range(20)))
    assert len(parent.said) == 20
    (error,) = parent.errors
    assert error.startswith("No worker is left. Worker 1 on m") and MISSING in error
    assert error.endswith("The log says why 19 more cannot.") and len(error) < 400


def test_a_cluster_without_gpus_is_no_place_for_a_host_that_has_one(deal: Deal) -> None:
    parent = Parent()
    deal(parent, Machine("one", gpus=0), Machine("two", gpus=0))
    (error,) = parent.errors
    assert error == "No machine of the cluster at auto has a GPU. Join one to it with `ray start --address=...`."


def test_where_every_gpu_is_in_use_it_waits_says_so_once_and_begins_when_one_is_free(
    deal: Deal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dealer, "_WAITING", 0.05)
    busy = Machine("busy")
    busy.room.clear()
    parent = Parent(when_said=lambda sentence: busy.room.set())
    deal(parent, busy)
    assert parent.said == ["Still waiting for a worker of the cluster at auto: every GPU may be in use."]
    assert not parent.errors and len(parent.made) == len(PIECES)


def test_what_fails_everywhere_is_said_at_once(deal: Deal) -> None:
    sentence = "The words of Color change nothing."
    failing, parent = Machine("failing", make=lambda piece: (False, (sentence, True), 0)), Parent()
    deal(parent, failing)
    assert parent.errors == [sentence] and len(failing.made) == 1


def test_a_piece_over_which_workers_fail_again_and_again_ends_the_work(deal: Deal) -> None:
    sentence = "OutOfMemoryError: no room"
    failing = [Machine(name, make=lambda piece: (False, (sentence, False), 0)) for name in "abc"]
    parent = Parent()
    deal(parent, *failing)
    (error,) = parent.errors
    assert sentence in error and ("over the same piece" in error or "were lost in a row" in error)
    assert len(parent.said) >= TRIES and all(said.startswith("Lost worker") for said in parent.said)


def test_a_worker_that_fails_once_is_replaced_and_its_piece_made_again(deal: Deal) -> None:
    failed: list[int] = []

    def make(piece: int) -> tuple[bool, Any, int]:
        if piece == 4 and not failed:
            failed.append(piece)
            return False, ("OutOfMemoryError: no room", False), 0
        return True, piece * piece, 2

    machine, parent = Machine("one", make=make), Parent()
    deal(parent, machine)
    assert len(parent.said) == 1 and parent.said[0].startswith("Lost worker 1 on one (10.0.0.1) (OutOfMemoryError")
    assert not parent.errors and parent.made == {number: piece**2 for number, piece in enumerate(PIECES)}


def test_a_worker_gets_ready_once_for_each_job(deal: Deal) -> None:
    machine, parent = Machine("one"), Parent(jobs=2)
    deal(parent, machine)
    assert machine.prepared == [{"number": 2}, {"number": 1}] and len(machine.made) == 2 * len(PIECES)
