"""Build HRV against an oracle of its own: explicit float64 maps from the queries of the very same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import comfy.model_management
import comfy.samplers
import comfy.utils
import numpy as np
import pytest
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_management import InterruptProcessingException
from hrv_pack.host.build import BuildSettings, build_hrv
from hrv_pack.host.head_layout import cross_attention_modules, head_layout
from hrv_pack.host.recording import Recorder, WordBank
from hrv_pack.hrv.draws import draw_words, noise_seed
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.layout import LayerKey
from hrv_pack.hrv.vocabulary import Vocabulary, parse_vocabulary
from hrv_pack.nodes.build import BuildHRV
from hrv_pack.tests.host.small_host import (
    encoded,
    explicit_maps,
    latents,
    picture_of_model,
    small_clip_sd15,
    small_clip_sdxl,
    small_sd15,
    small_sdxl,
)

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
)


@dataclass(frozen=True)
class Pair:
    model: Any
    clip: Any

    def counts(self, prompts: Sequence[str] = PROMPTS, model: Any = None, **changes: Any) -> np.ndarray:
        """Counts [N, H] of a build with these changes of the settings."""
        hrv = build_hrv(model or self.model, self.clip, VOCABULARY, prompts, replace(SETTINGS, **changes))
        assert hrv.counts is not None
        return hrv.counts


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
class Asked:
    """The queries [rows, P, C] of the positive rows at one layer in one evaluation."""

    layer: LayerKey
    sigma: float
    queries: torch.Tensor


def listening(model: Any, asked: list[Asked]) -> Any:
    """A clone of the MODEL that notes what every cross-attention layer is asked."""

    def listen(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
        lists = extra["cond_or_uncond"]
        if 0 not in lists:
            return optimized_attention(q, k, v, extra["n_heads"])
        rows = len(q) // len(lists)
        first = lists.index(0) * rows
        layer = (*extra["block"], extra["block_index"])
        asked.append(Asked(layer, float(extra["sigmas"][0]), q[first : first + rows].clone()))
        return optimized_attention(q, k, v, extra["n_heads"])

    clone = model.clone()
    for key in cross_attention_modules(model):
        clone.set_model_attn2_replace(listen, *key)
    return clone


def encoded_alone(clip: Any, word: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The start token [1, C] and the own tokens [T, C] of a word that is the whole prompt."""
    tokens = clip.tokenize(word)
    ids = [entry[0] for entry in next(iter(tokens.values()))[0]]
    assert ids[0] == START
    context = clip.encode_from_tokens(tokens)[0]
    return context[:1], context[1 : ids.index(END)]


def expected_counts(pair: Pair, asked: Sequence[Asked], batches: Sequence[Sequence[int]]) -> np.ndarray:
    """Counts [N, H] as the paper says, from the queries of evaluations in order: batches, in each the steps."""
    layout = head_layout(pair.model)
    modules = cross_attention_modules(pair.model)
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
                chosen = [words[concept][word] for concept, word in enumerate(drawn)]
                context = torch.cat([chosen[0][0], *(tokens for _, tokens in chosen)])
                maps = explicit_maps(one.queries[row : row + 1], modules[keys[layer]].to_k(context)[None], heads)
                of_tokens = maps[0].mean(dim=1)
                first, means = 1, []
                for _, tokens in chosen:
                    means.append(of_tokens[:, first : first + len(tokens)].mean(dim=1))
                    first += len(tokens)
                most = torch.stack(means).argmax(dim=0)
                counts[most, range(layout.offsets[layer], layout.offsets[layer] + heads)] += 1
    return counts


# The third prompt is of two chunks: it cannot share a batch with the others.
BATCHES = {1: [[0], [1], [2], [3]], 2: [[0, 1], [2], [3]], 4: [[0, 1], [2], [3]]}


@pytest.mark.parametrize(
    ("kind", "batch_size", "cfg"), [("sd15", 1, 4.0), ("sd15", 2, 4.0), ("sd15", 4, 1.0), ("sdxl", 2, 4.0)]
)
def test_counts_equal_those_of_explicit_maps(
    request: pytest.FixtureRequest, kind: str, batch_size: int, cfg: float
) -> None:
    pair = request.getfixturevalue(kind)
    asked: list[Asked] = []
    found = pair.counts(model=listening(pair.model, asked), batch_size=batch_size, cfg=cfg)
    assert np.array_equal(found, expected_counts(pair, asked, BATCHES[batch_size]))
    assert (found.sum(axis=0) == SETTINGS.images * SETTINGS.steps).all()
    # A count that cannot fail to be right would say nothing.
    assert len(np.unique(found)) > 3


