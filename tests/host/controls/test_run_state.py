"""Nothing that a node is given ever changes, and a run leaves nothing behind however it ends."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from typing import Any

import comfy.hooks
import comfy.model_management
import comfy.samplers
import comfy.utils
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from hrv_pack.host.controls.run import ControlledRun
from hrv_pack.host.prompts.carried import CONTROLS_KEY
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.nodes.controls import ConceptAdjust, ConceptStrengthen
from hrv_pack.nodes.head_controls import ScaleHeads, WeakenHeads
from hrv_pack.tests.support.small_host import (
    encoded,
    latents,
    picture,
    picture_of_model,
)

from nodes import ConditioningSetArea


@pytest.fixture(scope="module")
def prompts(clip: Any) -> tuple[Any, Any]:
    return encoded(clip, "a red car"), encoded(clip, "ugly")


@pytest.fixture
def strengthened(model: Any, hrv: HRV, prompts: Any) -> tuple[Any, Any]:
    """A clone of the model with the mechanism and the prompt with a control that has a window."""
    return ConceptStrengthen.execute(
        model=model,
        conditioning=prompts[0],
        hrv=hrv,
        words="red",
        concept="Color",
        strength=1.0,
        start=0.1,
        end=0.8,
        clamp=2.0,
    ).result


def picture_of_hrv(hrv: HRV) -> Any:
    return hrv.digest, hrv.values.tobytes(), hrv.concepts


def test_controls_change_neither_model_nor_conditioning_nor_hrv(model: Any, hrv: HRV, prompts: Any) -> None:
    positive, negative = prompts
    before = picture_of_model(model), picture(positive), picture(negative), picture_of_hrv(hrv)
    patched, controlled = ConceptStrengthen.execute(
        model=model,
        conditioning=positive,
        hrv=hrv,
        words="red",
        concept="Color",
        strength=1.0,
        start=0.0,
        end=1.0,
        clamp=0.0,
    ).result
    between = picture_of_model(patched), picture(controlled)
    again, adjusted = ConceptAdjust.execute(
        model=patched,
        conditioning=controlled,
        hrv=hrv,
        words="car",
        desired="Shape",
        undesired="Size",
        strength=1.0,
        start=0.0,
        end=0.5,
        clamp=0.0,
        desired_weight=2.0,
        undesired_weight=-1.0,
    ).result
    latents(again, adjusted, negative, sampler="heun")
    assert (picture_of_model(model), picture(positive), picture(negative), picture_of_hrv(hrv)) == before
    assert (picture_of_model(patched), picture(controlled)) == between
    assert controlled[0][0] is positive[0][0]
    assert [len(entry[1].get(CONTROLS_KEY, ())) for entry in (*positive, *controlled, *adjusted)] == [0, 1, 2]


COMMON: dict[str, Any] = {"strength": 0.5, "start": 0.0, "end": 0.8}
NODES: dict[str, Callable[[Any, Any, HRV], Any]] = {
    "strengthen": lambda model, prompt, hrv: ConceptStrengthen.execute(
        model=model, conditioning=prompt, hrv=hrv, words="red", concept="Color", clamp=2.0, **COMMON
    ),
    "adjust": lambda model, prompt, hrv: ConceptAdjust.execute(
        model=model,
        conditioning=prompt,
        hrv=hrv,
        words="car",
        desired="Shape",
        undesired="Size",
        clamp=2.0,
        desired_weight=2.0,
        undesired_weight=-1.0,
        **COMMON,
    ),
    "weaken": lambda model, prompt, hrv: WeakenHeads.execute(
        model=model,
        conditioning=prompt,
        hrv=hrv,
        words="*",
        concept="Color",
        order="random",
        heads=9,
        factor=-2.0,
        seed=3,
        **COMMON,
    ),
    "scale": lambda model, prompt, hrv: ScaleHeads.execute(
        model=model, conditioning=prompt, words="red", heads="mid up", factor=0.0, **COMMON
    ),
}


@pytest.mark.parametrize("node", NODES.values(), ids=NODES.keys())
def test_no_node_changes_what_it_is_given(model: Any, hrv: HRV, prompts: Any, node: Any) -> None:
    """Neither alone nor behind another control, neither when it is made nor when its outputs are sampled."""
    positive, negative = prompts
    hooked = comfy.hooks.set_hooks_for_conditioning(
        ConditioningSetArea().append(positive, 64, 64, 0, 0, 1.0)[0], comfy.hooks.create_hook_lora({}, 1.0, 0.0)
    )
    for given in (positive, hooked):
        patched, controlled = NODES["strengthen"](model, given, hrv).result
        for before_model, before_prompt in ((model, given), (patched, controlled)):
            before = picture_of_model(before_model), picture(before_prompt), picture(negative), picture_of_hrv(hrv)
            after_model, after_prompt = node(before_model, before_prompt, hrv).result
            latents(after_model, after_prompt, negative, steps=2)
            after = picture_of_model(before_model), picture(before_prompt), picture(negative), picture_of_hrv(hrv)
            assert after == before
            assert len(after_prompt[0][1][CONTROLS_KEY]) == len(before_prompt[0][1].get(CONTROLS_KEY, ())) + 1


def test_sampling_leaves_the_patched_model_as_it_was(strengthened: Any, prompts: Any) -> None:
    patched, controlled = strengthened
    before = picture_of_model(patched), picture(controlled)
    first = latents(patched, controlled, prompts[1])
    assert (picture_of_model(patched), picture(controlled)) == before
    assert torch.equal(latents(patched, controlled, prompts[1]), first)


class StopError(Exception):
    """Raised in the middle of sampling."""


def stop(step: int, *_: Any) -> None:
    if step == 1:
        raise StopError


def interrupt(step: int, *_: Any) -> None:
    """As the host's server: the interrupt is noticed when progress is reported."""
    if step == 1:
        comfy.model_management.interrupt_current_processing()
    comfy.utils.ProgressBar(3).update_absolute(step)


