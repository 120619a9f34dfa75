"""Controls and the host's nodes that change a conditioning: the same images whichever node comes first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest
import torch
from hrv_pack.nodes.controls import ConceptStrengthen
from hrv_pack.tests.support.small_host import (
    Rescaling,
    Setup,
    encoded,
    latents,
    relative_error,
    small_clip_sd15,
    small_sd15,
    with_explicit_maps,
)

from nodes import (
    ConditioningAverage,
    ConditioningCombine,
    ConditioningConcat,
    ConditioningSetArea,
    ConditioningSetAreaPercentage,
    ConditioningSetAreaStrength,
    ConditioningSetMask,
    ConditioningSetTimestepRange,
)

RED = (2,)
TOLERANCE = 1e-4
SIZE = 16

Node = Callable[[Any], Any]


@dataclass(frozen=True)
class TwoPrompts(Setup):
    @cached_property
    def other(self) -> Any:
        return encoded(self.clip, "a tree")

    def controlled(self, prompt: Any) -> tuple[Any, Any]:
        """Behind Apply Concept Strengthen."""
        return ConceptStrengthen.execute(
            model=self.model,
            conditioning=prompt,
            hrv=self.hrv,
            words="red",
            concept="Color",
            strength=1.0,
            start=0.0,
            end=0.8,
            clamp=0.0,
        ).result

    def explicit(self, *contexts: torch.Tensor) -> Any:
        """The model with the same control on explicit maps, of rows with these contexts."""
        factors = self.hrv.row("Color")
        return with_explicit_maps(self.model, [Rescaling(rows, RED, factors, (0.0, 0.8)) for rows in contexts])

    def sampled(self, model: Any, *prompts: Any) -> torch.Tensor:
        return latents(model, [entry for prompt in prompts for entry in prompt], self.negative, steps=4, size=SIZE)


@pytest.fixture(scope="module")
def setup() -> TwoPrompts:
    return TwoPrompts.of(small_sd15(), small_clip_sd15(), "a red car")


def left_half(conditioning: Any, how: str) -> Any:
    mask = torch.zeros(1, SIZE, SIZE)
    mask[..., : SIZE // 2] = 1.0
    return ConditioningSetMask().append(conditioning, mask, how, 0.9)[0]


# What one node makes of one prompt. Elsewhere, and at other times, another prompt fills the image.
OF_ONE: dict[str, Node] = {
    "area": lambda prompt: ConditioningSetArea().append(prompt, 64, 128, 0, 0, 1.0)[0],
    "area in percent": lambda prompt: ConditioningSetAreaPercentage().append(prompt, 0.5, 1.0, 0.5, 0.0, 1.0)[0],
    "area's strength": lambda prompt: ConditioningSetAreaStrength().append(prompt, 0.6)[0],
    "mask": lambda prompt: left_half(prompt, "default"),
    "mask's bounds": lambda prompt: left_half(prompt, "mask bounds"),
    "the beginning": lambda prompt: ConditioningSetTimestepRange().set_range(prompt, 0.0, 0.6)[0],
    "the end": lambda prompt: ConditioningSetTimestepRange().set_range(prompt, 0.3, 1.0)[0],
    "area, mask and range": lambda prompt: ConditioningSetTimestepRange().set_range(
        left_half(ConditioningSetArea().append(prompt, 96, 128, 0, 0, 1.0)[0], "default"), 0.0, 0.7
    )[0],
}


@pytest.mark.parametrize("node", OF_ONE.values(), ids=OF_ONE.keys())
def test_a_control_in_front_of_a_node_and_behind_it(setup: TwoPrompts, node: Node) -> None:
    model, in_front = setup.controlled(setup.prompt)
    found = setup.sampled(model, node(in_front), setup.other)
    model, behind = setup.controlled(node(setup.prompt))
    assert torch.equal(found, setup.sampled(model, behind, setup.other))
    expected = setup.sampled(setup.explicit(setup.prompt[0][0][0]), node(setup.prompt), setup.other)
    assert relative_error(found, expected) <= TOLERANCE
    assert relative_error(setup.sampled(setup.model, node(setup.prompt), setup.other), expected) > 100 * TOLERANCE
    assert relative_error(setup.sampled(model, in_front, setup.other), expected) > 10 * TOLERANCE


WITH_ANOTHER: dict[str, Callable[[Any, Any], Any]] = {
    "concat": lambda prompt, other: ConditioningConcat().concat(prompt, other)[0],
    "average": lambda prompt, other: ConditioningAverage().addWeighted(prompt, other, 0.6)[0],
    "average of a longer one": lambda prompt, other: ConditioningAverage().addWeighted(
        prompt, ConditioningConcat().concat(other, other)[0], 0.6
    )[0],
}


@pytest.mark.parametrize("node", WITH_ANOTHER.values(), ids=WITH_ANOTHER.keys())
def test_a_control_in_front_of_a_node_that_takes_another_prompt_and_behind_it(
    setup: TwoPrompts, node: Callable[[Any, Any], Any]
) -> None:
    plain = node(setup.prompt, setup.other)
    model, in_front = setup.controlled(setup.prompt)
    found = setup.sampled(model, node(in_front, setup.other))
    model, behind = setup.controlled(plain)
    assert torch.equal(found, setup.sampled(model, behind))
    expected = setup.sampled(setup.explicit(plain[0][0][0]), plain)
    assert relative_error(found, expected) <= TOLERANCE
    assert relative_error(setup.sampled(setup.model, plain), expected) > 100 * TOLERANCE


def test_a_control_in_front_of_combine_and_behind_it(setup: TwoPrompts) -> None:
    """Behind it the control is on both prompts, so both need it in front."""
    second = encoded(setup.clip, "a red tree")
    (plain,) = ConditioningCombine().combine(setup.prompt, second)
    model, one = setup.controlled(setup.prompt)
    model, two = setup.controlled(second)
    (in_front,) = ConditioningCombine().combine(one, two)
    found = setup.sampled(model, in_front)
    model, behind = setup.controlled(plain)
    assert torch.equal(found, setup.sampled(model, behind))
    expected = setup.sampled(setup.explicit(setup.prompt[0][0][0], second[0][0][0]), plain)
    assert relative_error(found, expected) <= TOLERANCE
    assert relative_error(setup.sampled(setup.model, plain), expected) > 100 * TOLERANCE
    (one_alone,) = ConditioningCombine().combine(one, second)
    assert relative_error(setup.sampled(model, one_alone), expected) > 10 * TOLERANCE


def test_a_control_in_front_of_rows_of_a_batch_and_behind_them(setup: TwoPrompts) -> None:
    """Rows of their own in one tensor: the words lie where the first prompt has them."""
    second = encoded(setup.clip, "a red tree")

    def rows(prompt: Any) -> Any:
        return [[torch.cat([prompt[0][0], second[0][0]]), prompt[0][1]]]

    def sampled(model: Any, prompt: Any) -> torch.Tensor:
        return latents(model, prompt, setup.negative, steps=4, seeds=(5, 6))

    model, in_front = setup.controlled(setup.prompt)
    found = sampled(model, rows(in_front))
    model, behind = setup.controlled(rows(setup.prompt))
    assert torch.equal(found, sampled(model, behind))
    expected = sampled(setup.explicit(setup.prompt[0][0][0], second[0][0][0]), rows(setup.prompt))
    assert relative_error(found, expected) <= TOLERANCE
    assert relative_error(sampled(setup.model, rows(setup.prompt)), expected) > 100 * TOLERANCE
