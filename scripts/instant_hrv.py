"""Make an HRV from a checkpoint's weights alone, without a graph and without images: the same as Instant HRV's.

    python scripts/instant_hrv.py --checkpoint sd15.safetensors --concepts concepts.txt --out sd15-values.safetensors

Runs in the Python environment of the ComfyUI at COMFYUI_PATH, or of the one whose custom_nodes the pack lies in.
Exit status: 0 done, 1 refused with a sentence, 2 wrong options, 130 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hrv_commands import add_model_and_files, load_model, progress_bar, read, require_place, run_in_host


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_and_files(parser)
    parser.add_argument("--frames", type=Path, help='sentences, one a line, such as "a photo of a {word}"')
    parser.add_argument("--background", help="when needed, always or never: compare with the paper's 34 concepts")
    return parser.parse_args()


def make(options: argparse.Namespace) -> None:
    import torch
    from hrv_pack.host.building.value_contrast import background_of, instant_hrv
    from hrv_pack.hrv.prompts.frames import DEFAULT_FRAMES, parse_frames
    from hrv_pack.hrv.relevance.files import save_hrv
    from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary

    require_place(options.out, overwrite=options.overwrite)
    vocabulary = parse_vocabulary(read(options.concepts))
    frames = parse_frames(read(options.frames)) if options.frames else DEFAULT_FRAMES
    background = background_of(vocabulary, *([options.background] if options.background else []))
    model, clip = load_model(options.checkpoint)
    with torch.inference_mode(), progress_bar("part"):
        hrv = instant_hrv(model, clip, vocabulary, frames, background)
    print(f"Wrote {save_hrv(hrv, options.out, overwrite=options.overwrite)}: {len(hrv.concepts)} concepts.")


def main() -> None:
    run_in_host(parse_arguments(), make)


if __name__ == "__main__":
    main()
