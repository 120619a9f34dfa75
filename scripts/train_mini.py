"""Train HRV-mini from nothing: ``python scripts/train_mini.py --steps 6000 --run RUN_FOLDER``.

``--kind transformer`` trains HRV-mini-T, whose text model is that of ``--start`` and stays as it is.

Needs a host on COMFYUI_PATH and its Python environment. Running it again with the same folder resumes; a larger
``--steps`` goes on training. The weights land in ``RUN_FOLDER/model.safetensors``. On a CPU take one process a core.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from host_process import enter_host
from pack_import import import_pack

REPORT_EVERY = 50


class Log:
    """Mean loss and pace, every few steps, on the screen and in the run's log."""

    def __init__(self, run: Path):
        self.path = run / "log.txt"
        self.started = time.monotonic()
        self.losses: list[float] = []

    def report(self, step: int, loss: float, rate: float) -> None:
        self.losses.append(loss)
        if (step + 1) % REPORT_EVERY == 0:
            pace = (time.monotonic() - self.started) / len(self.losses)
            mean = sum(self.losses) / len(self.losses)
            line = f"step {step + 1}  loss {mean:.4f}  rate {rate:.2e}  {pace:.2f} s a step"
            with self.path.open("a", encoding="utf-8") as log:
                log.write(line + "\n")
            print(line, flush=True)
            self.started = time.monotonic()
            self.losses.clear()


def work(
    rank: int, run: Path, kind: str, device: str, processes: int, start: Path | None, settings: dict[str, Any]
) -> None:
    """One process of the training."""
    enter_host(gpu=device != "cpu")
    import_pack()
    import torch
    from hrv_pack.mini.batches import TrainingSettings
    from hrv_pack.mini.kinds import KINDS
    from hrv_pack.mini.training import export, train

    if processes > 1:
        torch.set_num_threads(1)
        torch.distributed.init_process_group(
            "gloo", init_method=(run / "group").resolve().as_uri(), rank=rank, world_size=processes
        )
    network = train(
        KINDS[kind], TrainingSettings(**settings), run / "checkpoint.pt", Log(run).report, device, start=start
    )
    if rank == 0:
        export(network, run / "model.safetensors")
        print(f"Wrote {run / 'model.safetensors'}")


def main() -> None:
    enter_host()
    import_pack()
    from hrv_pack.mini.batches import TrainingSettings
    from hrv_pack.mini.kinds import KINDS
    from torch.multiprocessing.spawn import spawn

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of the checkpoint, the log and the weights")
    parser.add_argument("--start", type=Path, help="weights to start a new run from, such as the shipped ones")
    parser.add_argument("--kind", choices=KINDS, default="unet", help="unet for HRV-mini, transformer for HRV-mini-T")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--processes", type=int, default=1, help="processes that share every batch")
    for field in fields(TrainingSettings):
        name = f"--{field.name.replace('_', '-')}"
        if field.name == "steps":
            parser.add_argument(name, type=int, required=True)
        else:
            parser.add_argument(name, type=type(field.default), default=field.default)
    options = vars(parser.parse_args())
    run, kind, device, processes, start = map(options.pop, ("run", "kind", "device", "processes", "start"))
    run.mkdir(parents=True, exist_ok=True)
    (run / "group").unlink(missing_ok=True)
    if processes == 1:
        work(0, run, kind, device, 1, start, options)
    else:
        spawn(work, (run, kind, device, processes, start, options), nprocs=processes)


if __name__ == "__main__":
    main()
