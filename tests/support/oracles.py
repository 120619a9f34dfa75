"""The tests that decide what each family is said to do: each capability against an implementation of its own.

Imported as ``hrv_pack.tests.support.oracles``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ...host.models.capabilities import Capability
from ..host.attend_and_excite import test_run as excitement_of_unets
from ..host.attend_and_excite import test_transformers as excitement
from ..host.building import (
    test_attribution,
    test_build,
    test_transformer_recording,
    test_transformer_values,
    test_value_contrast,
)
from ..host.building import test_transformers as building
from ..host.controls import test_controls, test_reading, test_transformer_readings
from ..host.controls import test_transformers as controls
from ..host.editing import test_blending, test_prompts
from ..host.editing import test_transformers as editing
from ..host.weakening import test_run as weakening_of_unets
from ..host.weakening import test_transformers as weakening
from .small_transformers import Kind

Test = Callable[..., None]

OF_UNETS: Mapping[Capability, Test] = {
    Capability.CONTROLS: test_controls.test_controls_multiply_the_columns_of_the_maps,
    Capability.READING: test_reading.test_heads_mix_what_they_find_in_both_prompts,
    Capability.CAUSAL: test_attribution.test_effects_are_those_of_the_explicit_network,
    Capability.VALUES: test_value_contrast.test_values_are_those_of_the_definition,
    Capability.WEAKENING: weakening_of_unets.test_every_image_is_made_once_and_scored_where_it_belongs,
    Capability.RECORDING: test_build.test_counts_equal_those_of_explicit_maps,
    Capability.EDITING: test_prompts.test_changed_words_keep_their_own_maps_by_the_heads_of_a_concept,
    Capability.BLENDING: test_blending.test_outside_the_mask_the_edit_is_its_source,
    Capability.EXCITEMENT: excitement_of_unets.test_loss_and_gradient_equal_an_explicit_implementation,
}

OF_TRANSFORMERS: Mapping[Capability, Test] = {
    Capability.CONTROLS: controls.test_image_queries_see_rescaled_columns_and_nothing_else_changes,
    Capability.READING: test_transformer_readings.test_heads_mix_what_they_find_in_both_prompts,
    Capability.CAUSAL: building.test_patching_some_heads_is_what_explicit_maps_give,
    Capability.VALUES: test_transformer_values.test_values_are_those_of_the_definition,
    Capability.WEAKENING: weakening.test_images_are_those_of_the_nodes,
    Capability.RECORDING: test_transformer_recording.test_counts_are_those_of_explicit_maps,
    Capability.EDITING: editing.test_a_target_has_the_columns_of_its_source,
    Capability.EXCITEMENT: excitement.test_loss_and_gradient_equal_an_explicit_implementation,
}


def kinds_of(test: Test) -> set[Kind]:
    """The small transformers with which a test runs; none if it may be skipped or may fail."""
    marks: list[Any] = getattr(test, "pytestmark", [])
    if any(mark.name in ("skip", "skipif", "xfail") for mark in marks):
        return set()
    return {kind for mark in marks if mark.name == "parametrize" for kind in _kinds_in(mark.args[1])}


def _kinds_in(values: Any) -> Iterator[Kind]:
    """Those of a parametrisation whose values have no marks of their own."""
    for value in values:
        yield from (one for one in (value if type(value) is tuple else (value,)) if isinstance(one, Kind))
