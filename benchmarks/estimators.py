"""What it takes to build an HRV of HRV-mini: estimators, ways to pool a word's tokens, images, words per concept.

    python benchmarks/estimators.py [--images 1024] [--steps 12] [--out FOLDER]

All variants record the very same images. The long build, which all are measured against, is "all words" over the
second half of the images; variants use the first half, so no image is on both sides. Agreement is the rank
correlation (Spearman) of the heads, mean over the concepts. "Images for 0.98" is the smallest number from which on the
agreement with the variant's own long build stays there. Needs a host on COMFYUI_PATH. Writes
``estimators.json`` and ``estimators.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from host_process import enter_host
from pack_import import PACK_ROOT, import_pack

enter_host()
import_pack()

import comfy.utils
import numpy as np
import torch
from hrv_pack.host.building.build import BuildSettings, alike, record_images
from hrv_pack.host.building.concept_words import ALL_WORDS_ESTIMATOR, PAPER_ESTIMATOR, ConceptWords
from hrv_pack.host.building.recording import Recorder
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.hrv.building.convergence import measure
from hrv_pack.hrv.relevance.agreement import rank_agreement
from hrv_pack.hrv.relevance.evidence import Counts, head_shares
from hrv_pack.hrv.relevance.vocabulary import Vocabulary, parse_vocabulary
from hrv_pack.hrv_kernels.word_pooling import POOLINGS
from hrv_pack.mini.captions import draw_samples

VOCABULARY = PACK_ROOT / "hrv_presets" / "vocabularies" / "hrv-mini.txt"
GOALS = (0.9, 0.95, 0.98, 0.99)


@dataclass
class Variant:
    """One way to build; ``batches`` are counts [2, N, H] of every batch in turn."""

    name: str
    recorder: Recorder
    batches: list[Counts] = field(default_factory=list)

    def prefix(self, batches: int) -> Counts:
        return np.sum(self.batches[:batches], axis=0)


class Together:
    """Several recorders of the same images, in the place of one."""

    def __init__(self, variants: list[Variant]):
        self.variants = variants
        self.model = variants[-1].recorder.model

    def begin(self, images: Any) -> None:
        for variant in self.variants:
            variant.recorder.begin(images)

    def step_done(self) -> None:
        for variant in self.variants:
            variant.recorder.step_done()


def shortened(vocabulary: Vocabulary, words: int) -> Vocabulary:
    """The first words of every concept."""
    return Vocabulary(tuple((name, listed[:words]) for name, listed in vocabulary))


def variants_of(model: Any, clip: Any, vocabulary: Vocabulary, seed: int) -> list[Variant]:
    """Recorders one around the other, so that each sees every image."""
    words = ConceptWords(clip, vocabulary)
    made: list[Variant] = []

    def add(name: str, words: ConceptWords, estimator: str, pooling: str = "mean") -> None:
        around = made[-1].recorder.model if made else model
        made.append(Variant(name, Recorder(around, words, seed, estimator, pooling)))

    for estimator in (ALL_WORDS_ESTIMATOR, PAPER_ESTIMATOR):
        for pooling in POOLINGS:
            add(f"{estimator}, {pooling} of tokens", words, estimator, pooling)
    for number in (1, 2, 3, 4, 6, 8):
        add(f"{number} words per concept", ConceptWords(clip, shortened(vocabulary, number)), ALL_WORDS_ESTIMATOR)
    return made


def agreement(one: Counts, other: Counts) -> float:
    """Of counts [N, H]."""
    return float(rank_agreement(head_shares(one), head_shares(other)).mean())


def examine(variant: Variant, long: Counts, own_long: Counts, half: int, batch: int) -> dict[str, Any]:
    """Agreement with the long build, and with this variant's own, after growing numbers of images."""
    sizes = range(1, half + 1)
    curve = [agreement(variant.prefix(size).sum(axis=0), own_long) for size in sizes]
    reached: dict[str, int | None] = {}
    for goal in GOALS:
        below = [size for size, value in zip(sizes, curve, strict=True) if value < goal]
        first = below[-1] + 1 if below else 1
        reached[str(goal)] = first * batch if first <= half else None
    counts = variant.prefix(half)
    point = measure(half * batch, counts)
    return {
        "variant": variant.name,
        "with the long build": agreement(counts.sum(axis=0), long),
        "with its own long build": curve[-1],
        "halves": point.halves if point else None,
        "expected": point.expected if point else None,
        "images": reached,
        "curve": [
            {
                "images": size * batch,
                "met": curve[size - 1],
                "expected": point.expected if (point := measure(size * batch, variant.prefix(size))) else None,
            }
            for size in sizes
            if (size & (size - 1)) == 0
        ],
    }


def tables(rows: list[dict[str, Any]], made: dict[str, Any]) -> str:
    """The results as Markdown."""
    text = f"{made['machine']}; {made['images']} images of {made['steps']} steps.\n\n"
    heads = [f"images for {goal}" for goal in GOALS]
    titles = ["variant", "halves agree", "expected", "with its own long build", "with the long build", *heads]
    text += f"| {' | '.join(titles)} |\n" + "|---" * len(titles) + "|\n"
    for row in rows:
        cells = [row[name] for name in ("halves", "expected", "with its own long build", "with the long build")]
        numbers = [f"{cell:.3f}" for cell in cells] + [str(found or "more") for found in row["images"].values()]
        text += f"| {row['variant']} | {' | '.join(numbers)} |\n"
    text += "\n| images | expected agreement | met |\n|---|---|---|\n"
    for point in rows[0]["curve"]:
        text += f"| {point['images']} | {point['expected']:.3f} | {point['met']:.3f} |\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=8, help="images at a time, and between two measurements")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    settings = BuildSettings(
        options.images, 0, options.steps, 5.0, "euler", "normal", 128, 128, batch_size=options.batch
    )
    samples, _ = draw_samples(options.images, np.random.default_rng(0))
    prompts = [sample.caption for sample in samples]
    vocabulary = parse_vocabulary(VOCABULARY.read_text(encoding="utf-8"))
    with torch.inference_mode():
        model, clip, _ = load_mini()
        variants = variants_of(model, clip, vocabulary, settings.seed)
        together = Together(variants)
        negative = clip.encode_from_tokens_scheduled(clip.tokenize(""))
        bar = comfy.utils.ProgressBar(options.images * options.steps)
        for batch in settings.batches():
            ((images, positive),) = alike(clip, prompts, batch)
            together.begin(images)
            record_images(together, images, positive, negative, settings, bar.update)
            for variant in variants:
                variant.batches.append(variant.recorder.counts())
            print(f"{batch.stop} of {options.images} images", flush=True)
    half = len(variants[0].batches) // 2
    long = {variant.name: np.sum(variant.batches[half:], axis=(0, 1)) for variant in variants}
    rows = [examine(variant, long[variants[0].name], long[variant.name], half, options.batch) for variant in variants]
    made = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__}",
        "images": options.images,
        "steps": options.steps,
    }
    text = tables(rows, made)
    (options.out / "estimators.json").write_text(json.dumps({"made": made, "rows": rows}, indent=2) + "\n", "utf-8")
    (options.out / "estimators.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
