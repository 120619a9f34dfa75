"""How long after a cancel work ends: builds, ordered weakening, Attend and Excite, and plain sampling beside them.

    python benchmarks/cancelling.py [--model sd15] [--device cuda] [--rounds 20] [--out FOLDER]

Every round cancels each kind of work once, at a random moment of its run, from another thread, as the host does it.
Measured is from there until the work's caller has the host's exception, states saved and all. A UNet of full size with
random weights has no text encoder, so that there only sampling is measured. Needs a host on COMFYUI_PATH. Writes
``cancelling-MODEL.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from host_process import enter_host
from pack_import import import_pack

enter_host(gpu="cuda" in sys.argv)
import_pack()

import comfy.model_management
import torch
from hrv_pack.benchmarks.excitement import ways
from hrv_pack.benchmarks.measuring import add_options, machine
from hrv_pack.host.building.build import BuildSettings, build_hrv
from hrv_pack.host.building.causal import CausalSettings, build_causal_hrv
from hrv_pack.host.files.folders import SHIPPED
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.weakening.grid import WeakeningSettings
from hrv_pack.host.weakening.making import Examined
from hrv_pack.host.weakening.run import analyse_weakening
from hrv_pack.hrv.building.pairs import examples_of
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
from hrv_pack.hrv.scoring.experiments import parse_experiment
from hrv_pack.hrv.weakening.plan import Plan
from hrv_pack.mini.truth_scorer import MiniScorer

VOCABULARY = parse_vocabulary("Color: red, blue, green\nShape: circle, star, square")
MADE: dict[str, Any] = {
    "steps": 8, "cfg": 4.0, "sampler_name": "euler", "scheduler": "normal", "width": 128, "height": 128,
}  # fmt: skip

Work = Callable[[], object]


def jobs(folder: Path) -> dict[str, Work]:
    """Work on HRV-mini whose states are kept in a folder; a new seed each time, so that nothing is there yet."""
    model, clip, vae = load_mini()
    seeds = iter(range(1_000_000))
    hrv = load_hrv(SHIPPED / "hrv-mini.safetensors")
    experiment = {"Color": parse_experiment("[Color]\na <red | blue> circle").of("Color")}

    def build() -> object:
        settings = BuildSettings(images=8, seed=next(seeds), batch_size=4, **MADE)
        return build_hrv(model, clip, VOCABULARY, ["a red circle"], settings, states=folder)

    def causal() -> object:
        settings = CausalSettings(pairs=4, seed=next(seeds), batch_size=4, **MADE)
        examples = examples_of(VOCABULARY, ("a {word} thing",))
        return build_causal_hrv(model, clip, examples, settings, states=folder)

    def weakening() -> object:
        settings = WeakeningSettings(seeds=(next(seeds),), batch_size=2, **MADE)
        examined = Examined(model, clip, vae, hrv, MiniScorer())
        return analyse_weakening(examined, experiment, Plan((0, 64, 128), 0), settings, states=folder)

    return {"Build HRV": build, "Build Causal HRV": causal, "Ordered Weakening": weakening}


def latency(work: Work, seconds: float) -> float | None:
    """Seconds from a cancel after so many until the work has ended; None if it ended before the cancel."""
    asked: list[float] = []

    def cancel() -> None:
        asked.append(time.perf_counter())
        comfy.model_management.interrupt_current_processing()

    timer = Timer(seconds, cancel)
    timer.start()
    try:
        work()
    except comfy.model_management.InterruptProcessingException:
        return time.perf_counter() - asked[0]
    finally:
        timer.cancel()
        timer.join()
        comfy.model_management.interrupt_current_processing(False)
    return None


def duration(work: Work) -> float:
    """Seconds of a whole run."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    options = parser.parse_args()
    device = comfy.model_management.get_torch_device()
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        works: dict[str, Work] = dict(ways(options, device))
        works.pop("forward and back alone")
        if options.model == "hrv-mini":
            works |= jobs(Path(folder))
        lasts = {}
        for name, work in works.items():
            # The first run loads what the others have.
            duration(work)
            lasts[name] = duration(work)
        found: dict[str, list[float]] = {name: [] for name in works}
        for number in range(options.rounds):
            for name, work in works.items():
                seconds = latency(work, draw.uniform(0.05, 0.9) * lasts[name])
                if seconds is not None:
                    found[name].append(seconds)
            print(f"round {number + 1} of {options.rounds}", flush=True)
    step = lasts["plain sampling"] / options.steps
    what = machine(device)
    text = (
        f"{options.model}, {options.rounds} rounds, {what}, {torch.get_num_threads()} threads, torch "
        f"{torch.__version__}; a step of plain sampling takes {step:.3f} s.\n\n"
        "| work | whole run | cancelled | median | longest | longest, in steps |\n|---|---|---|---|---|---|\n"
    )
    rows = []
    for name, times in found.items():
        rows.append({"work": name, "whole": lasts[name], "latencies": times})
        if times:
            middle, longest = statistics.median(times), max(times)
            text += (
                f"| {name} | {lasts[name]:.2f} s | {len(times)} times | {middle:.3f} s | {longest:.3f} s "
                f"| {longest / step:.1f} |\n"
            )
    options.out.mkdir(parents=True, exist_ok=True)
    record = {"made": {**vars(options), "out": "", "machine": what}, "step": step, "rows": rows}
    path = options.out / f"cancelling-{options.model}"
    path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    path.with_suffix(".md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
