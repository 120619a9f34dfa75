"""Ordered weakening of HRV-mini: whether its HRV separates, against a shuffled one, and over factors.

    python benchmarks/weakening.py [--factor 0] [--prompts 8] [--seeds 1] [--out FOLDER]

Needs a host on COMFYUI_PATH. An interrupted run goes on from the states in FOLDER. Writes ``weakening.md``,
``weakening.json``, ``weakening-hrv.png``, ``weakening-shuffled.png``, ``weakening-curves.png`` and
``weakening-factors.png``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from host_process import enter_host
from pack_import import PACK_ROOT, import_pack

enter_host(gpu="cuda" in sys.argv)
import_pack()

import numpy as np
import torch
from hrv_pack.benchmarks.measuring import machine
from hrv_pack.host.files.folders import SHIPPED
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.weakening.grid import WeakeningSettings
from hrv_pack.host.weakening.making import Examined
from hrv_pack.host.weakening.run import analyse_weakening
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.hrv.relevance.orders import LEAST_RELEVANT_FIRST, MOST_RELEVANT_FIRST
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.hrv.scoring.experiments import parse_experiment
from hrv_pack.hrv.weakening.pictures import curves_picture, factors_picture, summary_picture
from hrv_pack.hrv.weakening.plan import UNIFORM, Plan, Weakening, parse_head_counts
from hrv_pack.hrv.weakening.statistics import Finding, finding, mean_scores
from hrv_pack.hrv.weakening.tables import findings_table, results_json
from hrv_pack.mini.truth_scorer import MiniScorer

EXPERIMENT = PACK_ROOT / "hrv_presets" / "experiments" / "hrv-mini.txt"
FACTORS = (-2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0)


def shuffled(hrv: HRV) -> HRV:
    """The same numbers at other heads, the same for every concept."""
    order = np.random.default_rng(0).permutation(hrv.layout.head_count)
    return HRV(hrv.values[:, order], hrv.concepts, hrv.layout, provenance={"shuffled": hrv.digest})


def factors_table(result: Weakening) -> str:
    """Mean scores by factor, order and number of heads, as Markdown."""
    inner = result.plan.head_counts[1:-1]
    names = {MOST_RELEVANT_FIRST: "most relevant", LEAST_RELEVANT_FIRST: "least relevant", UNIFORM: "all alike"}
    head = ["factor", *(f"{name}, {heads}" for name in names.values() for heads in inner)]
    tables = [mean_scores(result, order)[:, 1:-1] for order in names]
    rows = [
        [f"{factor:g}", *(f"{score:.2f}" for table in tables for score in table[number])]
        for number, factor in enumerate(result.plan.factors)
    ]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, ["---"] * len(head), *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=8, help="of each concept; 0 for all")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--head-counts", default="11, 31, 61")
    parser.add_argument("--random-orders", type=int, default=3)
    parser.add_argument("--concepts", nargs="*", help="all by default")
    parser.add_argument("--factor", type=float, default=0.0, help="0 sets weakened heads to zero; the paper's is -2")
    parser.add_argument("--factors-of", default="Color", help="the concept of the sweep over factors")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    experiment = parse_experiment(EXPERIMENT.read_text(encoding="utf-8"))
    concepts = options.concepts or list(experiment.concepts)
    hrv = load_hrv(SHIPPED / "hrv-mini.safetensors")
    counts = parse_head_counts(options.head_counts, hrv.layout.head_count)
    settings = WeakeningSettings(
        tuple(range(options.seeds)), options.steps, 5.0, "euler", "normal", 128, 128, batch_size=8
    )
    model, clip, vae = load_mini()

    def analyse(used: HRV, names: list[str], plan: Plan) -> tuple[Weakening, ...]:
        cases = {name: experiment.of(name, options.prompts) for name in names}
        with torch.inference_mode():
            analysis = analyse_weakening(
                Examined(model, clip, vae, used, MiniScorer()),
                cases,
                plan,
                settings,
                states=options.out / "states",
                report=lambda progress: print(progress, flush=True),
            )
        return analysis.results

    prompts = f"{options.prompts or 'all'} prompts a concept"
    made = f"{machine(model.load_device)}; factor {options.factor:g}, {options.steps} steps, {prompts}.\n"
    parts = [made]
    every: list[tuple[Weakening, Finding]] = []
    for name, used in (("hrv", hrv), ("shuffled", shuffled(hrv))):
        results = analyse(used, concepts, Plan(counts, options.random_orders, (options.factor,)))
        findings = [finding(result) for result in results]
        every += zip(results, findings, strict=True)
        parts += [f"\n{name}\n\n", findings_table(findings)]
        title = "HRV-mini's HRV" if name == "hrv" else "The same HRV, its heads shuffled"
        summary_picture(findings, title).save(options.out / f"weakening-{name}.png")
    best, found = max(every[: len(concepts)], key=lambda pair: pair[1].area.value)
    curves_picture(best, found).save(options.out / "weakening-curves.png")
    (sweep,) = analyse(hrv, [options.factors_of], Plan(counts, 0, FACTORS, uniform=True))
    factors_picture(sweep).save(options.out / "weakening-factors.png")
    parts += [f"\n{options.factors_of}, mean score by factor, order and heads weakened\n\n", factors_table(sweep)]
    (options.out / "weakening.md").write_text("".join(parts), encoding="utf-8")
    record = results_json([result for result, _ in every], [found for _, found in every])
    (options.out / "weakening.json").write_text(record, encoding="utf-8")
    print("".join(parts))


if __name__ == "__main__":
    main()
