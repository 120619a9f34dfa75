"""HRV Quick Check by itself, on HRV-mini."""

from __future__ import annotations

import torch
from hrv_pack.host.files.folders import SHIPPED
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.hrv.scoring.experiments import parse_experiment
from hrv_pack.mini.truth_scorer import MiniScorer
from hrv_pack.nodes.weakening_checks import QuickCheck

EXPERIMENT = """
[Color]
a <red> circle
[Shape]
a <star>
[Pattern]
a <striped> square
[Size]
a <small> square
"""


def test_three_concepts_are_checked_if_none_is_named_and_others_listed() -> None:
    model, clip, vae = load_mini()
    with torch.inference_mode():
        verdict = QuickCheck.execute(
            concepts="", model=model, clip=clip, vae=vae, hrv=load_hrv(SHIPPED / "hrv-mini.safetensors"),
            scorer=MiniScorer(), experiment=parse_experiment(EXPERIMENT), seeds=1, seed=0, prompts=1, steps=2, cfg=4.0,
            sampler_name="euler", scheduler="normal", width=128, height=128, batch_size=1, negative="",
        ).result[0]  # fmt: skip
    lines = verdict.splitlines()
    assert [line.partition(":")[0] for line in lines[1:4]] == ["Color", "Shape", "Pattern"]
    assert lines[4] == "Left out for time, name them to check them: Size."
    assert lines[5].startswith("From 54 images")
