"""Controls in transformers, against explicit float64 maps of the host's own layers."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from hrv_pack.host.mechanism import add_control, add_reading
from hrv_pack.host.models.families.overriding import SLOT
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.prompts.carried import Conditioning
from hrv_pack.hrv.controls.control import strengthen
from hrv_pack.hrv.controls.reading import Reading
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.progress import WHOLE, Window
from hrv_pack.tests.support.compiling import compiled_and_counted
from hrv_pack.tests.support.small_host import TOLERANCE, encoded, picture_of_model, random_hrv, relative_error
from hrv_pack.tests.support.small_transformers import (
    ANIMA,
    FLUX,
    FLUX_2,
    QWEN_IMAGE,
    SHALLOW_ANIMA,
    SHALLOW_Z_IMAGE,
    WAN_FROM_IMAGES,
    Z_IMAGE,
    Kind,
    Rescaling,
    Row,
    each_kind,
    explicitly,
    prompt,
    rows_of,
    small,
    small_clip_anima,
    small_clip_flux,
    with_changed_weight,
)

WORDS = ("a", "red", "car", "and", "tree")


def controlled(
    model: Any, conditioning: Conditioning, words: Sequence[str], concept: str = "Color", **settings: Any
) -> tuple[Any, Conditioning]:
    """A MODEL and a conditioning whose words are strengthened by a concept of a random HRV."""
    hrv = random_hrv(head_layout(model))
    given = {"strength": 1.5, "window": WHOLE, "clamp": None, **settings}
    return add_control(model, conditioning, words, lambda positions: strengthen(hrv, concept, positions, **given))


def rescaling(
    model: Any, row: Row, positions: tuple[int, ...], concept: str = "Color", steps: tuple[int, ...] = (0, 1)
) -> Rescaling:
    """What :func:`controlled` shall do to rows with this one's context."""
    factors = 1.0 + 1.5 * (random_hrv(head_layout(model)).row(concept).astype(np.float64) - 1.0)
    return Rescaling(row.context, positions, factors, steps)


def assert_close(found: Sequence[Row], expected: Sequence[Row], tolerance: float = TOLERANCE) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert (one.step, one.negative) == (other.step, other.negative) and torch.equal(one.context, other.context)
        assert relative_error(one.output, other.output) <= tolerance


def assert_changed(found: Sequence[Row], plain: Sequence[Row]) -> None:
    """Positive rows changed, negative ones are bit-equal."""
    for one, other in zip(found, plain, strict=True):
        assert torch.equal(one.output, other.output) == one.negative
        assert one.negative or relative_error(one.output, other.output) > 100 * TOLERANCE


@each_kind
@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_image_queries_see_rescaled_columns_and_nothing_else_changes(kind: Kind, cfg: float) -> None:
    model, own, negative = small(kind), prompt(WORDS, seed=1), prompt(("ugly",), seed=2)
    run: dict[str, Any] = {"latent": kind.latent, "cfg": cfg, "seeds": (5, 6)}
    plain = rows_of(model, own, negative, **run)
    assert sum(not row.negative for row in plain) == 4 and sum(row.negative for row in plain) == (4 if cfg > 1 else 0)
    with_one, once = controlled(model, own, ["red", "tree"])
    with_both, twice = controlled(with_one, once, ["car"], concept="Shape")
    found = rows_of(with_both, twice, negative, **run)
    assert_changed(found, plain)
    positive = next(row for row in plain if not row.negative)
    padding = max(0, kind.padded_to - own[0][0].shape[1])
    shall = [
        rescaling(model, positive, (padding + 2, padding + 5)),
        rescaling(model, positive, (padding + 3,), concept="Shape"),
    ]
    with explicitly(model, kind, shall) as explicit:
        assert_close(found, rows_of(explicit, own, negative, **run))


@each_kind
def test_controls_that_are_off_change_no_bit(kind: Kind) -> None:
    model, own, negative = small(kind), prompt(WORDS, seed=1), prompt(("ugly",), seed=2)
    plain = rows_of(model, own, negative, kind.latent)
    # Strength 0, no words, and a window that no step of the run is in.
    for words, settings in ((["car"], {"strength": 0.0}), ([], {}), (["car"], {"window": Window(0.4, 0.6)})):
        found = rows_of(*controlled(model, own, words, **settings), negative, kind.latent)
        for one, other in zip(found, plain, strict=True):
            assert torch.equal(one.output, other.output)


