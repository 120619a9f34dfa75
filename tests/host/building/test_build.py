"""Build HRV against an oracle of its own: explicit float64 maps from the queries of the very same run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import comfy.hooks
import comfy.model_management
import comfy.samplers
import comfy.sd
import comfy.utils
import numpy as np
import pytest
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_management import InterruptProcessingException
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy_extras.nodes_hooks import SetClipHooks
from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from hrv_pack.host.building import recording
from hrv_pack.host.building.build import BuildSettings, build_hrv
from hrv_pack.host.building.concept_words import ALL_WORDS_ESTIMATOR, ESTIMATORS, ConceptWords
from hrv_pack.host.building.recording import Recorder
from hrv_pack.host.models.architectures import unet_of
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.host.page.hrvs import given_hrv
from hrv_pack.hrv.draws import draw_words, noise_seed
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.layout import LayerKey
from hrv_pack.hrv.relevance.vocabulary import Vocabulary, parse_vocabulary
from hrv_pack.nodes.build import BuildHRV
from hrv_pack.tests.support.evidence import votes
from hrv_pack.tests.support.small_host import (
    encoded,
    explicit_maps,
    latents,
    picture_of_model,
    small_clip,
    small_clip_sd15,
    small_clip_sdxl,
    small_sd15,
    small_sdxl,
)
from hrv_pack.tests.support.told_page import statuses, told_page
from torch.overrides import TorchFunctionMode

START, END = 49406, 49407
# Different numbers of words, and words of one to four tokens.
VOCABULARY = parse_vocabulary(
    "Color: red, dark blue, turquoise\nShape: circle, skyscrapers\nScene: day, night, snow, a rose-colored sunset"
)
PROMPTS = ["a red car", "a dog at night", "a " * 80 + "circle"]
SETTINGS = BuildSettings(
    images=4,
    seed=3,
    steps=3,
    cfg=4.0,
    sampler_name="euler",
    scheduler="normal",
    width=64,
    height=64,
    negative="ugly",
    estimator="paper",
)


@dataclass(frozen=True)
class Pair:
    model: Any
    clip: Any

    def counts(self, prompts: Sequence[str] = PROMPTS, model: Any = None, **changes: Any) -> np.ndarray:
        """Counts [N, H] of a build with these changes of the settings."""
        with TemporaryDirectory() as states:
            settings = replace(SETTINGS, **changes)
            hrv = build_hrv(model or self.model, self.clip, VOCABULARY, prompts, settings, states=Path(states))
        return votes(hrv)


@pytest.fixture(scope="module")
def sd15() -> Pair:
    return Pair(small_sd15(), small_clip_sd15())


@pytest.fixture(scope="module")
def sdxl() -> Pair:
    return Pair(small_sdxl(), small_clip_sdxl())


@pytest.fixture(scope="module")
def plain_counts(sd15: Pair) -> np.ndarray:
    """The counts of the settings as they are."""
    return sd15.counts()


@dataclass(frozen=True)
class Queries:
    """The queries [rows, P, C] of the positive rows at one layer in one evaluation."""

    layer: LayerKey
    sigma: float
    queries: torch.Tensor


def listening(model: Any, asked: list[Queries]) -> Any:
    """A clone of the MODEL that notes what every cross-attention layer is asked."""

    def listen(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
        lists = extra["cond_or_uncond"]
        if 0 not in lists:
            return optimized_attention(q, k, v, extra["n_heads"])
        rows = len(q) // len(lists)
        first = lists.index(0) * rows
        layer = (*extra["block"], extra["block_index"])
        asked.append(Queries(layer, float(extra["sigmas"][0]), q[first : first + rows].clone()))
        return optimized_attention(q, k, v, extra["n_heads"])

    clone = model.clone()
    for key in unet_of(model).cross_attention:
        clone.set_model_attn2_replace(listen, *key)
    return clone


def encoded_alone(clip: Any, word: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The start token [1, C] and the own tokens [T, C] of a word that is the whole prompt."""
    tokens = clip.tokenize(word)
    ids = [entry[0] for entry in next(iter(tokens.values()))[0]]
    assert ids[0] == START
    context = clip.encode_from_tokens(tokens)[0]
    return context[:1], context[1 : ids.index(END)]


