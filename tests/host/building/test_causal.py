"""Causal builds on small models: any way to the end gives the same HRV, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from hrv_pack.host.building.attribution import Attribution
from hrv_pack.host.building.causal import CausalBuild, CausalSettings, build_causal_hrv
from hrv_pack.host.building.pair_images import NumberedPair, PairImages
from hrv_pack.host.building.patching import Patch
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.page.hrvs import given_hrv
from hrv_pack.host.work.job import Progress
from hrv_pack.hrv.building.causal_report import agreements
from hrv_pack.hrv.building.causal_state import GROUPS
from hrv_pack.hrv.building.pairs import Example, Pair, examples_of, pair_seed
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.relevance import files
from hrv_pack.hrv.relevance.arithmetic import merge
from hrv_pack.hrv.relevance.evidence import Effects
from hrv_pack.hrv.relevance.files import load_hrv, save_hrv
from hrv_pack.hrv.relevance.vectors import HRV
from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
from hrv_pack.tests.support.small_host import (
    picture_of_model,
    small_clip_refiner,
    small_clip_sd15,
    small_refiner,
    small_sd15_inpainting,
)
from hrv_pack.tests.support.told_page import statuses, told_page

EXAMPLES = examples_of(parse_vocabulary("Color: red, blue, green\nSize: tiny, huge"), ("a {word} car",))
SETTINGS = CausalSettings(
    pairs=2,
    seed=3,
    steps=2,
    cfg=2.0,
    sampler_name="euler",
    scheduler="normal",
    width=64,
    height=64,
    levels=(0.2, 0.6),
)


class Builder:
    """Builds with one model and states in one folder."""

    def __init__(self, model: Any, clip: Any, states: Path):
        self.model, self.clip, self.states = model, clip, states
        self.reports: list[Progress] = []

    def __call__(
        self,
        examples: Any = EXAMPLES,
        report: Callable[[Progress], None] | None = None,
        states: Path | None = None,
        **changes: Any,
    ) -> CausalBuild:
        self.reports = []

        def note(progress: Progress) -> None:
            self.reports.append(progress)
            if report is not None:
                report(progress)

        settings = replace(SETTINGS, **changes)
        with torch.inference_mode():
            return build_causal_hrv(
                self.model, self.clip, examples, settings, states=states or self.states, report=note
            )


@pytest.fixture
def builder(model: Any, clip: Any, tmp_path: Path) -> Builder:
    return Builder(model, clip, tmp_path / "states")


@pytest.fixture(scope="module")
def whole(model: Any, clip: Any, tmp_path_factory: pytest.TempPathFactory) -> CausalBuild:
    """The build in one piece."""
    return Builder(model, clip, tmp_path_factory.mktemp("whole"))()


def test_pairs_that_no_file_can_hold_are_refused_before_the_first(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pairs of two concepts have 1 kB of effects for 56 heads."""
    monkeypatch.setattr(files, "SIZE_LIMIT", 1_000)
    with pytest.raises(HRVError, match=r"a file holds at most 0 MB\. Take fewer pairs, or fewer concepts\."):
        builder()
    assert not builder.reports and not builder.states.exists()


def test_pairs_without_room_are_refused_before_the_first(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=1_000))
    with pytest.raises(HRVError, match=r"pixels at once need at least 0\.0 GB of memory, and this machine has 0\.0 GB"):
        builder()
    assert not builder.reports and not builder.states.exists()


def effects(hrv: HRV) -> Effects:
    assert isinstance(hrv.evidence, Effects)
    return hrv.evidence


def test_shares_of_all_heads_sum_to_about_one(whole: CausalBuild) -> None:
    scores = effects(whole.hrv).scores(2)
    assert scores.sum(axis=1) == pytest.approx([1.0, 1.0], abs=0.2)
    assert [one.complete for one in whole.report.concepts] == pytest.approx(scores.sum(axis=1).tolist())


def test_values_are_the_shares_above_zero_brought_to_an_average_head(whole: CausalBuild) -> None:
    kept = np.maximum(effects(whole.hrv).scores(2), 0)
    expected = kept / kept.sum(axis=1, keepdims=True) * whole.hrv.layout.head_count
    np.testing.assert_allclose(whole.hrv.values, expected, rtol=1e-5)