@each_kind
def test_a_window_acts_in_its_steps_alone(kind: Kind) -> None:
    model, own, negative = small(kind), prompt(WORDS, seed=1), prompt(("ugly",), seed=2)
    plain = rows_of(model, own, negative, kind.latent)
    found = rows_of(*controlled(model, own, ["car"], window=Window(0.0, 0.3)), negative, kind.latent)
    for one, other in zip(found, plain, strict=True):
        assert torch.equal(one.output, other.output) == (one.negative or one.step == 1)


@each_kind
def test_of_several_prompts_only_the_controlled_one_changes(kind: Kind) -> None:
    model, negative = small(kind), prompt(("ugly",), seed=2)
    one, other, longer = prompt(WORDS, seed=1), prompt(WORDS, seed=3), prompt(WORDS, seed=4, tokens=40)
    model_of_one, controlled_one = controlled(model, one, ["car"])
    plain = rows_of(model, [*one, *other, *longer], negative, kind.latent)
    found = rows_of(model_of_one, [*controlled_one, *other, *longer], negative, kind.latent)
    alone = rows_of(model_of_one, controlled_one, negative, kind.latent, cfg=1.0)
    assert len(found) == len(plain) == 8
    for row, before in zip(found, plain, strict=True):
        is_controlled = torch.equal(row.context, alone[0].context)
        assert torch.equal(row.output, before.output) != is_controlled
        if is_controlled:
            assert relative_error(row.output, alone[row.step].output) <= TOLERANCE


def test_prompts_of_areas_and_masks_keep_their_controls() -> None:
    """Of an area the model gets a part of the latent, of a mask all of it."""
    kind, model, negative = FLUX, small(FLUX), prompt(("ugly",), seed=2)
    of_area = prompt(WORDS, seed=1, area=(4, 6, 2, 0), strength=1.0)
    of_mask = prompt(WORDS, seed=3, mask=torch.ones(1, 8, 8), mask_strength=1.0, set_area_to_bounds=False)
    plain = rows_of(model, [*of_area, *of_mask], negative, kind.latent)
    with_one, area = controlled(model, of_area, ["car"])
    with_both, mask = controlled(with_one, of_mask, ["tree"], concept="Shape")
    found = rows_of(with_both, [*area, *mask], negative, kind.latent)
    shall = []
    for context, position, concept in ((of_area[0][0][0], 3, "Color"), (of_mask[0][0][0], 5, "Shape")):
        row = next(row for row in plain if torch.equal(row.context, context) and not row.negative)
        shall.append(rescaling(model, row, (position,), concept))
    assert {tuple(row.output.shape[1:]) for row in plain} == {(4, 6), (8, 8)}
    with explicitly(model, kind, shall) as explicit:
        assert_close(found, rows_of(explicit, [*of_area, *of_mask], negative, kind.latent))
    assert_changed(found, plain)


@each_kind
def test_each_row_of_a_batch_may_have_a_prompt_of_its_own(kind: Kind) -> None:
    model, negative = small(kind), prompt(("ugly",), seed=2)
    both = prompt(WORDS, seed=1, rows=2)
    found = rows_of(*controlled(model, both, ["car"]), negative, kind.latent, seeds=(5, 6), cfg=1.0)
    for row, seed in enumerate((5, 6)):
        own = [[tensor[[row]], {**extras, "pooled_output": extras["pooled_output"][[row]]}] for tensor, extras in both]
        alone = rows_of(*controlled(model, own, ["car"]), negative, kind.latent, seeds=(seed,), cfg=1.0)
        for step in (0, 1):
            assert relative_error(found[2 * step + row].output, alone[step].output) <= TOLERANCE


