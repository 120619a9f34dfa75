"""Windows of progress on a model's noise levels, and how rarely the host is asked for them."""

from __future__ import annotations

from typing import Any

import pytest
from comfy.samplers import calculate_sigmas
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.runs.windows import WindowEnds
from hrv_pack.hrv.progress import Window
from hrv_pack.nodes.controls import ConceptStrengthen
from hrv_pack.tests.host.editing.test_run import SOURCE, TARGET, run
from hrv_pack.tests.support.explicit_edits import prompt_edit
from hrv_pack.tests.support.small_host import encoded, latents, random_hrv


@pytest.fixture
def asked(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every progress that the host is asked the noise level of."""
    progress: list[float] = []
    sampling = model.get_model_object("model_sampling")
    answer = sampling.percent_to_sigma

    def percent_to_sigma(percent: float) -> Any:
        progress.append(percent)
        return answer(percent)

    monkeypatch.setattr(sampling, "percent_to_sigma", percent_to_sigma)
    return progress


def test_a_window_holds_its_start_and_not_its_end(model: Any) -> None:
    windows, window = WindowEnds(model), Window(0.25, 0.75)
    start, end = windows.of(window)
    assert start > end
    assert windows.is_open(window, start) and not windows.is_open(window, end)
    sigmas = [float(sigma) for sigma in calculate_sigmas(model.get_model_object("model_sampling"), "normal", 8)]
    assert [windows.is_open(window, sigma) for sigma in sigmas] == [end < sigma <= start for sigma in sigmas]
    assert all(windows.is_open(Window(), sigma) for sigma in sigmas[:-1])


def test_a_run_with_controls_asks_once_for_each_end(model: Any, clip: Any, asked: list[float]) -> None:
    controlled, positive = ConceptStrengthen.execute(
        model=model,
        conditioning=encoded(clip, "a red car"),
        hrv=random_hrv(head_layout(model)),
        words="red",
        concept="Color",
        strength=1.0,
        start=0.2,
        end=0.7,
        clamp=0.0,
    ).result
    latents(controlled, positive, encoded(clip, "ugly"), steps=4)
    assert [asked.count(end) for end in (0.2, 0.7)] == [1, 1]


def test_a_run_with_edits_asks_once_for_each_end(model: Any, clip: Any, asked: list[float]) -> None:
    source, target, negative = (encoded(clip, text) for text in (SOURCE, TARGET, "ugly"))
    run(prompt_edit(model, source, target, cross_end=0.8, self_end=0.4), negative)
    assert [asked.count(end) for end in (0.4, 0.8)] == [1, 1]
