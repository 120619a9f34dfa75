"""How much of what a concept's words do to HRV-mini's images the top heads of each kind of HRV carry.

    python benchmarks/causal_shares.py [--pairs 16] [--out FOLDER]

Two causal HRVs are built with different seeds, so with other pairs of prompts, images and noise. The first is ranked
and the second is the truth; so no HRV is judged by pairs that it was made from. Compared are the first causal HRV, the
same from images of 20 steps in place of 8, Instant HRV with HRV-mini's own concepts, the HRV that ships (Build HRV,
"paper"), and chance. "Share" is the share of the truth's effect, negative parts counted as zero, in the top 8 and 24 of
128 heads; intervals of 95 % by drawing the truth's pairs again. Needs a host on COMFYUI_PATH. Builds are saved in the
folder and resume. Writes
``causal-shares.md``, and the first causal HRV and the instant one for ``read_by_concept.py``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from host_process import enter_host
from pack_import import PACK_ROOT, import_pack

enter_host()
import_pack()

import numpy as np
import torch
from hrv_pack.benchmarks.measuring import machine
from hrv_pack.host.building.causal import CausalBuild, CausalSettings, build_causal_hrv
from hrv_pack.host.building.value_contrast import instant_hrv
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.hrv.building.pairs import Example
from hrv_pack.hrv.relevance.evidence import Effects, normalised
from hrv_pack.hrv.relevance.files import load_hrv, save_hrv
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
from hrv_pack.hrv.scoring.experiments import parse_experiment

RANKED_SEED, TRUE_SEED = 1, 2
STEPS, MORE_STEPS = 8, 20
TOPS = (8, 24)
DRAWS = 400


def settings(pairs: int, seed: int, steps: int) -> CausalSettings:
    return CausalSettings(pairs, seed, steps, 4.0, "euler", "normal", 128, 128, batch_size=7)


def share(truth: np.ndarray, order: np.ndarray, top: int) -> float:
    """The share of the relevances [H] in the first ``top`` heads of an order."""
    return float(truth[order[:top]].sum() / truth.sum())


def drawn_again(evidence: Effects, row: int, random: np.random.Generator) -> np.ndarray:
    """Relevances [H] of a concept from as many of its pairs, drawn with replacement."""
    own = np.flatnonzero(evidence.pairs[:, 0] == row)
    chosen = random.choice(own, len(own))
    places = evidence.pairs[chosen].copy()
    places[:, 0], places[:, 1] = 0, np.arange(len(chosen))
    again = Effects(evidence.effects[chosen], evidence.norms[chosen], places)
    relevance: np.ndarray = normalised(again.scores(1))[0]
    return relevance


def table(ranked: dict[str, HRV], truth: CausalBuild) -> list[str]:
    """A row for each concept and kind of HRV."""
    evidence = truth.hrv.evidence
    assert isinstance(evidence, Effects)
    random = np.random.default_rng(0)
    lines = ["| concept | heads of | top 8 | top 24 |", "|---|---|---|---|"]
    means: dict[str, list[list[float]]] = {name: [] for name in ranked}
    for row, concept in enumerate(truth.hrv.concepts):
        draws = [drawn_again(evidence, row, random) for _ in range(DRAWS)]
        for name, hrv in ranked.items():
            order = hrv.ranking(concept)
            cells, found = [], []
            for top in TOPS:
                value = share(truth.hrv.row(concept), order, top)
                low, high = np.quantile([share(draw, order, top) for draw in draws], [0.025, 0.975])
                cells.append(f"{value:.2f} ({low:.2f} to {high:.2f})")
                found.append(value)
            means[name].append(found)
            lines.append(f"| {concept} | {name} | {' | '.join(cells)} |")
    heads = truth.hrv.layout.head_count
    for name, values in means.items():
        mean = np.mean(values, axis=0)
        lines.append(f"| **mean** | **{name}** | **{mean[0]:.2f}** | **{mean[1]:.2f}** |")
    return [*lines, f"| chance | | {TOPS[0] / heads:.2f} | {TOPS[1] / heads:.2f} |"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=16, help="pairs of prompts for each concept and build")
    parser.add_argument("--out", type=Path, default=Path("causal-shares"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    presets = PACK_ROOT / "hrv_presets"
    experiment = parse_experiment((presets / "experiments" / "hrv-mini.txt").read_text(encoding="utf-8"))
    examples = {
        name: [Example(case.prompt, case.target) for case in experiment.of(name)] for name in experiment.concepts
    }
    model, clip, _ = load_mini()
    with torch.inference_mode():
        first, longer, second = (
            build_causal_hrv(
                model, clip, examples, settings(options.pairs, seed, steps), states=options.out, report=print
            )
            for seed, steps in ((RANKED_SEED, STEPS), (RANKED_SEED, MORE_STEPS), (TRUE_SEED, STEPS))
        )
        vocabulary = parse_vocabulary((presets / "vocabularies" / "hrv-mini.txt").read_text(encoding="utf-8"))
        values = instant_hrv(model, clip, vocabulary)
    shipped = load_hrv(presets / "hrvs" / "hrv-mini.safetensors")
    causal = {"causal": first.hrv, f"causal, {MORE_STEPS} steps": longer.hrv}
    lines = table({**causal, "Instant HRV": values, "Build HRV": shipped}, second)
    for name, hrv in (("causal", first.hrv), ("values", values)):
        save_hrv(hrv, options.out / f"{name}.safetensors", overwrite=True)
    head = f"{machine(model.load_device)}; {options.pairs} pairs a concept"
    text = "\n".join([head, "", second.report.text(), "", *lines])
    (options.out / "causal-shares.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
