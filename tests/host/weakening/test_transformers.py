"""Ordered weakening of transformers: images are those that the nodes make by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.sample
import pytest
import torch
from hrv_pack.host.mechanism import add_control
from hrv_pack.host.models.latents import empty_latent
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.weakening.grid import WeakeningSettings
from hrv_pack.host.weakening.making import Examined
from hrv_pack.host.weakening.run import analyse_weakening
from hrv_pack.hrv.controls.control import weaken
from hrv_pack.hrv.progress import WHOLE
from hrv_pack.hrv.prompts.tokens import ALL_WORDS
from hrv_pack.hrv.relevance.orders import MOST_RELEVANT_FIRST
from hrv_pack.hrv.scoring.experiments import Case, parse_experiment
from hrv_pack.hrv.weakening.plan import Line, Plan
from hrv_pack.tests.support.small_host import encoded, random_hrv
from hrv_pack.tests.support.small_transformers import (
    ANIMA,
    Kind,
    each_kind,
    small,
    small_clip_anima,
    small_clip_flux,
)

EXPERIMENT = parse_experiment("[Color]\na <red> circle\na <green> circle")


class Brightness:
    """The mean of an image."""

    name = "brightness"
    provenance: Mapping[str, Any] = {}

    def check(self, cases: Sequence[Case], width: int, height: int) -> None:
        """Takes any."""

    def score(self, images: torch.Tensor, cases: Sequence[Case]) -> list[float]:
        assert images.shape == (len(cases), 64, 64, 3)
        return [float(image.mean()) for image in images]


def decoded(latents: torch.Tensor) -> torch.Tensor:
    """A picture of a latent's mean; of a video a frame for each, as the host's VAEs give them."""
    mean = latents.float().flatten(1).mean(1).sigmoid()
    frames = (1,) if latents.ndim == 5 else ()
    return mean.reshape(-1, *frames, 1, 1, 1).expand(len(latents), *frames, 64, 64, 3)


@each_kind
def test_images_are_those_of_the_nodes(kind: Kind, tmp_path: Path) -> None:
    """With T5 for all but Anima: where the words of other encoders are is tests/host/prompts/test_letters.py's."""
    model, clip = small(kind), small_clip_anima if kind is ANIMA else small_clip_flux
    hrv = random_hrv(head_layout(model))
    settings = WeakeningSettings((3, 4), 2, 2.0, "euler", "normal", 64, 64)
    examined = Examined(model, clip(), SimpleNamespace(decode=decoded, patcher=model), hrv, Brightness())
    plan = Plan((0, 4, hrv.layout.head_count), random_orders=1 if kind is ANIMA else 0)
    with torch.inference_mode():
        cases = {"Color": EXPERIMENT.of("Color")}
        (result,) = analyse_weakening(examined, cases, plan, settings, states=tmp_path).results
        for number, case in enumerate(result.cases):
            controlled, positive = add_control(
                model,
                encoded(clip(), case.prompt),
                [ALL_WORDS],
                lambda positions: weaken(hrv, "Color", MOST_RELEVANT_FIRST, 4, positions, 1.0, WHOLE),
            )
            empty = torch.zeros(empty_latent(model, 1, 64, 64))
            latents = comfy.sample.sample(
                controlled,
                comfy.sample.prepare_noise(empty, 4),
                2,
                2.0,
                "euler",
                "normal",
                positive,
                encoded(clip(), ""),
                empty,
                disable_pbar=True,
                seed=4,
            )
            measured = result.along(Line(MOST_RELEVANT_FIRST))[1, number, 1]
            assert measured == pytest.approx(float(decoded(latents).mean()), rel=1e-4)
            without = result.along(Line(MOST_RELEVANT_FIRST))[0, number, 1]
            assert measured != without
