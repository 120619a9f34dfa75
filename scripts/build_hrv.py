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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from host_process import enter_host
from launcher.errors import LauncherError, errors_for_people
from launcher.prepare import interrupt_on_termination
from pack_import import PACK_ROOT, import_pack
from tqdm import tqdm

VOCABULARIES = PACK_ROOT / "hrv_presets" / "vocabularies"
MINI = "hrv-mini"


def shard(text: str) -> tuple[int, int]:
    """ "2/8" as (2, 8)."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard: write the second of eight as 2/8")
    return int(index), int(count)


def at_least(least: int) -> Callable[[str], int]:
    """Reads whole numbers from ``least`` on."""

    def read_number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} on")
        return int(text)

    return read_number


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", required=True, help=f"file, or name in the host's models/checkpoints, or {MINI} for HRV-mini"
    )
    parser.add_argument(
        "--concepts", type=Path, default=VOCABULARIES / "paper-34-concepts.txt", help='lines "Color: red, blue"'
    )
    parser.add_argument("--prompts", type=Path, required=True, help="one prompt a line")
    parser.add_argument("--out", type=Path, required=True, help="HRV file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the HRV file if it is there")
    parser.add_argument(
        "--images", type=at_least(1), required=True, help="how many images, going round through the prompts"
    )
    parser.add_argument("--shard", type=shard, default=(1, 1), metavar="I/N", help="make only the I-th of N parts")
    parser.add_argument("--seed", type=at_least(0), default=0)
    parser.add_argument("--steps", type=at_least(1), default=20)
    parser.add_argument("--cfg", type=float, default=7.5)
    parser.add_argument("--sampler", default="euler", dest="sampler_name")
    parser.add_argument("--scheduler", default="normal")
    parser.add_argument("--width", type=at_least(16), default=512, help="pixels")
    parser.add_argument("--height", type=at_least(16), default=512, help="pixels")
    parser.add_argument("--batch-size", type=at_least(1), default=1, help="images made at once")
    parser.add_argument("--negative", default="", help="negative prompt")
    parser.add_argument("--estimator", help="all words, or paper")
    parser.add_argument("--stop-at", type=float, default=0.0, help="end at this expected agreement, such as 0.98")
    parser.add_argument("--states", type=Path, help="folder of unfinished builds (the host's user folder)")
    parser.add_argument("--gpu", action="store_true", help="let the host choose the device instead of the CPU")
    return parser.parse_args()


def load_model(name: str) -> tuple[Any, Any]:
    """MODEL and CLIP of a checkpoint."""
    import comfy.sd
    import folder_paths
    from hrv_pack.host.mini.loader import load_mini

    if name == MINI:
        return load_mini()[:2]
    path = name if Path(name).is_file() else folder_paths.get_full_path("checkpoints", name)
    if path is None:
        folders = ", ".join(folder_paths.get_folder_paths("checkpoints"))
        raise LauncherError(f"There is no checkpoint {name!r}, neither as a file nor in {folders}.")
    try:
        model, clip, *_ = comfy.sd.load_checkpoint_guess_config(path, output_vae=False)
    except Exception as error:  # the host passes on whatever its readers raise
        raise LauncherError(f"{path} cannot be loaded as a checkpoint: {error}") from error
    if model is None or clip is None:
        raise LauncherError(f"{path} is no whole checkpoint: a build needs its diffusion model and its text encoder.")
    return model, clip


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LauncherError(f"Cannot read {path}: {error}.") from error


def build(options: argparse.Namespace) -> None:
    import comfy.samplers
    import comfy.utils
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
            raise LauncherError(f"The host has no {kind} {chosen!r}. It has: {', '.join(known)}.")
    if options.out.exists() and not options.overwrite:
        raise LauncherError(f"{options.out} exists already. Choose another --out, or give --overwrite.")
    if not options.out.parent.is_dir():
        raise LauncherError(
            f"There is no folder {options.out.parent} for the HRV file. Make it, or choose another --out."
        )
    names = ("images", "seed", "steps", "cfg", "sampler_name", "scheduler", "width", "height", "batch_size", "negative")
    chosen = {name: getattr(options, name) for name in (*names, "shard", "stop_at")}
    settings = BuildSettings(**chosen, **({"estimator": options.estimator} if options.estimator else {}))
    prompts = [line.strip() for line in read(options.prompts).splitlines() if line.strip()]
    vocabulary = parse_vocabulary(read(options.concepts))
    model, clip = load_model(options.checkpoint)
    with torch.inference_mode(), tqdm(unit="step", dynamic_ncols=True) as bar:

        def steps_done(value: int, total: int, *_: Any, **__: Any) -> None:
            bar.total, bar.n = total, value
            bar.refresh()

        def report(progress: Progress) -> None:
            bar.set_postfix_str(str(progress))

        comfy.utils.set_progress_bar_global_hook(steps_done)
        hrv = build_hrv(model, clip, vocabulary, prompts, settings, states=options.states, report=report)
    print(f"Wrote {save_hrv(hrv, options.out, overwrite=options.overwrite)}: {hrv.provenance['images']} images.")


def main() -> None:
    options = parse_arguments()
    interrupt_on_termination()
    with errors_for_people():
        enter_host(gpu=options.gpu)
        import_pack()
        from hrv_pack.hrv.errors import HRVError

        try:
            build(options)
        except HRVError as error:
            raise LauncherError(str(error)) from error


if __name__ == "__main__":
    main()
