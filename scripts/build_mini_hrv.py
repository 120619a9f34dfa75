"""Build the HRVs that ship with the pack: ``python scripts/build_mini_hrv.py [--transformer]``.

``hrv-mini.safetensors`` counts what heads look at, by the paper's estimator; ``hrv-mini-causal.safetensors`` is what
they change in the picture, and ``hrv-mini-values.safetensors`` is read off the weights. Counted are images of captions
of the mini world; pairs of prompts are those of the shipped experiment, words those of the shipped vocabulary. The
files' provenance says the rest. ``--transformer`` builds ``hrv-mini-t-causal.safetensors`` of HRV-mini-T alone.
Needs a host on COMFYUI_PATH and its Python environment. Replaces the files in ``hrv_presets/hrvs``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from host_process import enter_host
from pack_import import PACK_ROOT, import_pack

PRESETS = PACK_ROOT / "hrv_presets"
SAMPLER = (5.0, "euler", "normal", 128, 128)
"""CFG, sampler, scheduler, width and height."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--transformer", action="store_true", help="of HRV-mini-T, the causal one")
    parser.add_argument("--images", type=int, default=256, help="images that are counted")
    parser.add_argument("--pairs", type=int, default=16, help="pairs of prompts for each concept")
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    enter_host()
    import_pack()
    import numpy as np
    import torch
    from hrv_pack.host.building.build import BuildSettings, build_hrv
    from hrv_pack.host.building.causal import CausalSettings, build_causal_hrv
    from hrv_pack.host.building.value_contrast import instant_hrv
    from hrv_pack.host.mini.loader import TRANSFORMER_WEIGHTS, WEIGHTS, load_mini
    from hrv_pack.hrv.building.pairs import Example
    from hrv_pack.hrv.relevance.files import save_hrv
    from hrv_pack.hrv.relevance.vectors import HRV
    from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
    from hrv_pack.hrv.scoring.experiments import parse_experiment
    from hrv_pack.mini.captions import draw_samples

    def write(hrv: HRV, name: str) -> None:
        print(f"Wrote {save_hrv(hrv, PRESETS / 'hrvs' / name, overwrite=True)}", flush=True)

    vocabulary = parse_vocabulary((PRESETS / "vocabularies" / "hrv-mini.txt").read_text(encoding="utf-8"))
    experiment = parse_experiment((PRESETS / "experiments" / "hrv-mini.txt").read_text(encoding="utf-8"))
    examples = {
        concept: [Example(case.prompt, case.target) for case in experiment.of(concept)]
        for concept in experiment.concepts
    }
    captions = [sample.caption for sample in draw_samples(options.images, np.random.default_rng(0))[0]]
    with torch.inference_mode():
        model, clip, _ = load_mini(TRANSFORMER_WEIGHTS if options.transformer else WEIGHTS)
        if not options.transformer:
            write(instant_hrv(model, clip, vocabulary), "hrv-mini-values.safetensors")
            counted = BuildSettings(options.images, 0, options.steps, *SAMPLER, batch_size=32)
            write(build_hrv(model, clip, vocabulary, captions, counted), "hrv-mini.safetensors")
        with TemporaryDirectory() as states:
            causal = CausalSettings(options.pairs, 0, options.steps, *SAMPLER, batch_size=8)
            built = build_causal_hrv(model, clip, examples, causal, states=Path(states))
        print(built.report.text())
        write(built.hrv, f"hrv-mini{'-t' if options.transformer else ''}-causal.safetensors")


if __name__ == "__main__":
    main()