def test_a_negative_prompt_that_is_evaluated_by_itself_is_not_counted(sd15: Pair) -> None:
    """The host does not repeat a prompt more than four times to let it share a call with a longer one."""
    asked: list[Asked] = []
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
    asked: list[Asked] = []
    found = sd15.counts(PROMPTS[:2], listening(sd15.model, asked), sampler_name=sampler, images=2)
    layers = len(head_layout(sd15.model).layers)
    sigmas = schedule(sd15.model, sampler)
    own: list[Asked] = []
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
    recorder = Recorder(pair.model, WordBank(pair.clip, VOCABULARY), SETTINGS.seed, images)
    prompt = [encoded(pair.clip, PROMPTS[image % len(PROMPTS)])[0][0] for image in images]
    latents(
        recorder.attach(pair.model),
        [[torch.cat(prompt), {}]],
        encoded(pair.clip, SETTINGS.negative),
        seeds=[noise_seed(SETTINGS.seed, image) for image in images],
        callback=lambda *_: recorder.step_done(),
    )
    assert recorder.counts is not None
    return recorder.counts.T.numpy()


def test_any_split_in_any_order_adds_up_to_the_build(sd15: Pair, plain_counts: np.ndarray) -> None:
    parts = [recorded(sd15, images) for images in ([2], [3, 0], [1])]
    assert np.array_equal(sum(parts), plain_counts)
    assert len({part.tobytes() for part in parts}) == 3


def test_draws_depend_on_seed_image_step_and_layer_only(sd15: Pair) -> None:
    bank = WordBank(sd15.clip, VOCABULARY)
    forward, groups = bank.draw(7, [4, 9, 5], 2, 3)
    backward, groups_backward = bank.draw(7, [5, 9, 4], 2, 3)
    assert np.array_equal(forward, backward[::-1]) and np.array_equal(groups, groups_backward[::-1])
    alone, _ = bank.draw(7, [9], 2, 3)
    assert np.array_equal(alone[0], forward[1])

    def rows(seed: int, step: int, layer: int) -> bytes:
        return bank.draw(seed, range(64), step, layer)[0].tobytes()

    assert len({rows(7, 2, 3), rows(8, 2, 3), rows(7, 3, 3), rows(7, 2, 4), rows(7, 3, 2)}) == 5


def test_the_words_of_a_draw_are_those_that_the_encoder_makes_of_each_alone(sd15: Pair) -> None:
    bank = WordBank(sd15.clip, VOCABULARY)
    places, groups = bank.draw(1, [0, 1, 2, 3, 4, 5], 0, 0)
    for image in range(6):
        drawn = draw_words(1, image, 0, 0, [3, 2, 4])
        row = bank.context[torch.from_numpy(places[image])]
        assert groups[image, 0] == -1
        start, _ = encoded_alone(sd15.clip, "red")
        assert torch.equal(row[:1], start)
        for concept, (_, words) in enumerate(VOCABULARY):
            _, tokens = encoded_alone(sd15.clip, words[drawn[concept]])
            assert torch.equal(row[torch.from_numpy(groups[image] == concept)], tokens)


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
    assert values[0] == 1 and values[-1] == 12
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


def test_the_hrv_says_what_it_was_made_from(sd15: Pair) -> None:
    hrv = build_hrv(sd15.model, sd15.clip, VOCABULARY, PROMPTS, SETTINGS)
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
            "images", "seed", "steps", "cfg", "sampler_name", "scheduler", "width", "height", "batch_size", "negative"
        )
    }  # fmt: skip
    (hrv,) = BuildHRV.execute(sd15.model, sd15.clip, VOCABULARY, text, **settings).result
    assert np.array_equal(hrv.counts, plain_counts)


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
    sd15: Pair, progress: ProgressReports, vocabulary: Vocabulary, prompts: list[str], message: str
) -> None:
    with pytest.raises(HRVError) as error:
        build_hrv(sd15.model, sd15.clip, vocabulary, prompts, SETTINGS)
    assert message in str(error.value)
    assert progress.reports == []


def test_prompts_of_blank_lines_are_none(sd15: Pair) -> None:
    with pytest.raises(HRVError, match="write at least one line"):
        BuildHRV.execute(sd15.model, sd15.clip, VOCABULARY, " \n \n", 1, 0, 1, 1.0, "euler", "normal", 64, 64, 1, "")


def test_a_model_that_gives_nan_is_refused(sd15: Pair) -> None:
    broken = small_sd15()
    broken.model.diffusion_model.input_blocks[0][0].weight.data[0] = float("nan")
    with pytest.raises(HRVError, match="numbers that are not finite"):
        sd15.counts(model=broken)


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