def test_the_report_tells_through_which_tokens_concepts_act_and_what_the_top_heads_do(whole: CausalBuild) -> None:
    for one in whole.report.concepts:
        assert one.pairs == one.checked == 2
        assert all(share is not None for share in one.groups.values()) and set(one.groups) == set(GROUPS)
        assert one.top is not None and one.top_true is not None
    color, size = whole.report.concepts
    assert color.different == 2 and size.different == 2


def test_words_without_a_partner_are_named_where_there_are_too_few_pairs(builder: Builder) -> None:
    colors = examples_of(parse_vocabulary("Color: red, blue, skyscraper"), ("a {word} car",))
    said = builder(colors, pairs=3).report.text()
    assert "Color has 2 different pairs" in said and said.endswith("in the same sentence as: skyscraper.")


@pytest.mark.parametrize(
    ("make", "make_clip"),
    [(small_sd15_inpainting, small_clip_sd15), (small_refiner, small_clip_refiner)],
    ids=["inpainting", "refiner"],
)
def test_unets_that_are_given_more_than_a_prompt_are_built_of(
    make: Callable[[], Any], make_clip: Callable[[], Any], tmp_path: Path
) -> None:
    model = make()
    built = Builder(model, make_clip(), tmp_path / "states")()
    assert built.hrv.layout == head_layout(model)
    for one in built.report.concepts:
        assert one.complete == pytest.approx(1.0, abs=0.2) and one.checked == 2
        assert sum(share or 0.0 for share in one.groups.values()) == pytest.approx(1.0, abs=0.3)


def test_the_top_heads_are_estimated_and_patched_in_the_same_pairs_of_many_levels(builder: Builder) -> None:
    """Of seven pairs at six levels four are checked, those of the outer levels among them."""
    levels = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
    built = builder({"Color": EXAMPLES["Color"]}, pairs=7, levels=levels)
    ((found,), hrv) = built.report.concepts, built.hrv
    top = sorted(np.argsort(-effects(hrv).scores(1)[0], kind="stable")[: built.report.top_heads])
    checked = [0, 2, 3, 5]
    measured = effects(hrv)
    # In an HRV pairs stand in the order of their seeds.
    by_number = [
        int(np.flatnonzero(measured.pairs[:, 1] == pair_seed("Color", SETTINGS.seed, number))[0]) for number in checked
    ]
    assert measured.pairs[by_number, 2].tolist() == checked
    shares = measured.effects[by_number][:, top].sum(axis=1) / measured.norms[by_number]
    assert found.top == pytest.approx(float(shares.mean()), rel=1e-4) and found.checked == 4
    assert found.top != pytest.approx(float(measured.scores(1)[0, top].sum()), rel=1e-2)
    settings = replace(SETTINGS, pairs=7, levels=levels)
    images = PairImages(builder.model, builder.clip, settings, settings.negative, settings.seed, levels)
    prompts = [one[1:] for one in hrv.provenance["prompts"]]
    words = [tuple(prompt.split()[1] for prompt in both) for both in prompts]
    true = []
    for number in checked:
        pair = NumberedPair(Pair("Color", tuple(prompts[number]), words[number]), number, number)
        with torch.inference_mode():
            ((_, sigma, those),) = images.made([pair], lambda done: None)
            one = Attribution(builder.model).patched(those, sigma, [Patch(heads=frozenset(map(int, top)))])
        true.append(one.patches[0, 0] / one.squares[0])
    assert found.top_true == pytest.approx(float(np.mean(true)), rel=1e-4)
    assert all(share is not None for share in found.groups.values())