@each_kind
def test_another_backend_in_the_hosts_slot_gets_every_attention(kind: Kind) -> None:
    """As sage and flash selectors put one there: before our nodes, after them, or as a hook of a conditioning does."""
    model, own, negative = small(kind), prompt(WORDS, seed=1), prompt(("ugly",), seed=2)
    expected = rows_of(*controlled(model, own, ["car"]), negative, kind.latent)
    calls: list[int] = []

    def backend(attention: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(args[0].shape[0])
        found: torch.Tensor = attention(*args, **kwargs)
        return found

    with_backend = model.clone()
    with_backend.model_options["transformer_options"][SLOT] = backend
    rows_of(with_backend, own, negative, kind.latent)
    plain_calls = len(calls)
    assert plain_calls >= 2 * len(head_layout(model).layers)
    for before in (True, False):
        calls.clear()
        controlled_model, conditioning = controlled(with_backend if before else model, own, ["car"])
        if not before:
            controlled_model.model_options["transformer_options"][SLOT] = backend
        found = rows_of(controlled_model, conditioning, negative, kind.latent)
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one.output, other.output)
        # Text queries and image queries of a joint layer are two calls.
        more = 2 * len(head_layout(model).layers) if kind.image_start else 0
        assert len(calls) == plain_calls + more


@each_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_exact_as_it_is_without_controls(kind: Kind, dtype: torch.dtype) -> None:
    model, own, negative = small(kind, dtype), prompt(WORDS, seed=1), prompt(("ugly",), seed=2)
    found = rows_of(*controlled(model, own, ["car"]), negative, kind.latent, cfg=1.0)
    padding = max(0, kind.padded_to - own[0][0].shape[1])
    plain = rows_of(model, own, negative, kind.latent, cfg=1.0)
    with explicitly(model, kind, [rescaling(model, plain[0], (padding + 3,))]) as explicit:
        expected = rows_of(explicit, own, negative, kind.latent, cfg=1.0)
    with explicitly(model, kind, []) as explicit:
        exact = rows_of(explicit, own, negative, kind.latent, cfg=1.0)
    for one, other, without, exactly in zip(found, expected, plain, exact, strict=True):
        assert torch.isfinite(one.output).all()
        limit = 2.0 * relative_error(without.output, exactly.output) + 8 * torch.finfo(dtype).eps
        assert relative_error(one.output, other.output) <= limit


@each_kind
def test_loras_act_as_they_do_without_controls(kind: Kind) -> None:
    model, own, negative = small(kind), prompt(WORDS, seed=1), prompt(("ugly",), seed=2)
    patched = with_changed_weight(model)
    before = rows_of(model, own, negative, kind.latent)
    plain = rows_of(patched, own, negative, kind.latent)
    assert not torch.equal(plain[0].output, before[0].output)
    found = rows_of(*controlled(patched, own, ["car"]), negative, kind.latent)
    assert_changed(found, plain)
    padding = max(0, kind.padded_to - own[0][0].shape[1])
    positive = next(row for row in plain if not row.negative)
    with explicitly(patched, kind, [rescaling(patched, positive, (padding + 3,))]) as explicit:
        assert_close(found, rows_of(explicit, own, negative, kind.latent))
    after = rows_of(model, own, negative, kind.latent)
    assert torch.equal(after[0].output, before[0].output)


def test_reference_images_of_z_image_are_refused() -> None:
    model, negative = small(Z_IMAGE), prompt(("ugly",), seed=2)
    references = [torch.randn(1, 16, 8, 8)]
    own = prompt(WORDS, seed=1, reference_latents=references)
    rows_of(model, own, negative, Z_IMAGE.latent, cfg=1.0)
    with pytest.raises(HRVError, match=r"Z-Image puts the texts of reference images in front of the prompt's"):
        rows_of(*controlled(model, own, ["car"]), negative, Z_IMAGE.latent, cfg=1.0)


@pytest.mark.parametrize("kind", [FLUX, FLUX_2, QWEN_IMAGE], ids=str)
def test_reference_images_count_as_image(kind: Kind) -> None:
    model, negative = small(kind), prompt(("ugly",), seed=2)
    own = prompt(WORDS, seed=1, reference_latents=[torch.randn(1, *kind.latent)])
    plain = rows_of(model, own, negative, kind.latent)
    without = rows_of(model, prompt(WORDS, seed=1), negative, kind.latent)
    assert not torch.equal(plain[0].output, without[0].output)
    found = rows_of(*controlled(model, own, ["car"]), negative, kind.latent)
    assert_changed(found, plain)
    positive = next(row for row in plain if not row.negative)
    padding = max(0, kind.padded_to - own[0][0].shape[1])
    with explicitly(model, kind, [rescaling(model, positive, (padding + 3,))]) as explicit:
        assert_close(found, rows_of(explicit, own, negative, kind.latent))


