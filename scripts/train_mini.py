"""Train HRV-mini from nothing: ``python scripts/train_mini.py --steps 6000 --run RUN_FOLDER``.

Needs a host on COMFYUI_PATH and its Python environment. Running it again with the same folder resumes; a larger
``--steps`` goes on training. The weights land in ``RUN_FOLDER/model.safetensors``.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import fields
from pathlib import Path

from host_process import enter_host
from pack_import import import_pack


def main() -> None:
    enter_host()
    import_pack()
    import torch
    from hrv_pack.mini.training import TrainingSettings, export, train

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of the checkpoint, the log and the weights")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    for field in fields(TrainingSettings):
        kind = type(field.default) if isinstance(field.default, (int, float)) else int
        required = field.name == "steps"
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=kind,
            required=required,
            default=None if required else field.default,
        )
    options = vars(parser.parse_args())
    run, device = options.pop("run"), options.pop("device")
    torch.set_num_threads(options.pop("threads"))
    run.mkdir(parents=True, exist_ok=True)
    started, losses = time.monotonic(), []

    def report(step: int, loss: float, rate: float) -> None:
        nonlocal started
        losses.append(loss)
        if (step + 1) % 50 == 0:
            seconds = (time.monotonic() - started) / len(losses)
            line = f"step {step + 1}  loss {sum(losses) / len(losses):.4f}  rate {rate:.2e}  {seconds:.2f} s a step"
            with (run / "log.txt").open("a") as log:
                log.write(line + "\n")
            print(line, flush=True)
            started = time.monotonic()
            losses.clear()

    network = train(TrainingSettings(**options), run / "checkpoint.pt", report, device)
    export(network, run / "model.safetensors")
    print(f"Wrote {run / 'model.safetensors'}")


if __name__ == "__main__":
    main()