def test_pairs_are_checked_whatever_they_are_measured_together_with(builder: Builder, whole: CausalBuild) -> None:
    """In a batch of all pairs the first ones of a level stand beside those that aren't checked."""
    together, alone = (builder({"Color": EXAMPLES["Color"]}, pairs=6, batch_size=size) for size in (6, 1))
    ((one,), (other,)) = together.report.concepts, alone.report.concepts
    assert one.checked == other.checked == 4 and one.groups == pytest.approx(other.groups, abs=1e-3)
    assert one.top == pytest.approx(other.top, rel=1e-3) and one.top_true == pytest.approx(other.top_true, rel=1e-3)


def test_a_cancelled_build_resumes_at_the_pair(builder: Builder, whole: CausalBuild) -> None:
    before = picture_of_model(builder.model)

    def cancel(progress: Progress) -> None:
        if progress.done == 3 and progress.unit == "pairs":
            raise InterruptProcessingException

    with pytest.raises(InterruptProcessingException):
        builder(report=cancel)
    assert picture_of_model(builder.model) == before
    again = builder()
    assert [report.done for report in builder.reports if report.unit == "pairs"] == [4]
    assert again.hrv.same_as(whole.hrv) and again.report == whole.report
    assert builder().hrv.same_as(whole.hrv) and not builder.reports


def test_shards_merge_to_the_whole_build_bit_for_bit(builder: Builder, whole: CausalBuild, tmp_path: Path) -> None:
    shards = [builder(shard=(number, 3)).hrv for number in (1, 2, 3)]
    merged = merge([load_hrv(save_hrv(hrv, tmp_path / f"{place}.safetensors")) for place, hrv in enumerate(shards)])
    assert np.array_equal(merged.values, whole.hrv.values)
    for name, array in effects(whole.hrv).arrays().items():
        assert np.array_equal(array, effects(merged).arrays()[name]), name


def test_pairs_measured_together_are_measured_alike(builder: Builder, whole: CausalBuild) -> None:
    together = builder(batch_size=3)
    np.testing.assert_allclose(effects(together.hrv).effects, effects(whole.hrv).effects, rtol=2e-3, atol=1e-5)


def test_a_concept_is_measured_alike_whichever_others_there_are(builder: Builder, whole: CausalBuild) -> None:
    alone = builder({"Size": EXAMPLES["Size"]})
    np.testing.assert_array_equal(alone.hrv.row("Size"), whole.hrv.row("Size"))


def test_a_build_ends_early_when_it_is_settled(builder: Builder) -> None:
    settled = builder(pairs=8, stop_at=0.01)
    pairs = settled.hrv.provenance["images"]
    assert 8 <= pairs < 16
    assert builder(pairs=8, stop_at=0.01).hrv.same_as(settled.hrv)


# Two spellings of one word, which the tokenizer reads alike.
SILENT = [Example(f"a {word} cat", word) for word in ("caf\u00e9", "cafe\u0301")]


def test_pairs_that_change_nothing_are_left_out_and_named(builder: Builder, caplog: pytest.LogCaptureFixture) -> None:
    colors = [Example(f"a {word} car", word) for word in ("red", "blue")]
    built = builder({"Color": [*colors, *SILENT]}, pairs=4)
    (color,) = built.report.concepts
    assert sorted(color.silent) == sorted(" / ".join(one.prompt for one in order) for order in (SILENT, SILENT[::-1]))
    assert color.pairs == 4 and "2 of 4 pairs change nothing and are left out: a caf" in built.report.text()
    assert caplog.text.count("change nothing, so this pair is left out") == 2
    # What they are left out of: the HRV is that of the others, wherever they stand in the file.
    found = effects(built.hrv)
    there = found.norms > 0
    others = Effects(found.effects[there], found.norms[there], found.pairs[there])
    assert there.sum() == 2 and not found.effects[~there].any()
    np.testing.assert_array_equal(others.scores(1), found.scores(1))


def test_a_concept_whose_words_change_nothing_is_refused_at_its_first_pairs(builder: Builder) -> None:
    for _ in range(2):
        with pytest.raises(HRVError, match=r"The words of Place change nothing .* tried were: a caf.* / a caf"):
            builder({"Color": EXAMPLES["Color"], "Place": SILENT}, pairs=6)
        assert len([report for report in builder.reports if report.unit == "pairs"]) < 12


