"""Merge HRV files, such as the shards of a build: ``python scripts/merge_hrvs.py ONE TWO THREE --out WHOLE``.

All shards of a build give the build itself. A causal build's report isn't merged: each shard has one of its own pairs.
Needs torch, numpy and safetensors, and no host. Exit status: 0 done, 1 refused with a sentence, 2 wrong options.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from launcher.errors import LauncherError, errors_for_people
from pack_import import import_pack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", metavar="HRV", help="HRV files")
    parser.add_argument("--out", type=Path, required=True, help="HRV file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the HRV file if it is there")
    options = parser.parse_args()
    import_pack()
    from hrv_pack.hrv.errors import HRVError
    from hrv_pack.hrv.relevance.arithmetic import merge
    from hrv_pack.hrv.relevance.evidence import Effects
    from hrv_pack.hrv.relevance.files import load_hrv, save_hrv

    with errors_for_people():
        try:
            merged = merge([load_hrv(path) for path in options.files])
            print(f"Wrote {save_hrv(merged, options.out, overwrite=options.overwrite)}.")
            if merged.evidence is not None and merged.evidence.kind == Effects.kind:
                print("It has no report: those of the shards are about the pairs of each.")
        except HRVError as error:
            raise LauncherError(str(error)) from error


if __name__ == "__main__":
    main()
