"""What dealing work to a Ray worker costs: time per batch, memory, and bytes that travel.

    python benchmarks/ray_overhead.py [--rounds 5] [--batches 40] [--out FOLDER]

Every round builds with HRV-mini in this process and with one worker on this machine, in turn, and compares the time of
a batch once the worker is ready; batches are of one small image and one step, so that what dealing costs shows. Then
it says how much processor time the two processes of the driver take for a batch, their memory, and how many bytes the
counts of a batch are for HRV-mini and for SDXL's 34 concepts and 1,300 heads. Needs Ray, and a host on COMFYUI_PATH.
Writes ``ray-overhead.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from host_process import enter_host
from pack_import import PACK_ROOT, import_pack

enter_host()
import_pack()

import numpy as np
import psutil
import torch
from hrv_pack.host.building.build import BuildSettings, build_hrv
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.work.cluster.recipe import mini_recipe
from hrv_pack.host.work.executor import HERE, Executor
from hrv_pack.host.work.job import Progress
from hrv_pack.host.work.places import executor_at
from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary

BUILD = BuildSettings(1, 0, 1, 1.0, "euler", "normal", 16, 16)
VOCABULARY = parse_vocabulary("Color: red, blue\nShape: circle, star")


def processor_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


class Measurer:
    """Builds again and again, always another one."""

    def __init__(self, batches: int):
        self.model, self.clip, _ = load_mini()
        self.batches, self.seed = batches, 0

    def seconds_per_batch(self, executor: Executor) -> float:
        """Of one build, from the end of its first batch to that of its last."""
        moments: list[float] = []

        def report(progress: Progress) -> None:
            moments.append(time.perf_counter())

        self.seed += 1
        settings = replace(BUILD, seed=self.seed, images=self.batches)
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            build_hrv(
                self.model, self.clip, VOCABULARY, ["a red circle"], settings, states=Path(folder), report=report,
                executor=executor,
            )  # fmt: skip
        return (moments[-1] - moments[0]) / (len(moments) - 1)


def bytes_of(concepts: int, heads: int, votes: int) -> int:
    """What the counts of a batch with so many votes for each head take as a message."""
    counts = np.zeros((2, concepts, heads), dtype=np.min_scalar_type(votes))
    return len(pickle.dumps(("made", 1, 1, counts)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    script = PACK_ROOT / "tests" / "support" / "ray_cluster.py"
    cluster = subprocess.Popen(
        [sys.executable, str(script), "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert cluster.stdin is not None and cluster.stdout is not None
    told = json.loads(cluster.stdout.readline())
    os.environ.update(told["environment"])
    try:
        found = measure(told["address"], options.rounds, options.batches)
    finally:
        cluster.stdin.close()
        cluster.wait()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "ray-overhead.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(json.dumps(found, indent=1))


def measure(address: str, rounds: int, batches: int) -> dict[str, Any]:
    measurer, own = Measurer(batches), psutil.Process()
    own_before = own.memory_info().rss
    started = time.perf_counter()
    with executor_at(address, mini_recipe, print) as ray:
        measurer.seconds_per_batch(ray)
        first = time.perf_counter() - started
        (dealer,) = [child for child in own.children() if "deal_work.py" in " ".join(child.cmdline())]
        here, there, spent = [], [], []
        for _ in range(rounds):
            here.append(measurer.seconds_per_batch(HERE))
            before = processor_seconds(dealer), processor_seconds(own)
            there.append(measurer.seconds_per_batch(ray))
            after = processor_seconds(dealer), processor_seconds(own)
            spent.append([(b - a) / batches for a, b in zip(before, after, strict=True)])
        memory = dealer.memory_info().rss, own.memory_info().rss - own_before
    over = [b - a for a, b in zip(here, there, strict=True)]
    return {
        "rounds": rounds,
        "batches": batches,
        "seconds per batch in this process": statistics.median(here),
        "seconds per batch with one worker": statistics.median(there),
        "overhead per batch in seconds": {"median": statistics.median(over), "each": over},
        "processor seconds per batch, dealing process and this one": [
            statistics.median(those) for those in zip(*spent, strict=True)
        ],
        "seconds until the first build was done": first,
        "memory of the dealing process, and what this one took more, in MB": [part / 1e6 for part in memory],
        "bytes per batch": {
            "HRV-mini, 2 concepts": bytes_of(2, 128, 1),
            "SDXL, 34 concepts, 1 image of 50 steps": bytes_of(34, 1300, 50),
            "SDXL, 34 concepts, 16 images of 50 steps": bytes_of(34, 1300, 800),
        },
    }


if __name__ == "__main__":
    main()
