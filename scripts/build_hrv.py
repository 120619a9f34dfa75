"""Build an HRV without a graph, for long builds and clusters: the same build as the node's, bit for bit.

    python scripts/build_hrv.py --checkpoint sd15.safetensors --concepts concepts.txt --prompts prompts.txt \\
        --images 1000 --gpu --out sd15.safetensors
    python scripts/build_hrv.py ... --shard 2/8 --out sd15-2.safetensors     (and merge_hrvs.py for the eight)

Runs in the Python environment of the ComfyUI at COMFYUI_PATH, or of the one whose custom_nodes the pack lies in. What
is counted is saved at least once a minute: stopped or killed, the same command goes on where it was.
Exit status: 0 done, 1 refused with a sentence, 2 wrong options, 130 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hrv_commands import (
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
    parser.add_argument("--prompts", type=Path, required=True, help="file with one prompt per line")
    parser.add_argument(
        "--images", type=at_least(1), required=True, help="how many images, cycling through the prompts"
    )
    parser.add_argument("--shard", type=shard, default=(1, 1), metavar="I/N", help="make only the I-th of N parts")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--steps", type=at_least(1), default=20)
    parser.add_argument("--cfg", type=float, default=7.5)
    parser.add_argument("--sampler", default="euler", dest="sampler_name")
    parser.add_argument("--scheduler", default="normal")
    parser.add_argument("--width", type=at_least(16), default=512, help="pixels")
    parser.add_argument("--height", type=at_least(16), default=512, help="pixels")
    parser.add_argument("--batch-size", type=at_least(1), default=1, help="images to make at once")
    parser.add_argument("--negative", default="", help="negative prompt")
    parser.add_argument("--estimator", help="all words, or paper")
    parser.add_argument("--stop-at", type=float, default=0.0, help="stop at this expected agreement, such as 0.98")
    parser.add_argument("--states", type=Path, help="folder for unfinished builds (default: ComfyUI's user folder)")
    return parser.parse_args()


def build(options: argparse.Namespace) -> None:
    import comfy.samplers
    import torch
    from hrv_pack.host.building.build import BuildSettings, build_hrv
    from hrv_pack.host.work.job import Progress
    from hrv_pack.hrv.relevance.files import save_hrv
    from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary

    for kind, chosen, known in (
        ("sampler", options.sampler_name, comfy.samplers.KSampler.SAMPLERS),
        ("scheduler", options.scheduler, comfy.samplers.KSampler.SCHEDULERS),
    ):
        if chosen not in known:
            raise LauncherError(f"ComfyUI has no {kind} {chosen!r}. It has: {', '.join(known)}.")
    require_place(options.out, overwrite=options.overwrite)
    names = ("images", "seed", "steps", "cfg", "sampler_name", "scheduler", "width", "height", "batch_size", "negative")
    chosen = {name: getattr(options, name) for name in (*names, "shard", "stop_at")}
    settings = BuildSettings(**chosen, **({"estimator": options.estimator} if options.estimator else {}))
    prompts = [line.strip() for line in read(options.prompts).splitlines() if line.strip()]
    vocabulary = parse_vocabulary(read(options.concepts))
    model, clip = load_model(options.checkpoint)
    with torch.inference_mode(), progress_bar("step") as bar, executor_of(options) as executor:

        def report(progress: Progress) -> None:
            bar.set_postfix_str(str(progress))

        how = {"states": options.states, "report": report, "executor": executor}
        hrv = build_hrv(model, clip, vocabulary, prompts, settings, **how)
    print(f"Wrote {save_hrv(hrv, options.out, overwrite=options.overwrite)}: {hrv.provenance['images']} images.")


def main() -> None:
    run_in_host(parse_arguments(), build)


if __name__ == "__main__":
    main()
