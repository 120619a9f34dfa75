"""How well pictures that no model made come back from noise on HRV-mini, and how well they are edited on the way.

    python benchmarks/inversion.py [--pictures 32] [--out FOLDER]

The renderer draws pictures of one shape; flipped sigmas and a deterministic sampler without guidance take them to
noise; from there a source and an edit of its color are sampled together, with an empty negative prompt or with the
source prompt as the negative one. Shown are the mean error of the source's row in 0..1, its PSNR, and how many edits
show the new color with everything else as the picture has it, by the ground-truth scorer. Needs a host on COMFYUI_PATH.
Writes ``inversion.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from host_process import enter_host
from pack_import import PACK_ROOT, import_pack

enter_host()
import_pack()

import comfy.sample
import comfy.samplers
import numpy as np
import torch
from hrv_pack.host.editing.prompts import add_row, edit_prompt
from hrv_pack.host.mechanism import with_mechanism
from hrv_pack.host.mini.loader import ENLARGEMENT, load_mini
from hrv_pack.host.prompts.encoding import encode_prompt
from hrv_pack.hrv.editing.edit import EditWindows, WordEdit, with_concept
from hrv_pack.hrv.progress import Window
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.mini.captions import Sample, draw_samples
from hrv_pack.mini.evaluation import Tally, wilson_interval
from hrv_pack.mini.scorer import Reading, read_pictures
from hrv_pack.mini.world import PLAIN_COLORS, draw


class Way(NamedTuple):
    """A way back: its negative prompt, and its CFG."""

    negative: str
    cfg: float


EMPTY, SOURCE = "empty", "the source's"
# Without guidance the negative prompt has no part.
WAYS = (Way(SOURCE, 1.0), Way(EMPTY, 5.0), Way(SOURCE, 1.5), Way(SOURCE, 2.0), Way(SOURCE, 3.0), Way(SOURCE, 5.0))


def colored(count: int, seed: int) -> list[tuple[Sample, torch.Tensor, str]]:
    """Captions that name a color, their pictures [3, 32, 32], and another color."""
    rng = np.random.default_rng(seed)
    samples, truth = draw_samples(4 * count, rng, "single")
    found = [
        (sample, picture, str(rng.choice([color for color in PLAIN_COLORS if color != sample.named["Color"]])))
        for sample, picture in zip(samples, draw(truth), strict=True)
        if "Color" in sample.named
    ]
    return found[:count]


def is_edit(before: Reading, after: Reading, color: str) -> bool:
    """Whether a picture of one shape shows it in another color, all else as it was."""
    if len(before.shapes) != 1 or len(after.shapes) != 1 or len(before.things) != 1 or len(after.things) != 1:
        return False
    (one,), (other,) = before.shapes, after.shapes
    kept = all(getattr(one, name) == getattr(other, name) for name in ("shape", "pattern", "size", "position"))
    return kept and before.scene == after.scene and other.color == color


class Inverter:
    """HRV-mini along sigmas in both directions."""

    def __init__(self, options: argparse.Namespace):
        model, self.clip, self.vae = load_mini()
        self.model = with_mechanism(model)
        self.hrv = load_hrv(options.hrv)
        self.sampler = comfy.samplers.sampler_object(options.sampler)
        sampling = self.model.get_model_object("model_sampling")
        self.sigmas = comfy.samplers.calculate_sigmas(sampling, options.scheduler, options.steps)
        # As the host's FlipSigmas has them.
        self.flipped = self.sigmas.flip(0)
        self.flipped[0] = 1e-4
        self.windows = EditWindows(Window(0.0, options.cross_end), Window(0.0, options.self_end))
        self.empty = encode_prompt(self.clip, "")[0]

    def along(self, sigmas: torch.Tensor, latent: torch.Tensor, positive: Any, negative: Any, cfg: float) -> Any:
        return comfy.sample.sample_custom(
            self.model, torch.zeros_like(latent), cfg, self.sampler, sigmas, positive, negative, latent,
            disable_pbar=True, seed=0,
        )  # fmt: skip

    def noise_of(self, picture: torch.Tensor, caption: str) -> torch.Tensor:
        """The latent from which a picture [1, 3, h, w] comes back."""
        source: Any = encode_prompt(self.clip, caption)[0]
        latent = self.vae.encode(picture.movedim(1, -1))
        return self.along(self.flipped, latent, source, source, 1.0)

    def back(self, noise: torch.Tensor, sample: Sample, color: str, way: Way) -> torch.Tensor:
        """RGB [2, 3, h, w]: the source that comes back, and its edit."""

        def by_color(positions: tuple[int, ...]) -> WordEdit:
            return with_concept(self.hrv, "Color", positions)

        source: Any = encode_prompt(self.clip, sample.caption)[0]
        target: Any = encode_prompt(self.clip, sample.caption.replace(sample.named["Color"], color, 1))[0]
        positive, _ = edit_prompt(source, target, self.windows, for_changed=by_color)
        latent = add_row({"samples": noise}, 2)["samples"]
        negative = source if way.negative == SOURCE else self.empty
        return self.vae.decode(self.along(self.sigmas, latent, positive, negative, way.cfg)).movedim(-1, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sampler", default="euler", help="a deterministic one")
    parser.add_argument("--scheduler", default="normal")
    parser.add_argument("--cross-end", type=float, default=0.8)
    parser.add_argument("--self-end", type=float, default=0.4)
    parser.add_argument("--hrv", type=Path, default=PACK_ROOT / "hrv_presets" / "hrvs" / "hrv-mini.safetensors")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    errors: dict[Way, list[float]] = {way: [] for way in WAYS}
    squares: dict[Way, list[float]] = {way: [] for way in WAYS}
    edits = {way: Tally() for way in WAYS}
    with torch.inference_mode():
        inverter = Inverter(options)
        for number, (sample, small, color) in enumerate(colored(options.pictures, options.seed)):
            picture = small.repeat_interleave(ENLARGEMENT, -1).repeat_interleave(ENLARGEMENT, -2)[None]
            noise = inverter.noise_of(picture, sample.caption)
            for way in WAYS:
                found = inverter.back(noise, sample, color, way)
                errors[way].append(float((found[:1] - picture).abs().mean()))
                squares[way].append(float((found[:1] - picture).square().mean()))
                before, after = read_pictures(torch.cat((picture, found[1:])))
                edits[way].add(is_edit(before, after, color))
            print(f"{number + 1} of {options.pictures}", flush=True)
    write(options, errors, squares, edits)


def write(
    options: argparse.Namespace,
    errors: dict[Way, list[float]],
    squares: dict[Way, list[float]],
    edits: dict[Way, Tally],
) -> None:
    """The table, and everything that made it."""
    text = (
        f"{options.pictures} pictures, {options.steps} steps of {options.sampler}, {options.scheduler}.\n\n"
        "| CFG | negative prompt | mean error | PSNR | edits that worked |\n|---|---|---|---|---|\n"
    )
    rows = []
    for way in WAYS:
        tally = edits[way]
        low, high = wilson_interval(tally.right, tally.total)
        psnr = -10 * np.log10(np.mean(squares[way]))
        share = f"{tally.right / max(1, tally.total):.2f} ({low:.2f} to {high:.2f})"
        text += f"| {way.cfg:g} | {way.negative} | {np.mean(errors[way]):.4f} | {psnr:.1f} dB | {share} |\n"
        rows.append({**way._asdict(), "errors": errors[way], "psnr": psnr, "edits": tally.to_json()})
    record = {
        "made": {**vars(options), "out": "", "hrv": options.hrv.name},
        "rows": rows,
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
    }
    (options.out / "inversion.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (options.out / "inversion.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