def test_wan_from_images_reads_its_start_image_as_it_was() -> None:
    kind = WAN_FROM_IMAGES
    model, negative = small(kind), prompt(("ugly",), seed=2)
    features = SimpleNamespace(penultimate_hidden_states=torch.randn(1, 257, 1280))
    own = prompt(WORDS, seed=1, clip_vision_output=features)
    plain = rows_of(model, own, negative, kind.latent, cfg=1.0)
    without = rows_of(model, prompt(WORDS, seed=1), negative, kind.latent, cfg=1.0)
    assert not torch.equal(plain[0].output, without[0].output)
    found = rows_of(*controlled(model, own, ["car"]), negative, kind.latent, cfg=1.0)
    with explicitly(model, kind, [rescaling(model, plain[0], (3,))]) as explicit:
        assert_close(found, rows_of(explicit, own, negative, kind.latent, cfg=1.0))


def test_a_run_leaves_nothing_on_the_model_and_ends_as_if_nothing_had_happened() -> None:
    model, own, negative = small(FLUX), prompt(WORDS, seed=1), prompt(("ugly",), seed=2)
    controlled_model, conditioning = controlled(model, own, ["car"])
    before = picture_of_model(controlled_model)
    plain, found = (rows_of(*made, negative, FLUX.latent) for made in ((model, own), (controlled_model, conditioning)))
    assert_changed(found, plain)

    def broken(executor: Any, *args: Any, **kwargs: Any) -> Any:
        executor(*args, **kwargs)
        raise RuntimeError("cancelled")

    stopped = controlled_model.clone()
    stopped.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "stop", broken)
    with pytest.raises(RuntimeError, match="cancelled"):
        rows_of(stopped, conditioning, negative, FLUX.latent)
    again = rows_of(controlled_model, conditioning, negative, FLUX.latent)
    assert all(torch.equal(one.output, other.output) for one, other in zip(again, found, strict=True))
    assert picture_of_model(controlled_model) == before


@pytest.mark.parametrize(("kind", "clip"), [(FLUX, small_clip_flux), (ANIMA, small_clip_anima)])
def test_words_of_a_text_encoder_are_the_columns_that_change(kind: Kind, clip: Any) -> None:
    """From the words of a prompt to attention, with the place of "car" read off T5's own tokens."""
    model, own, negative = small(kind), encoded(clip(), "a red car"), encoded(clip(), "ugly")
    ids = [token for token, *_ in clip().tokenize("a red car")["t5xxl"][0]]
    place = ids.index(clip().tokenize("car")["t5xxl"][0][0][0])
    plain = rows_of(model, own, negative, kind.latent)
    found = rows_of(*controlled(model, own, ["car"]), negative, kind.latent)
    assert_changed(found, plain)
    positive = next(row for row in plain if not row.negative)
    with explicitly(model, kind, [rescaling(model, positive, (place,))]) as explicit:
        assert_close(found, rows_of(explicit, own, negative, kind.latent))


@pytest.mark.parametrize("kind", [SHALLOW_ANIMA, SHALLOW_Z_IMAGE], ids=str)
def test_a_compiled_model_gives_the_same_and_is_compiled_once(kind: Kind) -> None:
    """One family of each kind, with a control and a reading."""
    model, own, negative = small(kind), prompt(WORDS, seed=1), prompt(("ugly",), seed=2)
    other = prompt(WORDS, seed=3)
    graph = controlled(model, own, ["car"], window=Window(0.0, 0.7))
    gates = np.ones(head_layout(model).head_count, np.float32)
    layout = head_layout(model)
    graph = add_reading(*graph, other, lambda _: Reading(gates, layout, strength=0.5))
    expected = rows_of(*graph, negative, kind.latent)
    compiled, count = compiled_and_counted(graph[0])
    found = rows_of(compiled, graph[1], negative, kind.latent)
    first = count.graphs
    again = rows_of(compiled, graph[1], negative, kind.latent)
    assert first > 0 and count.graphs == first
    for one, other_one, twice in zip(found, expected, again, strict=True):
        assert relative_error(one.output, other_one.output) <= TOLERANCE
        assert torch.equal(one.output, twice.output)
