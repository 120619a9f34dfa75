"""Weakened and scaled heads on real UNets against explicit float64 maps, and which occurrence controls act on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hrv_pack.host.prompts.carried import CONTROLS_KEY
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.relevance.orders import head_order
from hrv_pack.nodes.controls import ConceptAdjust, ConceptStrengthen
from hrv_pack.nodes.head_controls import ScaleHeads, WeakenHeads
from hrv_pack.tests.support.small_host import (
    Rescaling,
    Setup,
    UNetRow,
    encoded,
    latents,
    relative_error,
    unet_rows,
    with_explicit_maps,
)

PROMPT = "a red car and a skyscrapers view"
WORDS = tuple(range(1, 10))
SKYSCRAPERS = (6, 7, 8)
TOLERANCE = 1e-5


def weakened(setup: Setup, conditioning: Any = None, **changes: Any) -> tuple[Any, Any]:
    settings: dict[str, Any] = {
        "words": "*",
        "concept": "Color",
        "order": "most relevant first",
        "heads": 5,
        "factor": -2.0,
        "strength": 1.0,
        "start": 0.0,
        "end": 1.0,
        "seed": 0,
    }
    return WeakenHeads.execute(
        model=setup.model, conditioning=conditioning or setup.prompt, hrv=setup.hrv, **{**settings, **changes}
    ).result


def scaled(setup: Setup, conditioning: Any = None, **changes: Any) -> tuple[Any, Any]:
    settings: dict[str, Any] = {
        "words": "*",
        "heads": "mid",
        "factor": 0.0,
        "strength": 1.0,
        "start": 0.0,
        "end": 1.0,
    }
    return ScaleHeads.execute(
        model=setup.model, conditioning=conditioning or setup.prompt, **{**settings, **changes}
    ).result


def explicit(
    setup: Setup,
    factors: np.ndarray,
    positions: tuple[int, ...] = WORDS,
    *,
    window: tuple[float, float] = (0.0, 1.0),
    prompt: Any = None,
    dtype: torch.dtype = torch.float64,
) -> Any:
    context = (prompt or setup.prompt)[0][0][0]
    return with_explicit_maps(setup.model, [Rescaling(context, positions, factors, window)], dtype)


def factors_of(count: int, heads: Iterable[int], factor: float) -> np.ndarray:
    factors = np.ones(count)
    factors[list(heads)] = factor
    return factors


def assert_rows_follow(setup: Setup, factors: np.ndarray, found: Sequence[UNetRow]) -> None:
    """The rows are those of explicit maps with these factors in float64, up to twice what float32 does to them in a
    network this deep; the negative ones bit-equal to, the others far from those without a control.
    """
    plain = unet_rows(setup.model, setup.prompt, setup.negative)
    exact, rounded = (
        unet_rows(explicit(setup, factors, dtype=dtype), setup.prompt, setup.negative)
        for dtype in (torch.float64, torch.float32)
    )
    assert len(found) == len(exact) == len(plain) > 0
    for one, other, single, without in zip(found, exact, rounded, plain, strict=True):
        tolerance = max(TOLERANCE, 2 * relative_error(single.output, other.output))
        assert tolerance <= 10 * TOLERANCE
        assert relative_error(one.output, other.output) <= tolerance
        if one.negative:
            assert torch.equal(one.output, without.output)
        else:
            assert relative_error(one.output, without.output) > 100 * TOLERANCE


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("order", ["most relevant first", "least relevant first", "random"])
def test_weakening_multiplies_all_words_in_the_first_heads(
    request: pytest.FixtureRequest, kind: str, order: str
) -> None:
    setup: Setup = request.getfixturevalue(kind)
    values = setup.hrv.values[setup.hrv.concepts.index("Shape")]
    heads = {
        "most relevant first": np.argsort(-values, kind="stable")[:5],
        "least relevant first": np.argsort(-values, kind="stable")[-5:],
        "random": head_order(setup.hrv, "Shape", "random", 7)[:5],
    }[order]
    factors = factors_of(len(values), heads, -2.0)
    found = unet_rows(*weakened(setup, concept="Shape", order=order, seed=7), setup.negative)
    assert_rows_follow(setup, factors, found)


def test_weakening_takes_any_factor_strength_window_and_word(sd15: Setup) -> None:
    heads = np.argsort(-sd15.hrv.values[0], kind="stable")[:20]
    model, positive = weakened(sd15, words="skyscrapers", heads=20, factor=-4.0, strength=0.5, start=0.25, end=0.75)
    factors = factors_of(56, heads, 1 + 0.5 * (-4.0 - 1))
    exact = explicit(sd15, factors, SKYSCRAPERS, window=(0.25, 0.75))
    found = latents(model, positive, sd15.negative, steps=4)
    expected = latents(exact, sd15.prompt, sd15.negative, steps=4)
    assert relative_error(found, expected) <= 10 * TOLERANCE
    assert relative_error(latents(sd15.model, sd15.prompt, sd15.negative, steps=4), expected) > 100 * TOLERANCE


@pytest.mark.parametrize(
    ("kind", "heads", "chosen"),
    [
        ("sd15", "mid", range(16, 24)),
        ("sd15", "down3:0,2-3 UP0-1:7", [8, 10, 11, 31, 39]),
        ("sd15", "all !mid !up", range(16)),
        ("sdxl", "down5.1:1\nmid.0;up1", [4, 5, 6, 13, 14, 15, 16]),
    ],
)
def test_scaling_multiplies_all_words_in_the_named_heads(
    request: pytest.FixtureRequest, kind: str, heads: str, chosen: Sequence[int]
) -> None:
    setup: Setup = request.getfixturevalue(kind)
    factors = factors_of(setup.hrv.layout.head_count, chosen, -1.5)
    found = unet_rows(*scaled(setup, heads=heads, factor=-1.5), setup.negative)
    assert_rows_follow(setup, factors, found)


def test_a_scaled_negative_prompt_leaves_the_positive_alone(sd15: Setup) -> None:
    model, negative = scaled(sd15, heads="up", factor=3.0, words="red, car")
    exact = explicit(sd15, factors_of(56, range(24, 56), 3.0), (2, 3))
    found = unet_rows(model, sd15.negative, negative)
    plain = unet_rows(sd15.model, sd15.negative, sd15.prompt)
    expected = unet_rows(exact, sd15.negative, sd15.prompt)
    assert any(row.negative for row in found) and len(found) == len(plain)
    for one, other, without in zip(found, expected, plain, strict=True):
        assert relative_error(one.output, other.output) <= TOLERANCE
        assert torch.equal(one.output, without.output) != one.negative


def test_controls_of_all_kinds_multiply_in_any_order_of_nodes(sd15: Setup) -> None:
    strengthen: dict[str, Any] = {
        "hrv": sd15.hrv,
        "words": "red",
        "concept": "Color",
        "strength": 0.5,
        "start": 0.0,
        "end": 1.0,
        "clamp": 0.0,
    }
    model, positive = weakened(sd15, heads=9, factor=0.0)
    model_1, positive_1 = ConceptStrengthen.execute(model=model, conditioning=positive, **strengthen).result
    model, positive = ConceptStrengthen.execute(model=sd15.model, conditioning=sd15.prompt, **strengthen).result
    model_2, positive_2 = WeakenHeads.execute(
        model=model,
        conditioning=positive,
        hrv=sd15.hrv,
        words="*",
        concept="Color",
        order="most relevant first",
        heads=9,
        factor=0.0,
        strength=1.0,
        start=0.0,
        end=1.0,
        seed=0,
    ).result
    found = latents(model_1, positive_1, sd15.negative)
    assert torch.equal(found, latents(model_2, positive_2, sd15.negative))
    weakening = factors_of(56, np.argsort(-sd15.hrv.values[0], kind="stable")[:9], 0.0)
    strengthening = 1 + 0.5 * (sd15.hrv.values[0].astype(np.float64) - 1)
    context = sd15.prompt[0][0][0]
    exact = with_explicit_maps(
        sd15.model, [Rescaling(context, WORDS, weakening), Rescaling(context, (2,), strengthening)]
    )
    assert relative_error(found, latents(exact, sd15.prompt, sd15.negative)) <= 10 * TOLERANCE


def test_controls_of_no_head_or_a_factor_of_1_are_bit_equal_to_none(sd15: Setup) -> None:
    plain = latents(sd15.model, sd15.prompt, sd15.negative)
    for model, positive in (
        weakened(sd15, heads=0),
        weakened(sd15, heads=56, factor=1.0),
        weakened(sd15, strength=0.0),
        weakened(sd15, words=""),
        scaled(sd15, heads=""),
        scaled(sd15, heads="mid !mid"),
        scaled(sd15, factor=1.0),
        scaled(sd15, start=0.5, end=0.5),
    ):
        assert torch.equal(latents(model, positive, sd15.negative), plain)


def test_all_words_of_an_empty_prompt_are_none(sd15: Setup) -> None:
    empty = encoded(sd15.clip, "")
    model, positive = scaled(sd15, conditioning=empty, heads="all")
    assert torch.equal(latents(model, positive, sd15.negative), latents(sd15.model, empty, sd15.negative))


def test_all_words_go_on_in_further_chunks(sd15: Setup) -> None:
    long = encoded(sd15.clip, "red " * 80)
    model, positive = scaled(sd15, conditioning=long, heads="all", factor=0.5)
    exact = explicit(sd15, np.full(56, 0.5), (*range(1, 76), *range(78, 83)), prompt=long)
    found = latents(model, positive, sd15.negative)
    assert relative_error(found, latents(exact, long, sd15.negative)) <= 10 * TOLERANCE


def positions(result: tuple[Any, Any]) -> tuple[int, ...]:
    (control,) = result[1][0][1][CONTROLS_KEY]
    return control.positions


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, (1, 5)), ({"occurrence": "all"}, (1, 5)), ({"occurrence": "first"}, (1,)), ({"occurrence": "2"}, (5,))],
)
def test_every_control_takes_an_occurrence(sd15: Setup, given: dict[str, Any], expected: tuple[int, ...]) -> None:
    model, prompt, hrv = sd15.model, sd15.prompt, sd15.hrv
    common: dict[str, Any] = {
        "model": model,
        "conditioning": prompt,
        "hrv": hrv,
        "words": "a",
        "strength": 1.0,
        "start": 0.0,
        "end": 1.0,
        "clamp": 0.0,
        **given,
    }
    assert positions(weakened(sd15, words="A", **given)) == expected
    assert positions(scaled(sd15, words="a", **given)) == expected
    assert positions(ConceptStrengthen.execute(concept="Color", **common).result) == expected
    adjusted = ConceptAdjust.execute(
        desired="Color", undesired="Shape", desired_weight=2.0, undesired_weight=-1.0, **common
    )
    assert positions(adjusted.result) == expected


def test_one_occurrence_is_scaled_alone(sd15: Setup) -> None:
    model, positive = scaled(sd15, words="a", heads="all", occurrence="2")
    exact = explicit(sd15, np.zeros(56), (5,))
    found = latents(model, positive, sd15.negative)
    assert relative_error(found, latents(exact, sd15.prompt, sd15.negative)) <= 10 * TOLERANCE
    assert relative_error(found, latents(explicit(sd15, np.zeros(56), (1, 5)), sd15.prompt, sd15.negative)) > 1e-3


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"heads": 57}, r"56 heads in 7 .* 0 to 56 heads can be weakened, not 57\."),
        ({"concept": "Colour"}, r"Did you mean Color\?"),
        ({"words": "tree"}, r'does not contain "tree"\. Its words are: "a", "red"'),
        ({"words": "red", "occurrence": "2"}, '"red" only once, so there is no occurrence 2'),
        ({"words": "*", "occurrence": "both"}, '"all", "first" or a number from 1'),
        ({"start": 0.8, "end": 0.2}, r"not from 0\.8 to 0\.2"),
    ],
)
def test_bad_weakening_is_refused(sd15: Setup, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(HRVError, match=sentence):
        weakened(sd15, **changes)


@pytest.mark.parametrize(
    ("heads", "sentence"),
    [
        ("mid up9", r"'up9' picks no layer of this model\. There are up0\.0, up1\.0, up2\.0, up3\.0\."),
        ("mid:8", r"'mid:8' names head 8, but the heads of mid\.0 are 0 to 7"),
        ("middle", "'middle' isn't a set of heads"),
    ],
)
def test_heads_that_the_model_does_not_have_are_refused(sd15: Setup, heads: str, sentence: str) -> None:
    with pytest.raises(HRVError, match=sentence):
        scaled(sd15, heads=heads)


def test_weakening_needs_an_hrv_of_the_models_layout(sd15: Setup, sdxl: Setup) -> None:
    with pytest.raises(HRVError, match=r"another kind of model\. HRV: 19 heads in 11"):
        weakened(replace(sd15, hrv=sdxl.hrv))
