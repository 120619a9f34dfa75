"""What the inputs of the editing nodes mean where they meet, and what is refused because it would do nothing."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hrv_pack.host.prompts.carried import ROWS_KEY
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.nodes.local_blend import EditMask, LocalBlend
from hrv_pack.tests.support.explicit_edits import prompt_edit, words_edit
from hrv_pack.tests.support.small_host import encoded

from nodes import KSampler

SOURCE, TARGET = "a red car and a tree", "a blue car and a tree"


@pytest.fixture(scope="module")
def source(clip: Any) -> Any:
    return encoded(clip, SOURCE)


@pytest.fixture(scope="module")
def target(clip: Any) -> Any:
    return encoded(clip, TARGET)


def blended(edited: tuple[Any, ...], words: str = "", size: float = 1.0) -> tuple[Any, Any]:
    return LocalBlend.execute(edited[1], edited[2], words, threshold=0.3, start=0.2, end=1.0, size=size).result


def test_a_concept_on_single_words_has_the_windows_of_p2p_hrv(model: Any, source: Any, target: Any, hrv: HRV) -> None:
    for given, end in ((words_edit(target, "blue", hrv=hrv, concept="Color"), 0.9), (words_edit(target, "blue"), 0.4)):
        (edited,) = prompt_edit(model, source, given, self_end=-1.0)[1]
        assert edited[1][ROWS_KEY].rows[1].edit.windows.itself.end == end


def test_what_would_be_lost_on_a_source_is_refused(model: Any, source: Any, target: Any) -> None:
    with pytest.raises(HRVError, match="source comes from Edit Words, which has no effect there"):
        prompt_edit(model, words_edit(source, "red", weight=2.0), target)
    edited = prompt_edit(model, source, target)
    positive, latent = blended(edited)
    with pytest.raises(HRVError, match="source comes from Local Blend, which this Prompt Edit would lose"):
        prompt_edit(model, positive, target, latent)
    with pytest.raises(HRVError, match="already has a local blend"):
        blended((None, positive, latent))


def test_every_edit_needs_a_place(model: Any, clip: Any, source: Any, target: Any) -> None:
    first = prompt_edit(model, source, target)
    both = prompt_edit(model, first[1], encoded(clip, "a red car and a house"), first[2])
    with pytest.raises(HRVError, match=r"Edit 1 \('a blue car and a tree'\) .* none of the words house"):
        blended(both, "house")
    blended(both, "house, blue")
    blended(both, "tree")
    with pytest.raises(HRVError, match=r"above 0 and at most 1, not 0\.0"):
        blended(first, size=0.0)


def test_a_blend_that_sees_nothing_says_so(
    model: Any, source: Any, target: Any, caplog: pytest.LogCaptureFixture
) -> None:
    edited = prompt_edit(model, source, target, cross_end=0.6)
    positive, rows = blended(edited, size=0.01)
    (latent,) = KSampler().sample(edited[0], 1, 2, 4.0, "euler", "normal", positive, source, rows)
    assert "Local Blend saw no place in this run" in caplog.text
    with pytest.raises(HRVError, match="raise it"):
        EditMask.execute(latent)


def test_an_hrv_with_nothing_to_decide_is_checked_and_said(model: Any, clip: Any, hrv: HRV) -> None:
    source, shorter = encoded(clip, SOURCE), encoded(clip, "a car and a tree")
    with pytest.raises(HRVError, match="Sound"):
        prompt_edit(model, source, shorter, hrv=hrv, concept="Sound")
    assert "has nothing to decide" in prompt_edit(model, source, shorter, hrv=hrv, concept="Color")[3]
    assert "has nothing to decide" not in prompt_edit(model, shorter, source, hrv=hrv, concept="Color")[3]


def test_a_start_needs_an_end(target: Any) -> None:
    with pytest.raises(HRVError, match=r"start is 0\.5, but end is -1"):
        words_edit(target, "blue", start=0.5)


def test_no_words_pass_through(target: Any) -> None:
    assert words_edit(target, "", weight=5.0) == target


def test_messages_name_the_input(model: Any, source: Any, target: Any) -> None:
    with pytest.raises(HRVError, match=r"'rad -> blue' does not fit the source: The prompt does not contain .rad"):
        prompt_edit(model, source, target, pairs="rad -> blue")
    with pytest.raises(HRVError, match=r"self_start and self_end: .*from 0\.5 to 0\.2"):
        prompt_edit(model, source, target, self_start=0.5, self_end=0.2)


def test_merged_positions_are_left_out_and_said(
    model: Any, source: Any, target: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from comfy_extras.nodes_tomesd import TomePatchModel

    merging = TomePatchModel.execute(model, 0.5).result[0]
    edited = prompt_edit(merging, source, target, self_end=0.8, self_size=1.0)
    with caplog.at_level(logging.WARNING):
        KSampler().sample(edited[0], 1, 2, 4.0, "euler", "normal", edited[1], source, edited[2])
    assert "merges image positions" in caplog.text
