"""A Ray cluster on the loopback device, in processes of its own: ``python tests/support/ray_cluster.py CORES``, or
:class:`RayCluster`, which does that.

Its first line of output tells as JSON its address and the environment that lets others in. Every line of input is a
number and joins a machine with so many cores; the end of the input ends the cluster.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from typing import Any

import psutil

_TRIES = 5

ENVIRONMENT = {
    # Loopback only, also where Ray would rather take the address that other machines see.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
}


class RayCluster:
    """A cluster of one machine with some cores; who talks to it needs its ``environment``."""

    def __init__(self, cores: int = 2) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(cores)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        told = json.loads(self._process.stdout.readline())
        self.address: str = told["address"]
        self.environment: dict[str, str] = told["environment"]

    def join(self, cores: int) -> None:
        """Another machine."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{cores}\n")
        self._process.stdin.flush()

    def workers(self) -> list[psutil.Process]:
        """The processes of ours that are alive on it."""
        return [
            process
            for process in psutil.Process(self._process.pid).children(recursive=True)
            if "".join(process.cmdline()).startswith("ray::Worker")
        ]

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def join(cluster: Any, cores: int, settings: dict[str, Any]) -> None:
    """Add a machine, trying again: Ray gives up on one that takes half a minute to start, as on a loaded computer."""
    for left in reversed(range(_TRIES)):
        try:
            cluster.add_node(wait=False, num_cpus=cores, **settings)
        except Exception:  # Ray raises no class of its own here
            if not left:
                raise
        else:
            return


def main() -> None:
    # Sockets have short paths.
    folder = tempfile.mkdtemp(prefix="hrv-ray-", dir="/tmp")
    own = {**ENVIRONMENT, "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_TMPDIR": folder}
    os.environ.update(own)
    from ray.cluster_utils import Cluster

    settings = {"object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster()
    join(cluster, int(sys.argv[1]), settings)
    try:
        print(json.dumps({"address": cluster.address, "environment": own}), flush=True)
        for line in sys.stdin:
            join(cluster, int(line), settings)
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
