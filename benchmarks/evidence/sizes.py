"""How much is measured: in full, and for a quick check of the directions."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

TUNING, REPORTING = 1_000, 50_000
"""Seeds of what settings are chosen on, and of all that is reported; other prompts and other noise."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of everything; each part says in its module what its numbers mean."""

    # HRVs: images, and pairs a concept, of those that steer; those of the same kind that robustness compares.
    images: int
    pairs: int
    again_images: int
    again_pairs: int
    variants: tuple[str, ...]
    further_training: int
    # Ordered weakening: prompts a kind; numbers of heads by factor; concepts and kinds of HRVs; whose matrix.
    weakened_prompts: int
    weakened_heads: tuple[tuple[float, tuple[int, ...]], ...]
    weakened_concepts: tuple[str, ...]
    weakened_kinds: tuple[str, ...]
    matrix_kinds: tuple[str, ...]
    # Misinterpretation: prompts, seeds of each, and seeds that strengths are chosen on.
    two_meaning_prompts: int
    two_meaning_seeds: int
    two_meaning_tuned: int
    two_meaning_ways: tuple[str, ...]
    # Editing: sources of shapes, and as many of plants, for each way of naming; ways of editing.
    sources: int
    named: tuple[str, ...]
    edit_ways: tuple[str, ...]
    # Two subjects: prompts of each kind that are tried, and seeds of each; the most hard and the most other prompts
    # that are reported, and seeds of each.
    subject_tried: int
    subject_tried_seeds: int
    subject_prompts: int
    subject_seeds: int
    subject_ways: tuple[str, ...]
    # Read by Concept: pairs of prompts, numbers of heads, concepts, kinds of HRVs.
    read_pairs: int
    read_heads: tuple[int, ...]
    read_concepts: tuple[str, ...]
    read_kinds: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


KINDS = ("paper", "all words", "causal", "values")
"""Kinds of HRVs that are built."""

FULL = Sizes(
    images=192,
    pairs=16,
    again_images=96,
    again_pairs=8,
    variants=("half precision", "dpmpp_2m", "euler_ancestral", "another stage"),
    further_training=60,
    weakened_prompts=64,
    weakened_heads=((0.0, (4, 12, 32, 64)), (-2.0, (4, 32))),
    weakened_concepts=("Color", "Shape", "Pattern", "Size", "Position", "Scene", "Plants"),
    weakened_kinds=(*KINDS, "shuffled", "random"),
    matrix_kinds=("paper", "causal"),
    two_meaning_prompts=12,
    two_meaning_seeds=50,
    two_meaning_tuned=4,
    two_meaning_ways=(
        "adjusted",
        "adjusted_causally",
        "strengthened",
        "weakened",
        "intended_heads_alone",
        "shuffled",
        "uniform",
    ),
    sources=24,
    named=("half", "all"),
    edit_ways=("asking_anew", "p2p", "p2p_hrv_published", "p2p_hrv_causal"),
    subject_tried=48,
    subject_tried_seeds=2,
    subject_prompts=40,
    subject_seeds=1,
    subject_ways=("excited", "excited_published", "excited_causal"),
    read_pairs=128,
    read_heads=(8,),
    read_concepts=("Shape", "Color", "Pattern", "Size", "Position", "Scene", "Plants"),
    read_kinds=(*KINDS, "random"),
)

QUICK = Sizes(
    images=16,
    pairs=3,
    again_images=8,
    again_pairs=1,
    variants=(),
    further_training=0,
    weakened_prompts=16,
    weakened_heads=((0.0, (12,)),),
    weakened_concepts=("Shape",),
    weakened_kinds=("causal", "shuffled"),
    matrix_kinds=(),
    two_meaning_prompts=3,
    two_meaning_seeds=8,
    two_meaning_tuned=2,
    two_meaning_ways=("adjusted_causally",),
    sources=6,
    named=("half",),
    edit_ways=("asking_anew", "p2p"),
    subject_tried=2,
    subject_tried_seeds=1,
    subject_prompts=1,
    subject_seeds=1,
    subject_ways=("excited_causal",),
    read_pairs=16,
    read_heads=(8,),
    read_concepts=("Shape",),
    read_kinds=("causal", "random"),
)

TRANSFORMER = replace(FULL, weakened_heads=((0.0, (4, 8, 16, 32)),), read_heads=(8, 16))
"""For the two parts that are measured on HRV-mini-T, which has 64 heads."""

SIZES = {"full": FULL, "quick": QUICK, "transformer": TRANSFORMER}