def expected_counts(
    pair: Pair, asked: Sequence[Queries], batches: Sequence[Sequence[int]], estimator: str = SETTINGS.estimator
) -> np.ndarray:
    """Counts [N, H] as the paper says, from the queries of evaluations in order: batches, in each the steps."""
    layout = head_layout(pair.model)
    modules = unet_of(pair.model).cross_attention
    keys = [layer.key for layer in layout.layers]
    words = [[encoded_alone(pair.clip, word) for word in listed] for _, listed in VOCABULARY]
    counts = np.zeros((len(words), layout.head_count), dtype=np.int64)
    evaluations = [asked[first : first + len(keys)] for first in range(0, len(asked), len(keys))]
    assert len(evaluations) == len(batches) * SETTINGS.steps
    for number, evaluation in enumerate(evaluations):
        images, step = batches[number // SETTINGS.steps], number % SETTINGS.steps
        assert [one.layer for one in evaluation] == keys
        for layer, one in enumerate(evaluation):
            heads = layout.layers[layer].heads
            assert len(one.queries) == len(images)
            for row, image in enumerate(images):
                drawn = draw_words(SETTINGS.seed, image, step, layer, [len(listed) for listed in words])
                chosen = [[of_concept[word]] for of_concept, word in zip(words, drawn, strict=True)]
                if estimator == ALL_WORDS_ESTIMATOR:
                    chosen = words
                context = torch.cat([chosen[0][0][0], *(tokens for concept in chosen for _, tokens in concept)])
                maps = explicit_maps(one.queries[row : row + 1], modules[keys[layer]].to_k(context)[None], heads)
                of_tokens = maps[0].mean(dim=1)
                first, means = 1, []
                for concept in chosen:
                    of_words = []
                    for _, tokens in concept:
                        of_words.append(of_tokens[:, first : first + len(tokens)].mean(dim=1))
                        first += len(tokens)
                    means.append(torch.stack(of_words).mean(dim=0))
                most = torch.stack(means).argmax(dim=0)
                counts[most, range(layout.offsets[layer], layout.offsets[layer] + heads)] += 1
    return counts


# The third prompt is of two chunks: it cannot share a batch with the others.
BATCHES = {1: [[0], [1], [2], [3]], 2: [[0, 1], [2], [3]], 4: [[0, 1], [2], [3]]}


@pytest.mark.parametrize(
    ("kind", "batch_size", "cfg", "estimator"),
    [
        ("sd15", 1, 4.0, "paper"),
        ("sd15", 2, 4.0, "paper"),
        ("sd15", 4, 1.0, "paper"),
        ("sdxl", 2, 4.0, "paper"),
        ("sd15", 2, 4.0, "all words"),
        ("sdxl", 1, 4.0, "all words"),
    ],
)
def test_counts_equal_those_of_explicit_maps(
    request: pytest.FixtureRequest, kind: str, batch_size: int, cfg: float, estimator: str
) -> None:
    pair = request.getfixturevalue(kind)
    asked: list[Queries] = []
    found = pair.counts(model=listening(pair.model, asked), batch_size=batch_size, cfg=cfg, estimator=estimator)
    assert np.array_equal(found, expected_counts(pair, asked, BATCHES[batch_size], estimator))
    assert (found.sum(axis=0) == SETTINGS.images * SETTINGS.steps).all()
    # A count that cannot fail to be right would say nothing.
    assert len(np.unique(found)) > 3


@pytest.mark.parametrize("most", [0, 1 << 10, 1 << 11])
@pytest.mark.parametrize("estimator", ["paper", "all words"])
def test_layers_that_are_asked_at_once_and_those_that_wait_count_alike(
    sd15: Pair, most: int, estimator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where evaluations of one step see a layer at unlike sizes."""
    (shrunk,) = PatchModelAddDownscale.execute(sd15.model, 2, 2.0, 0.0, 0.4, True, "bilinear", "bilinear").result
    settings: dict[str, Any] = {"sampler_name": "dpm_2", "steps": 4, "images": 2, "estimator": estimator}
    alone = [sd15.counts(PROMPTS[:2], model, **settings) for model in (sd15.model, shrunk)]
    monkeypatch.setattr(recording, "_WAITING_QUERIES", most)
    monkeypatch.setattr(recording, "_POOLED", 1)
    for model, expected in zip((sd15.model, shrunk), alone, strict=True):
        assert np.array_equal(sd15.counts(PROMPTS[:2], model, **settings), expected)


@pytest.mark.parametrize("most", [0, 1 << 20])
def test_keys_of_the_words_are_projected_once(sd15: Pair, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_WAITING_QUERIES", most)
    projected: list[int] = []
    projections = [module.to_k for module in unet_of(sd15.model).cross_attention.values()]
    hooks = [part.register_forward_hook(lambda *_: projected.append(1)) for part in projections]
    sd15.counts(batch_size=2)
    for hook in hooks:
        hook.remove()
    of_host = len(projections) * SETTINGS.steps * len(BATCHES[2])
    assert len(projected) == of_host + len(projections)


def test_a_negative_prompt_that_is_evaluated_by_itself_is_not_counted(sd15: Pair) -> None:
    """The host does not repeat a prompt more than four times to let it share a call with a longer one."""
    asked: list[Queries] = []
    calls: list[list[int]] = []

    def watch(apply_model: Any, arguments: dict[str, Any]) -> torch.Tensor:
        calls.append(arguments["cond_or_uncond"])
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    model = listening(sd15.model, asked)
    model.set_model_unet_function_wrapper(watch)
    found = sd15.counts(PROMPTS[:2], model, images=2, negative="ugly " * 75 * 5)
    assert calls == [[0], [1]] * 2 * SETTINGS.steps
    assert np.array_equal(found, expected_counts(sd15, asked, [[0], [1]]))


@pytest.mark.parametrize("sampler", ["heun", "dpm_2"])
def test_samplers_with_two_evaluations_a_step_count_the_one_at_the_step(sd15: Pair, sampler: str) -> None:
    asked: list[Queries] = []
    found = sd15.counts(PROMPTS[:2], listening(sd15.model, asked), sampler_name=sampler, images=2)
    layers = len(head_layout(sd15.model).layers)
    sigmas = schedule(sd15.model, sampler)
    own: list[Queries] = []
    for image in range(2):
        half = asked[image * len(asked) // 2 : (image + 1) * len(asked) // 2]
        evaluations = [half[first : first + layers] for first in range(0, len(half), layers)]
        assert len(evaluations) == 2 * SETTINGS.steps - 1
        for sigma in sigmas:
            # Heun looks ahead to the next step's sigma; the step itself evaluates there last.
            own.extend([one for one in evaluations if one[0].sigma == pytest.approx(sigma)][-1])
    assert np.array_equal(found, expected_counts(sd15, own, [[0], [1]]))


def schedule(model: Any, sampler: str) -> list[float]:
    """The noise levels at which the steps of the settings begin."""
    host = comfy.samplers.KSampler(model, SETTINGS.steps, torch.device("cpu"), sampler, "normal", 1.0, {})
    return host.sigmas[:-1].tolist()


def test_counts_do_not_depend_on_the_batch_size(sd15: Pair, plain_counts: np.ndarray) -> None:
    for batch_size in (2, 3, 4):
        assert np.array_equal(sd15.counts(batch_size=batch_size), plain_counts)


def recorded(pair: Pair, images: Sequence[int]) -> np.ndarray:
    """Counts [N, H] of some images of the build, as one batch, recorded apart from any build."""
    recorder = Recorder(pair.model, ConceptWords(pair.clip, VOCABULARY), SETTINGS.seed, SETTINGS.estimator)
    recorder.begin(images)
    prompt = [encoded(pair.clip, PROMPTS[image % len(PROMPTS)])[0][0] for image in images]
    latents(
        recorder.model,
        [[torch.cat(prompt), {}]],
        encoded(pair.clip, SETTINGS.negative),
        seeds=[noise_seed(SETTINGS.seed, image) for image in images],
        callback=lambda *_: recorder.step_done(),
    )
    halves = recorder.counts()
    for half in (0, 1):
        votes = SETTINGS.steps * sum(image % 2 == half for image in images)
        assert (halves[half].sum(axis=0) == votes).all()
    return halves.sum(axis=0)


def test_any_split_in_any_order_adds_up_to_the_build(sd15: Pair, plain_counts: np.ndarray) -> None:
    parts = [recorded(sd15, images) for images in ([2], [3, 0], [1])]
    assert np.array_equal(sum(parts), plain_counts)
    assert len({part.tobytes() for part in parts}) == 3


def test_draws_depend_on_seed_image_step_and_layer_only(sd15: Pair) -> None:
    words = ConceptWords(sd15.clip, VOCABULARY)
    forward = words.draw(7, [4, 9, 5], 2, 6)
    assert np.array_equal(forward, words.draw(7, [5, 9, 4], 2, 6)[:, ::-1])
    assert np.array_equal(words.draw(7, [9], 2, 4)[:, 0], forward[:4, 1])
    many = words.draw(7, range(64), 2, 2)
    drawn = [many[0], many[1], *(words.draw(*numbers, 1)[0] for numbers in ((8, range(64), 2), (7, range(64), 3)))]
    assert len({rows.tobytes() for rows in drawn}) == 4


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_heads_are_asked_about_what_the_encoder_makes_of_each_word_alone(sd15: Pair, estimator: str) -> None:
    words = ConceptWords(sd15.clip, VOCABULARY)
    assert words.context is not None
    asked = words.ask(estimator, 1, [5, 0, 2], 3, 2, torch.device("cpu"))
    start, _ = encoded_alone(sd15.clip, "red")
    for layer in range(2):
        tokens, there, places = asked.tokens[layer], asked.there[layer], asked.places[layer]
        assert len(tokens) == (1 if estimator == ALL_WORDS_ESTIMATOR else 3)
        for row in range(len(tokens)):
            context = words.context[tokens[row]]
            torch.testing.assert_close(context[:1], start, rtol=1e-5, atol=1e-6)
            drawn = draw_words(1, [5, 0, 2][row], 3, layer, [3, 2, 4])
            taken = 1
            for concept, (_, listed) in enumerate(VOCABULARY):
                chosen = listed if estimator == ALL_WORDS_ESTIMATOR else [listed[drawn[concept]]]
                for place, word in zip(places[row, concept], chosen, strict=False):
                    own = context[place[place >= 0]]
                    torch.testing.assert_close(own, encoded_alone(sd15.clip, word)[1], rtol=1e-5, atol=1e-6)
                    taken += len(own)
                assert (places[row, concept, len(chosen) :] == -1).all()
            # Nothing else is in the softmax.
            assert there[row].tolist() == [column < taken for column in range(there.shape[1])]


def test_keys_of_large_vocabularies_are_not_kept(
    sd15: Pair, plain_counts: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_KEPT_KEYS", 1000)
    recorder = Recorder(sd15.model, ConceptWords(sd15.clip, VOCABULARY), 0, "paper")
    assert not recorder.keeps_keys
    assert np.array_equal(sd15.counts(), plain_counts)


# Some of the host's samplers warn about their own arithmetic.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("sampler", comfy.samplers.KSampler.SAMPLERS)
def test_every_sampler_of_the_host_votes_once_a_step(sd15: Pair, sampler: str) -> None:
    counts = sd15.counts(PROMPTS[:1], sampler_name=sampler, images=1, width=32, height=32)
    (votes,) = set(counts.sum(axis=0).tolist())
    # These two choose their number of steps themselves.
    assert votes > 0 if sampler in ("dpm_fast", "dpm_adaptive") else votes == SETTINGS.steps


@pytest.mark.parametrize("scheduler", comfy.samplers.KSampler.SCHEDULERS)
def test_every_scheduler_of_the_host_can_be_used(sd15: Pair, scheduler: str) -> None:
    counts = sd15.counts(PROMPTS[:1], scheduler=scheduler, images=1, width=32, height=32)
    assert (counts.sum(axis=0) == SETTINGS.steps).all()


def test_evaluations_that_other_nodes_add_are_not_counted(sd15: Pair, plain_counts: np.ndarray) -> None:
    """As perturbed attention does it: another pass inside a step, here of another latent."""
    passes = 0

    def look_again(arguments: dict[str, Any]) -> torch.Tensor:
        nonlocal passes
        passes += 1
        comfy.samplers.calc_cond_batch(
            arguments["model"],
            [arguments["cond"], arguments["uncond"]],
            arguments["input"].flip(-1) * 0.5,
            arguments["sigma"],
            arguments["model_options"],
        )
        return arguments["denoised"]

    curious = sd15.model.clone()
    curious.set_model_sampler_post_cfg_function(look_again)
    assert np.array_equal(sd15.counts(model=curious), plain_counts)
    assert passes == SETTINGS.images * SETTINGS.steps


def test_the_extra_pass_of_perturbed_attention_is_not_counted(sd15: Pair) -> None:
    """The host's own node, whose pass changes the image: what is counted are the queries of the sampler's own pass."""
    asked: list[Queries] = []
    (perturbed,) = PerturbedAttentionGuidance.execute(listening(sd15.model, asked), 3.0).result
    found = sd15.counts(PROMPTS[:2], perturbed, images=2)
    layers = len(head_layout(sd15.model).layers)
    evaluations = [asked[first : first + layers] for first in range(0, len(asked), layers)]
    assert len(evaluations) == 2 * 2 * SETTINGS.steps
    own = [one for evaluation in evaluations[::2] for one in evaluation]
    assert np.array_equal(found, expected_counts(sd15, own, [[0], [1]]))
    assert not np.array_equal(found, sd15.counts(PROMPTS[:2], images=2))


@pytest.mark.parametrize(("width", "height"), [(96, 48), (40, 104)])
def test_images_need_not_be_square(sd15: Pair, width: int, height: int) -> None:
    asked: list[Queries] = []
    found = sd15.counts(PROMPTS[:2], listening(sd15.model, asked), images=2, width=width, height=height)
    assert asked[0].queries.shape[1] == (width // 8) * (height // 8)
    assert np.array_equal(found, expected_counts(sd15, asked, [[0], [1]]))


def test_weights_that_the_host_offloads_count_alike(sd15: Pair, plain_counts: np.ndarray) -> None:
    """Such weights stay where they are and are cast for every call (comfy/ops.py, comfy_cast_weights)."""
    modules = [module for module in sd15.model.model.modules() if hasattr(module, "comfy_cast_weights")]
    attentions = unet_of(sd15.model).cross_attention.values()
    assert {id(attention.to_k) for attention in attentions} <= set(map(id, modules))
    before = [module.comfy_cast_weights for module in modules]
    try:
        for module in modules:
            module.comfy_cast_weights = True
        assert np.array_equal(sd15.counts(), plain_counts)
    finally:
        for module, cast in zip(modules, before, strict=True):
            module.comfy_cast_weights = cast


class ProgressReports:
    """The host's progress hook; the user may cancel at a report."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, int]] = []
        self.cancel_at: int | None = None

    def __call__(self, value: int, total: int, preview: Any, node_id: Any = None) -> None:
        self.reports.append((value, total))
        if self.cancel_at is not None and value >= self.cancel_at:
            comfy.model_management.interrupt_current_processing()


@pytest.fixture
def progress(monkeypatch: pytest.MonkeyPatch) -> ProgressReports:
    reports = ProgressReports()
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", reports)
    return reports


def test_progress_is_told_step_by_step_and_the_model_stays_as_it_is(
    sd15: Pair, plain_counts: np.ndarray, progress: ProgressReports
) -> None:
    before = picture_of_model(sd15.model)
    assert np.array_equal(sd15.counts(), plain_counts)
    # The host holds reports back that follow each other too fast; the first and the last always come.
    values = [value for value, total in progress.reports if total == 12]
    assert len(values) == len(progress.reports) and values == sorted(set(values))
    assert values[0] == 0 and values[-1] == 12
    assert picture_of_model(sd15.model) == before


def test_a_cancelled_build_leaves_the_model_for_the_next(
    sd15: Pair, plain_counts: np.ndarray, progress: ProgressReports
) -> None:
    before = picture_of_model(sd15.model)
    progress.cancel_at = 5
    with pytest.raises(InterruptProcessingException):
        sd15.counts()
    assert 5 <= progress.reports[-1][0] < 12
    assert picture_of_model(sd15.model) == before
    progress.cancel_at = None
    assert np.array_equal(sd15.counts(), plain_counts)


def test_the_hrv_says_what_it_was_made_from(sd15: Pair, tmp_path: Path) -> None:
    hrv = build_hrv(sd15.model, sd15.clip, VOCABULARY, PROMPTS, SETTINGS, states=tmp_path)
    assert hrv.concepts == ("Color", "Shape", "Scene")
    assert hrv.layout == head_layout(sd15.model)
    np.testing.assert_allclose(hrv.values.sum(axis=1), hrv.layout.head_count, rtol=1e-5)
    known = {"model": "SD15", "text_encoder": "SD1ClipModel", "images": 4, "seed": 3, "steps": 3, "cfg": 4.0}
    assert {name: hrv.provenance[name] for name in known} == known
    assert list(hrv.provenance["prompts"]) == PROMPTS
    assert parse_vocabulary(hrv.provenance["vocabulary"]) == VOCABULARY


def test_the_node_builds_what_its_inputs_say(sd15: Pair, plain_counts: np.ndarray) -> None:
    text = "\n\n  ".join(PROMPTS) + " \n\n"
    settings = {
        name: getattr(SETTINGS, name)
        for name in (
            "images", "seed", "steps", "cfg", "sampler_name", "scheduler", "width", "height", "batch_size", "negative",
            "estimator",
        )
    }  # fmt: skip
    (hrv,) = BuildHRV.execute(model=sd15.model, clip=sd15.clip, concepts=VOCABULARY, prompts=text, **settings).result
    assert np.array_equal(votes(hrv), plain_counts)


@pytest.mark.parametrize(
    ("vocabulary", "prompts", "message"),
    [
        (parse_vocabulary("Color: red, blue"), PROMPTS, "concept"),
        (VOCABULARY, [], "There are no prompts"),
        (parse_vocabulary("Color: red\nShape: <|endoftext|>"), PROMPTS, "'<|endoftext|>' has no token"),
    ],
    ids=["one concept", "no prompts", "a word without tokens"],
)
def test_what_cannot_be_built_is_refused_before_any_image(
    sd15: Pair, progress: ProgressReports, tmp_path: Path, vocabulary: Vocabulary, prompts: list[str], message: str
) -> None:
    with pytest.raises(HRVError) as error:
        build_hrv(sd15.model, sd15.clip, vocabulary, prompts, SETTINGS, states=tmp_path)
    assert message in str(error.value)
    assert progress.reports == [] and list(tmp_path.iterdir()) == []


def test_prompts_of_blank_lines_are_none(sd15: Pair) -> None:
    with pytest.raises(HRVError, match="write at least one line"):
        BuildHRV.execute(
            model=sd15.model,
            clip=sd15.clip,
            concepts=VOCABULARY,
            prompts=" \n \n",
            images=1,
            seed=0,
            steps=1,
            cfg=1.0,
            sampler_name="euler",
            scheduler="normal",
            width=64,
            height=64,
            batch_size=1,
            negative="",
        )


@pytest.mark.parametrize(
    ("broken", "first"),
    [
        ("input_blocks.0.0.weight", r"down1\.0 in step 1"),
        ("middle_block.1.transformer_blocks.0.attn2.to_k.weight", r"mid\.0 in step 1"),
        ("output_blocks.1.1.transformer_blocks.0.attn2.to_out.0.weight", r"up2\.0 in step 1"),
        ("out.2.weight", r"down1\.0 in step 2"),
    ],
)
def test_a_model_that_gives_nan_is_refused_and_the_layer_named(sd15: Pair, broken: str, first: str) -> None:
    """One step later every layer has them."""
    model = small_sd15()
    model.model.diffusion_model.get_parameter(broken).data[0] = float("nan")
    with pytest.raises(HRVError, match=rf"numbers that aren't finite, first at {first} of images 1 to 2,"):
        sd15.counts(PROMPTS[:2], model=model, batch_size=2)
    with pytest.raises(HRVError, match=rf"first at {first} of image 1,"):
        sd15.counts(model=model)


def test_a_text_encoder_that_gives_nan_is_refused_with_the_word(sd15: Pair) -> None:
    clip = small_clip_sd15()
    clip.cond_stage_model.clip_l.transformer.text_model.final_layer_norm.weight.data[0] = float("nan")
    with pytest.raises(HRVError, match="text encoder gave numbers that aren't finite for the concept-word 'red'"):
        Pair(sd15.model, clip).counts()


class Waits(TorchFunctionMode):
    """Counts, where it is told to look, calls that wait for a device if there is one."""

    WAITING = ("cpu", "item", "tolist", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__", "tensor")

    def __init__(self) -> None:
        super().__init__()
        self.met: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in self.WAITING:
            self.met.append(func.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_recording_waits_for_the_device_once_a_batch(
    sd15: Pair, monkeypatch: pytest.MonkeyPatch, estimator: str
) -> None:
    met: dict[str, list[str]] = {"_record": [], "step_done": [], "counts": []}

    def watched(name: str) -> Any:
        original = getattr(Recorder, name)

        def method(self: Recorder, *args: Any) -> Any:
            with Waits() as waits:
                result = original(self, *args)
            met[name].append(" ".join(waits.met))
            return result

        return method

    for name in met:
        monkeypatch.setattr(Recorder, name, watched(name))
    sd15.counts(PROMPTS[:2], batch_size=2, estimator=estimator)
    layers, batches = len(head_layout(sd15.model).layers), SETTINGS.images // 2
    assert met["_record"] == [""] * layers * SETTINGS.steps * batches
    assert met["step_done"] == [""] * SETTINGS.steps * batches
    assert met["counts"] == ["cpu numpy"] * batches


def test_a_node_that_skips_the_model_is_found_out(sd15: Pair) -> None:
    def skip(apply_model: Any, arguments: dict[str, Any]) -> torch.Tensor:
        return arguments["input"]

    model = sd15.model.clone()
    model.set_model_unet_function_wrapper(skip)
    with pytest.raises(HRVError, match=r"Nothing was recorded at down1\.0, down3\.0, mid\.0, up0\.0 in step 1"):
        sd15.counts(model=model)


def test_a_node_that_changes_the_batch_is_found_out(sd15: Pair) -> None:
    def doubled(apply_model: Any, arguments: dict[str, Any]) -> torch.Tensor:
        c = {**arguments["c"], "c_crossattn": arguments["c"]["c_crossattn"].repeat(2, 1, 1)}
        output = apply_model(arguments["input"].repeat(2, 1, 1, 1), arguments["timestep"].repeat(2), **c)
        return output[: len(arguments["input"])]

    model = sd15.model.clone()
    model.set_model_unet_function_wrapper(doubled)
    with pytest.raises(HRVError, match=r"Recording 1 images met 2 rows at down1\.0"):
        sd15.counts(model=model)


def test_an_architecture_without_such_heads_is_refused(sd15: Pair) -> None:
    class Other(torch.nn.Module):
        """No UNet."""

    bare = sd15.model.clone()
    bare.add_object_patch("diffusion_model", Other())
    with pytest.raises(HRVError, match=r"This model \(Other\) has no cross-attention heads"):
        sd15.counts(model=bare)


def test_words_of_any_language_can_be_asked_about(sd15: Pair, tmp_path: Path) -> None:
    vocabulary = parse_vocabulary("色: 赤, 青い\nФорма: круг, звезда\nMood: naïve, 😀")
    hrv = build_hrv(sd15.model, sd15.clip, vocabulary, PROMPTS[:1], replace(SETTINGS, images=2), states=tmp_path)
    assert hrv.concepts == ("色", "Форма", "Mood")
    assert (votes(hrv).sum(axis=0) == 2 * SETTINGS.steps).all()


@pytest.mark.slow
def test_five_thousand_concepts_are_not_too_many(sd15: Pair, tmp_path: Path) -> None:
    """With a text encoder of short prompts, as every word is one."""
    clip = small_clip(SD1Tokenizer, SD1ClipModel, clip_l_max_length=16)
    vocabulary = Vocabulary(tuple((f"Concept {number}", (f"word{number}",)) for number in range(5000)))
    settings = replace(SETTINGS, images=1, steps=1, estimator=ALL_WORDS_ESTIMATOR, width=32, height=32)
    hrv = build_hrv(sd15.model, clip, vocabulary, PROMPTS[:1], settings, states=tmp_path)
    assert votes(hrv).shape[0] == 5000 and (votes(hrv).sum(axis=0) == 1).all()


def test_a_lora_counts_whether_loaded_or_not(sd15: Pair, plain_counts: np.ndarray) -> None:
    """Weights that the host patches in place while it samples are the ones that keys are made of."""
    lora = sd15.model.clone()
    names = [name for name in lora.model_state_dict() if name.endswith(("attn2.to_k.weight", "attn2.to_q.weight"))]
    generator = torch.Generator().manual_seed(0)
    patches = {
        name: ("diff", (torch.randn(lora.model_state_dict()[name].shape, generator=generator) * 0.2,)) for name in names
    }
    lora.add_patches(patches)
    asked: list[Queries] = []
    watched = listening(lora, asked)
    first = sd15.counts(model=watched)
    # The oracle's keys have to be of the patched weights, too.
    lora.patch_model(torch.device("cpu"))
    try:
        expected = expected_counts(Pair(lora, sd15.clip), asked, BATCHES[1])
    finally:
        lora.unpatch_model()
    assert np.array_equal(first, expected) and not np.array_equal(first, plain_counts)
    comfy.model_management.unload_all_models()
    assert np.array_equal(sd15.counts(model=lora), first)
    assert np.array_equal(sd15.counts(), plain_counts)


def random_lora(model: Any) -> dict[str, torch.Tensor]:
    """A LoRA of rank 2 for all queries and keys of cross-attention."""
    lora = {}
    generator = torch.Generator().manual_seed(0)
    weights = model.model_state_dict()
    for name in [name for name in weights if name.endswith(("attn2.to_q.weight", "attn2.to_k.weight"))]:
        height, width = weights[name].shape
        lora[name.replace(".weight", ".lora_up.weight")] = torch.randn(height, 2, generator=generator)
        lora[name.replace(".weight", ".lora_down.weight")] = torch.randn(2, width, generator=generator) / 4
    return lora


def test_a_lora_as_hook_counts_like_the_lora_itself(sd15: Pair, plain_counts: np.ndarray) -> None:
    """Hooks exchange weights while conditionings that carry them are evaluated."""
    lora = random_lora(sd15.model)
    model, _ = comfy.sd.load_lora_for_models(sd15.model, None, lora, 0.7, 0.0)
    (clip,) = SetClipHooks().apply_hooks(sd15.clip, False, True, comfy.hooks.create_hook_lora(lora, 0.7, 0.0))
    loaded, hooked = sd15.counts(model=model), Pair(sd15.model, clip).counts()
    assert np.array_equal(hooked, loaded) and not np.array_equal(hooked, plain_counts)
    assert np.array_equal(sd15.counts(), plain_counts)


def with_changing_hook(pair: Pair, schedule_clip: bool) -> Pair:
    """The pair with a LoRA as hook that is gone after half of sampling."""
    hooks = comfy.hooks.create_hook_lora(random_lora(pair.model), 0.7, 0.0)
    keyframes = comfy.hooks.HookKeyframeGroup()
    for strength, start in ((1.0, 0.0), (0.0, 0.5)):
        keyframes.add(comfy.hooks.HookKeyframe(strength, start_percent=start))
    hooks.set_keyframes_on_hooks(keyframes)
    (clip,) = SetClipHooks().apply_hooks(pair.clip, schedule_clip, True, hooks)
    return Pair(pair.model, clip)


def test_keys_follow_a_hook_whose_strength_changes(sd15: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = with_changing_hook(sd15, schedule_clip=False)
    found = pair.counts(PROMPTS[:2], steps=4)
    monkeypatch.setattr(recording, "_KEPT_KEYS", 0)
    assert np.array_equal(found, pair.counts(PROMPTS[:2], steps=4))
    assert not np.array_equal(found, sd15.counts(PROMPTS[:2], steps=4))


def test_a_text_encoder_whose_strength_changes_is_refused(sd15: Pair) -> None:
    with pytest.raises(HRVError, match="Turn 'schedule_clip' off at Set CLIP Hooks"):
        with_changing_hook(sd15, schedule_clip=True).counts()


def test_the_page_sees_how_a_build_converges_and_its_hrv(sd15: Pair, tmp_path: Path) -> None:
    with told_page(tmp_path / "statuses.json") as sent:
        hrv = build_hrv(sd15.model, sd15.clip, VOCABULARY, PROMPTS, SETTINGS, states=tmp_path)
        told = statuses(sent)
        seen = given_hrv(told[-1]["hrv"])
    assert [one["done"] for one in told][-1] == SETTINGS.images and told[0]["hrv"] is None
    assert np.array_equal(seen.values, hrv.values) and seen.concepts == hrv.concepts
    measured = json.loads(hrv.provenance_json())["convergence"]
    all_concepts, least = told[-1]["curves"]["curves"]
    assert all_concepts["across"] == least["across"] == [point["images"] for point in measured]
    assert all_concepts["up"] == pytest.approx([point["expected"] for point in measured], rel=1e-4)
    assert least["up"] == pytest.approx([point["expected_least"] for point in measured], rel=1e-4)
