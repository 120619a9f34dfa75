"""A mix that cannot be honoured is said once in a run: in the log, and on the node that samples."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from comfy_execution.utils import CurrentNodeContext
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.nodes.controls import ConceptStrengthen
from hrv_pack.nodes.tokens import ConditioningConcat
from hrv_pack.tests.support.small_host import encoded, latents, random_hrv

from nodes import ConditioningConcat as HostConcat

Shown = list[tuple[str, str, str]]


def controlled(model: Any, prompt: Any) -> tuple[Any, Any]:
    return ConceptStrengthen.execute(
        model=model,
        conditioning=prompt,
        hrv=random_hrv(head_layout(model)),
        words="red",
        concept="Color",
        strength=1.0,
        start=0.0,
        end=1.0,
        clamp=0.0,
    ).result


def rearranged(model: Any) -> Any:
    """Rows in an order that nobody explains."""

    def before(q: Any, k: Any, v: Any, extra: dict[str, Any]) -> Any:
        extra["cond_or_uncond_couple"] = [0] * len(extra["cond_or_uncond"])
        return q, k, v

    clone = model.clone()
    clone.set_model_attn2_patch(before)
    return clone


def test_what_a_run_leaves_out_is_said_once_on_the_node_that_samples(
    model: Any, clip: Any, shown: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    negative = encoded(clip, "ugly")
    patched, positive = controlled(model, encoded(clip, "a red car"))
    (joined,) = HostConcat().concat(encoded(clip, "a car"), positive)
    for given_model, given, sentence in (
        (
            patched,
            joined,
            "strengthen Color: on no prompt of this run. Conditioning (Concat) keeps only the controls of",
        ),
        (rearranged(patched), positive, "Another node changed how prompts share the rows of the batch"),
    ):
        for node in ("7", "12:3"):
            shown.clear()
            caplog.clear()
            with caplog.at_level(logging.WARNING), CurrentNodeContext("a prompt", node):
                latents(given_model, given, negative, sampler="heun", steps=4)
            ((text, on, page),) = shown
            assert text.startswith(f"HRV: {sentence}") and (on, page) == (node, "page")
            logged = [record.message for record in caplog.records if record.message.startswith("[HRV]")]
            assert logged == [text.replace("HRV:", "[HRV]", 1)]


def test_what_is_honoured_is_silent(model: Any, clip: Any, shown: Shown, caplog: pytest.LogCaptureFixture) -> None:
    patched, positive = controlled(model, encoded(clip, "a red car"))
    with caplog.at_level(logging.WARNING), CurrentNodeContext("a prompt", "7"):
        latents(patched, positive, encoded(clip, "ugly"))
    assert shown == [] and "[HRV]" not in caplog.text


def test_entries_that_a_join_leaves_out_are_said_on_its_node(
    clip: Any, shown: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    several = [*encoded(clip, "a boat"), *encoded(clip, "a tree")]
    with caplog.at_level(logging.WARNING), CurrentNodeContext("a prompt", "4"):
        (joined,) = ConditioningConcat.execute(encoded(clip, "a car"), several).result
    ((text, node, _),) = shown
    assert node == "4" and text == "HRV: conditioning_from has 2 entries; only the first is appended."
    assert text.replace("HRV:", "[HRV]", 1) in caplog.text
    (expected,) = HostConcat().concat(encoded(clip, "a car"), several)
    assert torch.equal(joined[0][0], expected[0][0])
