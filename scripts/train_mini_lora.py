"""Train the LoRA of HRV-mini that ships with the pack: ``python scripts/train_mini_lora.py``.

It draws every thing as a sticker with a white rim, whatever the caption says. Needs a host on COMFYUI_PATH and its
Python environment. Replaces ``hrv_presets/loras/hrv-mini-stickers.safetensors``.
"""

from __future__ import annotations

import argparse

from host_process import enter_host
from pack_import import PACK_ROOT, import_pack

WEIGHTS = PACK_ROOT / "hrv_presets" / "mini" / "model.safetensors"
TARGET = PACK_ROOT / "hrv_presets" / "loras" / "hrv-mini-stickers.safetensors"
REPORT_EVERY = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=16, help="pictures of a step")
    parser.add_argument("--rate", type=float, default=6e-3)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    enter_host()
    import_pack()
    from hrv_pack.mini.batches import TrainingSettings
    from hrv_pack.mini.lora import export_lora, train_lora

    losses: list[float] = []

    def report(step: int, loss: float, rate: float) -> None:
        losses.append(loss)
        if (step + 1) % REPORT_EVERY == 0:
            print(f"step {step + 1}  loss {sum(losses) / len(losses):.4f}  rate {rate:.2e}", flush=True)
            losses.clear()

    settings = TrainingSettings(
        steps=options.steps,
        batch=options.batch,
        rate=options.rate,
        warm_up=20,
        decay=options.steps // 2,
        seed=options.seed,
    )
    export_lora(train_lora(settings, options.rank, WEIGHTS, report), settings, TARGET)
    print(f"Wrote {TARGET}")


if __name__ == "__main__":
    main()