@pytest.fixture
def hooked_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook of the host's server (main.py, hijack_progress), without its messages to browsers."""

    def hook(value: int, total: int, preview: Any, node_id: Any = None) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)


@pytest.mark.usefixtures("hooked_progress")
@pytest.mark.parametrize(("ending", "error"), [(stop, StopError), (interrupt, InterruptProcessingException)])
def test_a_run_that_breaks_off_leaves_everything_as_before(
    strengthened: Any, model: Any, prompts: Any, ending: Any, error: type[BaseException]
) -> None:
    patched, controlled = strengthened
    expected = latents(patched, controlled, prompts[1])
    plain = latents(model, prompts[0], prompts[1])
    before = picture_of_model(patched), picture_of_model(model)
    with pytest.raises(error):
        latents(patched, controlled, prompts[1], callback=ending)
    assert (picture_of_model(patched), picture_of_model(model)) == before
    assert torch.equal(latents(patched, controlled, prompts[1]), expected)
    assert torch.equal(latents(model, prompts[0], prompts[1]), plain)
    assert not torch.equal(plain, expected)


def test_a_guider_can_be_used_again_after_a_run_that_broke_off(strengthened: Any, prompts: Any) -> None:
    patched, controlled = strengthened
    guider = comfy.samplers.CFGGuider(patched)
    guider.set_conds(controlled, prompts[1])
    guider.set_cfg(4.0)
    options = guider.model_options
    before = picture(options)
    sigmas = comfy.samplers.calculate_sigmas(patched.get_model_object("model_sampling"), "normal", 3)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def run(callback: Any = None) -> torch.Tensor:
        sampler = comfy.samplers.sampler_object("euler")
        return guider.sample(noise, torch.zeros(1, 4, 8, 8), sampler, sigmas, callback=callback, disable_pbar=True)

    first = run()
    with pytest.raises(StopError):
        run(stop)
    assert guider.model_options is options and picture(options) == before
    assert torch.equal(run(), first)


def runs_alive() -> int:
    gc.collect()
    return sum(type(thing) is ControlledRun for thing in gc.get_objects())


def test_the_state_of_a_run_dies_with_it(strengthened: Any, prompts: Any) -> None:
    alive: list[int] = []

    def count(step: int, *_: Any) -> None:
        alive.append(runs_alive())
        if len(alive) == 2:
            raise StopError

    patched, controlled = strengthened
    with contextlib.suppress(StopError):
        latents(patched, controlled, prompts[1], callback=count)
    assert alive == [1, 1]
    assert runs_alive() == 0
