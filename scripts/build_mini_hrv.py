"""Build the HRV of HRV-mini that ships with the pack: ``python scripts/build_mini_hrv.py``.

Prompts are captions of the mini world, words the shipped vocabulary; the file's provenance says the rest. Needs a host
on COMFYUI_PATH and its Python environment. Replaces ``hrv_presets/hrvs/hrv-mini.safetensors``.
"""

from __future__ import annotations

import argparse

from host_process import enter_host
from pack_import import PACK_ROOT, import_pack

TARGET = PACK_ROOT / "hrv_presets" / "hrvs" / "hrv-mini.safetensors"
VOCABULARY = PACK_ROOT / "hrv_presets" / "vocabularies" / "hrv-mini.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    enter_host()
    import_pack()
    import numpy as np
    import torch
    from hrv_pack.host.building.build import BuildSettings, build_hrv
    from hrv_pack.host.mini.loader import load_mini
    from hrv_pack.hrv.relevance.files import save_hrv
    from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
    from hrv_pack.mini.captions import draw_samples

    samples, _ = draw_samples(options.images, np.random.default_rng(0))
    settings = BuildSettings(
        images=options.images,
        seed=0,
        steps=options.steps,
        cfg=5.0,
        sampler_name="euler",
        scheduler="normal",
        width=128,
        height=128,
        batch_size=32,
    )
    with torch.inference_mode():
        model, clip, _ = load_mini()
        vocabulary = parse_vocabulary(VOCABULARY.read_text(encoding="utf-8"))
        hrv = build_hrv(model, clip, vocabulary, [sample.caption for sample in samples], settings)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    print(f"Wrote {save_hrv(hrv, TARGET, overwrite=True)}")


if __name__ == "__main__":
    main()
