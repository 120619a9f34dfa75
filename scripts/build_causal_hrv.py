"""Build a causal HRV of a checkpoint without a graph: the same as Build Causal HRV's.

    python scripts/build_causal_hrv.py --checkpoint sd15.safetensors --concepts concepts.txt --out causal.safetensors
    python scripts/build_causal_hrv.py ... --shard 2/8 --out causal-2.safetensors     (and merge_hrvs.py for the eight)

Runs in the Python environment of the ComfyUI at COMFYUI_PATH, or of the one whose custom_nodes the pack lies in. The
report is written beside the HRV, as JSON and as a picture. If interrupted, the same command resumes.
Exit status: 0 done, 1 refused with a sentence, 2 wrong options, 130 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hrv_commands import (
    DEFAULT_CONCEPTS,
    add_model_and_files,
    at_least,
    executor_of,
    load_model,
    progress_bar,
    read,
    require_place,
    run_in_host,
    shard,
)
from launcher.errors import LauncherError


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_and_files(parser)
    # Whether it was given matters.
    parser.set_defaults(concepts=None)
    parser.add_argument("--experiment", type=Path, help="prompts with words in angle brackets, instead of --concepts")
    parser.add_argument(
        "--frames", type=Path, help='sentences for the words of --concepts, one a line, such as "a photo of a {word}"'
    )
    parser.add_argument("--pairs", type=at_least(1), default=16, help="pairs of prompts for each concept")
    parser.add_argument(
        "--levels", type=float, nargs="+", metavar="LEVEL", help="noise levels, from 0 (pure noise) to 1 (the image)"
    )
    parser.add_argument("--shard", type=shard, default=(1, 1), metavar="I/N", help="measure only the I-th of N parts")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--steps", type=at_least(1), default=8)
    parser.add_argument("--cfg", type=float, default=7.5)
    parser.add_argument("--sampler", default="euler", dest="sampler_name")
    parser.add_argument("--scheduler", default="normal")
    parser.add_argument("--width", type=at_least(16), default=512, help="pixels")
    parser.add_argument("--height", type=at_least(16), default=512, help="pixels")
    parser.add_argument("--batch-size", type=at_least(1), default=1, help="pairs measured at once")
    parser.add_argument("--negative", default="", help="negative prompt of the images")
    parser.add_argument("--stop-at", type=float, default=0.0, help="end at this expected agreement, such as 0.95")
    parser.add_argument("--states", type=Path, help="folder of unfinished builds (the host's user folder)")
    return parser.parse_args()


def examples(options: argparse.Namespace) -> dict[str, Sequence[Any]]:
    """Prompts by concept."""
    from hrv_pack.hrv.building.pairs import Example, examples_of
    from hrv_pack.hrv.prompts.frames import DEFAULT_FRAMES, parse_frames
    from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
    from hrv_pack.hrv.scoring.experiments import parse_experiment

    if options.experiment:
        if given := [name for name in ("concepts", "frames") if getattr(options, name)]:
            raise LauncherError(
                f"An experiment has words and sentences of its own: leave out --experiment or "
                f"{' and '.join(f'--{name}' for name in given)}."
            )
        experiment = parse_experiment(read(options.experiment))
        return {
            name: [Example(case.prompt, case.target) for case in experiment.of(name)] for name in experiment.concepts
        }
    frames = parse_frames(read(options.frames)) if options.frames else DEFAULT_FRAMES
    return dict(examples_of(parse_vocabulary(read(options.concepts or DEFAULT_CONCEPTS)), frames))


def build(options: argparse.Namespace) -> None:
    import torch
    from hrv_pack.host.building.causal import LEVELS, CausalSettings, build_causal_hrv
    from hrv_pack.host.work.job import Progress
    from hrv_pack.hrv.relevance.files import save_hrv

    require_place(options.out, overwrite=options.overwrite)
    names = ("pairs", "seed", "steps", "cfg", "sampler_name", "scheduler", "width", "height", "batch_size", "negative")
    chosen = {name: getattr(options, name) for name in (*names, "stop_at", "shard")}
    settings = CausalSettings(**chosen, levels=tuple(options.levels or LEVELS))
    of_concepts = examples(options)
    model, clip = load_model(options.checkpoint)
    with torch.inference_mode(), progress_bar("step") as bar, executor_of(options) as executor:

        def report(progress: Progress) -> None:
            bar.set_postfix_str(str(progress))

        how = {"states": options.states, "report": report, "executor": executor}
        built = build_causal_hrv(model, clip, of_concepts, settings, **how)
    path = save_hrv(built.hrv, options.out, overwrite=options.overwrite)
    print(f"Wrote {path}: {built.hrv.provenance['images']} pairs.")
    options.out.with_suffix(".json").write_text(built.report.to_json(), encoding="utf-8")
    built.report.picture().save(options.out.with_suffix(".png"))
    print(built.report.text())


def main() -> None:
    run_in_host(parse_arguments(), build)


if __name__ == "__main__":
    main()