def test_completeness_is_reported_level_by_level(whole: CausalBuild) -> None:
    for row, one in enumerate(whole.report.concepts):
        assert list(one.by_level) == ["0.2", "0.6"]
        assert np.mean(list(one.by_level.values())) == pytest.approx(one.complete)
        for place, total in enumerate(one.by_level.values()):
            found = effects(whole.hrv)
            own = (found.pairs[:, 0] == row) & (found.pairs[:, 2] == place)
            assert total == pytest.approx(found.effects[own].sum() / found.norms[own].sum(), rel=1e-4)


def test_an_experiment_gives_pairs_too(builder: Builder) -> None:
    prompts = [Example("a red car, night", "red"), Example("a blue car, night", "blue"), Example("a blue cat", "blue")]
    built = builder({"Color": prompts})
    assert {tuple(one[1:]) for one in built.hrv.provenance["prompts"]} == {
        ("a red car, night", "a blue car, night"),
        ("a blue car, night", "a red car, night"),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": 0}, "takes 1 to 10000 pairs"),
        ({"levels": ()}, "Noise levels are 1 to 16"),
        ({"levels": (0.5, 1.0)}, "Noise levels are 1 to 16 numbers between 0"),
        ({"levels": (float("nan"),)}, "Noise levels"),
        ({"shard": (3, 2)}, "no shard 3 of 2"),
        ({"stop_at": 1.0}, "agreement below 1"),
        ({"stop_at": 0.5, "shard": (1, 2)}, "A shard cannot stop early"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HRVError, match=message):
        replace(SETTINGS, **changes)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ({}, "no concepts to measure"),
        ({"Color": [Example("a red car", "red")]}, r"Color has no pair of prompts.*red \(1\)"),
        (
            {"Color": [Example("a red car", "red"), Example("a skyscraper car", "skyscraper")]},
            "Add another word of 1 or 3",
        ),
    ],
)
def test_words_without_pairs_are_refused(builder: Builder, examples: Any, message: str) -> None:
    with pytest.raises(HRVError, match=message):
        builder(examples)


def test_a_text_encoder_that_gives_nan_is_named_with_the_word(builder: Builder) -> None:
    """Of one word, whose token is broken; and of any prompt."""
    clip = small_clip_sd15()
    ((blue, _),) = [one for one in clip.tokenize("blue")["l"][0] if one[0] not in (49406, 49407)]
    text_model = clip.cond_stage_model.clip_l.transformer.text_model
    text_model.embeddings.token_embedding.weight.data[blue] = float("nan")
    broken = Builder(builder.model, clip, builder.states)
    message = r"^The text encoder gave numbers that aren't finite for the word 'blue' in 'a blue car'\. The checkpoint"
    with pytest.raises(HRVError, match=message):
        broken()
    text_model.final_layer_norm.weight.data[0] = float("nan")
    with pytest.raises(HRVError, match=r"^The text encoder gave numbers that aren't finite for the negative prompt"):
        broken()


def test_a_shard_without_pairs_is_refused(builder: Builder) -> None:
    with pytest.raises(HRVError, match="Shard 1 of 9 has no pairs"):
        builder(shard=(1, 9))


def test_the_page_sees_how_a_build_converges_and_its_hrv(builder: Builder, tmp_path: Path) -> None:
    with told_page(tmp_path / "statuses.json") as sent:
        hrv = builder(pairs=4).hrv
        told = statuses(sent)
        seen = given_hrv(told[-1]["hrv"])
    assert {one["kind"] for one in told} == {"causal build", "causal check"}
    assert np.array_equal(seen.values, hrv.values)
    # A pair of each of the two concepts in turn: both have two from the fourth on.
    (curve,) = told[-1]["curves"]["curves"]
    assert curve["across"] == list(range(4, 9))
    # The first pairs of a build are those of a shorter one.
    for evidence, least in ((builder(pairs=2).hrv.evidence, curve["up"][0]), (hrv.evidence, curve["up"][-1])):
        assert isinstance(evidence, Effects)
        assert least == pytest.approx(min(one or 0.0 for one in agreements(evidence, 2)), rel=1e-4)
