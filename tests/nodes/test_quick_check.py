"""HRV Quick Check by itself, on HRV-mini."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from comfy.model_management import InterruptProcessingException
from hrv_pack.host.files.folders import SHIPPED
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.weakening import making
from hrv_pack.host.work.sampling import sample_latents
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


def check(**inputs: Any) -> str:
    """The node's verdict on HRV-mini's HRV."""
    model, clip, vae = load_mini()
    with torch.inference_mode():
        verdict: str = QuickCheck.execute(
            **inputs, model=model, clip=clip, vae=vae, hrv=load_hrv(SHIPPED / "hrv-mini.safetensors"),
            scorer=MiniScorer(), experiment=parse_experiment(EXPERIMENT), prompts=1, steps=1, cfg=1.0,
            sampler_name="euler", scheduler="normal", width=128, height=128, batch_size=1, negative="",
        ).result[0]  # fmt: skip
    return verdict


def test_three_concepts_are_checked_if_none_is_named_and_others_listed() -> None:
    verdict = check(concepts="", seeds=1, seed=0)
    lines = verdict.splitlines()
    assert [line.partition(":")[0] for line in lines[1:4]] == ["Color", "Shape", "Pattern"]
    assert lines[4] == "Left out for time, name them to check them: Size."
    assert lines[5].startswith("From 54 images")


def test_seeds_are_those_of_the_hosts_samplers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed that is linked to a KSampler too can be any of its; after the largest comes 0."""
    sampled: list[list[int]] = []

    def two_images(model: Any, seeds: Sequence[int], *others: Any) -> torch.Tensor:
        if len(sampled) == 2:
            raise InterruptProcessingException
        sampled.append(list(seeds))
        return sample_latents(model, seeds, *others)

    monkeypatch.setattr(making, "sample_latents", two_images)
    with pytest.raises(InterruptProcessingException):
        check(concepts="Color", seeds=2, seed=2**64 - 1)
    assert sampled == [[2**64 - 1], [0]]
