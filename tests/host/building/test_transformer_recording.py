"""What heads of transformers attend to, against explicit float64 maps over the keys of the words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.sample
import numpy as np
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from hrv_pack.host.building.build import BuildSettings, build_hrv
from hrv_pack.host.building.concept_words import ALL_WORDS_ESTIMATOR, PAPER_ESTIMATOR, ConceptWords
from hrv_pack.host.building.recording import Recorder
from hrv_pack.host.models.architectures import architecture_of
from hrv_pack.host.models.latents import empty_latent
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.hrv.draws import draw_words
from hrv_pack.hrv.relevance.files import load_hrv, save_hrv
from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
from hrv_pack.tests.support.compiling import compiled_and_counted
from hrv_pack.tests.support.small_host import encoded, explicit_maps, picture_of_model
from hrv_pack.tests.support.small_transformers import (
    ANIMA,
    FLUX,
    FLUX_2,
    KINDS,
    WAN,
    Kind,
    attending,
    each_kind,
    one_of_each,
    rows_of,
    small,
    small_clip_anima,
    small_clip_flux,
    with_backend,
    with_changed_clip,
    with_changed_weight,
)

# Words of one to several tokens.
VOCABULARY = parse_vocabulary("Color: red, dark blue\nShape: circle, skyscrapers\nThings: car, tree, a small house")
WORDS = [listed for _, listed in VOCABULARY]
IMAGES = (4, 7)
SEED = 11
STEPS = 2
END = 1
"""T5's last token."""


def clip_of(kind: Kind) -> Any:
    """T5 for all: where the words of other encoders are is tests/host/prompts/test_letters.py's."""
    return small_clip_anima() if kind is ANIMA else small_clip_flux()


def sampled(model: Any, clip: Any, done: Any = None, steps: int = STEPS) -> torch.Tensor:
    empty = torch.zeros(empty_latent(model, len(IMAGES), 64, 64))
    found: torch.Tensor = comfy.sample.sample(
        model,
        comfy.sample.prepare_noise(empty, 4),
        steps,
        3.0,
        "euler",
        "normal",
        encoded(clip, "a red car"),
        encoded(clip, "ugly"),
        empty,
        callback=done,
        disable_pbar=True,
        seed=4,
    )
    return found


def word_contexts(model: Any, kind: Kind, clip: Any) -> dict[str, torch.Tensor]:
    """What the model gets of each word alone, its own tokens [T, C]; by "" the end of the first one."""
    found: dict[str, torch.Tensor] = {}
    for word in dict.fromkeys(word for listed in WORDS for word in listed):
        own = encoded(clip, word)
        context = rows_of(model, own, own, kind.latent, cfg=1.0, steps=1)[0].context
        count = [token for token, *_ in clip.tokenize(word)["t5xxl"][0]].index(END)
        padding = max(0, kind.padded_to - 256)
        found[word] = context[padding : padding + count]
        found.setdefault("", context[padding + count : padding + count + 1])
    return found


def drawn(step: int, layer: int, image: int, estimator: str) -> list[tuple[str, ...]]:
    """The words of each concept that a layer is asked about."""
    if estimator == ALL_WORDS_ESTIMATOR:
        return list(WORDS)
    numbers = draw_words(SEED, image, step, layer, [len(listed) for listed in WORDS])
    return [(listed[int(number)],) for listed, number in zip(WORDS, numbers, strict=True)]


def most_attended(maps: torch.Tensor, lengths: list[list[int]]) -> torch.Tensor:
    """The concept with the highest mean over its words of their tokens' mean: maps [heads, T], the start left out."""
    firsts = iter(np.cumsum([1, *(length for words in lengths for length in words)]))
    means = [
        torch.stack([maps[:, (first := int(next(firsts))) : first + length].mean(1) for length in words]).mean(0)
        for words in lengths
    ]
    return torch.stack(means).argmax(0)


class Counting:
    """Counts [2, N, H] of the positive rows of a MODEL's run; layers are told by the modules that run."""

    def __init__(self, model: Any, kind: Kind, clip: Any, estimator: str):
        self.kind, self.estimator = kind, estimator
        self.layout, self.contexts = head_layout(model), word_contexts(model, kind, clip)
        self.counts = np.zeros((2, len(WORDS), self.layout.head_count), dtype=np.int64)
        self.steps: list[float] = []
        self.keeping = False
        self.keys: dict[tuple[int, int], torch.Tensor] = {}  # by layer and image
        self.tokens, self.positive = 0, slice(None)

    def context_for(self, image: int) -> torch.Tensor:
        """The text of a pass with an image's words, as the model gets it [T, C]."""
        # Keys of a cross-attention know nothing of other tokens: all words at once.
        step = len(self.steps) - 1
        every = WORDS if self.kind.image_start is None else drawn(step, 0, image, self.estimator)
        made = torch.cat([self.contexts[word] for word in ("", *(word for words in every for word in words))])
        return torch.cat([made.new_zeros(max(0, self.kind.padded_to - len(made)), made.shape[1]), made])

    def note(
        self, executor: Any, x: Any, t: Any, c_concat: Any, context: Any, control: Any, options: Any, **more: Any
    ) -> Any:
        """APPLY_MODEL wrapper: a pass with the words of each image first."""
        if not self.steps or self.steps[-1] != float(t[0]):
            self.steps.append(float(t[0]))
        share = len(x) // len(options["cond_or_uncond"])
        first = share * options["cond_or_uncond"].index(0)
        for row, image in enumerate(IMAGES):
            own = slice(first + row, first + row + 1)
            text = self.context_for(image)[None].to(context)
            of_row = {
                name: value[own] if isinstance(value, torch.Tensor) and len(value) == len(x) else value
                for name, value in more.items()
            }
            of_row.update({"num_tokens": text.shape[1]} if "num_tokens" in more else {})
            self.tokens, self.positive, self.keeping = text.shape[1], slice(0, 1), True
            executor(x[own], t[own], c_concat, text, control, options, **of_row)
            self.keeping = False
            for number in range(len(self.layout.layers)):
                self.keys[number, image] = self.keys.pop((number, -1))
        self.tokens, self.positive = context.shape[1], slice(first, first + share)
        return executor(x, t, c_concat, context, control, options, **more)

    def attend(self, number: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
        """Keeps keys or counts; what is found is the host's."""
        if self.keeping:
            self.keys[number, -1] = k[:, : self.tokens].clone()
        else:
            start = self.kind.image_start(self.tokens) if self.kind.image_start else 0
            self.count(number, q[self.positive, start:])

    def count(self, number: int, queries: torch.Tensor) -> None:
        layer = self.layout.layers[number]
        heads = np.arange(self.layout.head_count)[self.layout.head_slice(layer.key)]
        for row, image in enumerate(IMAGES):
            asked = drawn(len(self.steps) - 1, 0 if self.kind.image_start else number, image, self.estimator)
            lengths = [[len(self.contexts[word]) for word in words] for words in asked]
            keys = self.keys[number, image]
            if self.kind.image_start is None:
                own = keys[:, [0, *(place for words in asked for word in words for place in self.places()[word])]]
            else:
                own = keys[:, -(1 + sum(map(sum, lengths))) :]
            maps = explicit_maps(queries[row : row + 1], own, layer.heads)[0].mean(1)
            self.counts[image % 2, most_attended(maps, lengths).numpy(), heads] += 1

    def places(self) -> dict[str, list[int]]:
        """Where the tokens of each word are among all."""
        found, first = {}, 1
        for word in (word for listed in WORDS for word in listed):
            found[word] = list(range(first, first + len(self.contexts[word])))
            first += len(self.contexts[word])
        return found


@contextmanager
def counting(model: Any, kind: Kind, clip: Any, estimator: str) -> Iterator[tuple[Any, np.ndarray]]:
    """A clone of a MODEL whose runs are counted."""
    counting = Counting(model, kind, clip, estimator)
    with attending(model, kind, counting.attend) as clone:
        clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "note", counting.note)
        yield clone, counting.counts


def recorded(
    model: Any, clip: Any, estimator: str = PAPER_ESTIMATOR, steps: int = STEPS
) -> tuple[np.ndarray, torch.Tensor]:
    """Counts of the recorder and the images of its run."""
    recorder = Recorder(model, ConceptWords(clip, VOCABULARY, in_texts=True), SEED, estimator)
    recorder.begin(IMAGES)
    images = sampled(recorder.model, clip, lambda *_: recorder.step_done(), steps)
    return recorder.counts(), images


def counted(model: Any, kind: Kind, clip: Any, estimator: str = PAPER_ESTIMATOR) -> np.ndarray:
    """Counts by explicit maps."""
    with counting(model, kind, clip, estimator) as (explicit, counts):
        sampled(explicit, clip)
    return counts


@pytest.mark.parametrize(
    ("kind", "estimator"),
    [
        *((kind, PAPER_ESTIMATOR) for kind in KINDS),
        *((kind, ALL_WORDS_ESTIMATOR) for kind in (FLUX, FLUX_2, WAN)),
    ],
    ids=str,
)
def test_counts_are_those_of_explicit_maps(kind: Kind, estimator: str) -> None:
    model, clip = small(kind), clip_of(kind)
    before = picture_of_model(model)
    with torch.inference_mode():
        found, images = recorded(model, clip, estimator)
        assert torch.equal(images, sampled(model, clip))
        expected = counted(model, kind, clip, estimator)
    assert found.sum() == len(IMAGES) * STEPS * head_layout(model).head_count
    assert len(np.unique(found.sum(0).argmax(0))) > 1
    # A tie of rounding here or there.
    assert np.abs(found - expected).sum() <= 2
    assert picture_of_model(model) == before


@one_of_each
def test_recorders_around_each_other_count_as_each_does_alone(kind: Kind) -> None:
    """As for several estimators of the same images: of other words, other draws, and so of passes of other lengths."""
    model, clip = small(kind), clip_of(kind)
    more = parse_vocabulary("Texture: a very rough surface, smooth\nLight: dark, bright")
    asked = ((VOCABULARY, SEED, PAPER_ESTIMATOR), (more, SEED + 1, PAPER_ESTIMATOR), (more, SEED, ALL_WORDS_ESTIMATOR))

    def recording(model: Any, vocabulary: Any, seed: int, estimator: str) -> Recorder:
        recorder = Recorder(model, ConceptWords(clip, vocabulary, in_texts=True), seed, estimator)
        recorder.begin(IMAGES)
        return recorder

    with torch.inference_mode():
        plain, expected = sampled(model, clip), []
        for settings in asked:
            alone = recording(model, *settings)
            sampled(alone.model, clip, lambda *_, alone=alone: alone.step_done())
            expected.append(alone.counts())
        together: list[Recorder] = []
        for settings in asked:
            together.append(recording(together[-1].model if together else model, *settings))

        def step_done(*_: Any) -> None:
            for one in together:
                one.step_done()

        images = sampled(together[-1].model, clip, step_done)
    assert torch.equal(images, plain)
    for one, counts in zip(together, expected, strict=True):
        assert np.array_equal(one.counts(), counts)


@each_kind
def test_counts_beside_loras_of_both_models_and_other_backends(kind: Kind) -> None:
    """Of the model and of the text encoder, of which the prompt and the words are made."""
    model, clip = small(kind), clip_of(kind)
    both = with_changed_weight(model), with_changed_clip(clip)
    with torch.inference_mode():
        without, _ = recorded(model, clip)
        found, _ = recorded(*both)
        assert np.abs(found - counted(both[0], kind, both[1])).sum() <= 2
        # Each of them matters.
        for changed in (recorded(both[0], clip), recorded(model, both[1])):
            assert np.abs(changed[0] - without).sum() > 0 and np.abs(changed[0] - found).sum() > 0
        beside, calls = with_backend(both[0])
        assert np.array_equal(recorded(beside, both[1])[0], found) and calls
        assert np.array_equal(recorded(model, clip)[0], without)


@each_kind
def test_counts_in_half_precision_are_as_exact_as_rounding_allows(kind: Kind) -> None:
    model, clip = small(kind, torch.bfloat16), clip_of(kind)
    with torch.inference_mode():
        found, _ = recorded(model, clip)
        expected = counted(model, kind, clip)
    assert found.sum() == expected.sum() and np.abs(found - expected).sum() <= 2


@pytest.mark.parametrize(
    ("kind", "part"),
    [(ANIMA, "diffusion_model.blocks.0.cross_attn"), (FLUX, "diffusion_model.single_blocks.1")],
    ids=str,
)
def test_counts_of_a_compiled_model_are_the_same(kind: Kind, part: str) -> None:
    model, clip = small(kind), clip_of(kind)
    with torch.inference_mode():
        expected, _ = recorded(model, clip, steps=1)
        compiled, count = compiled_and_counted(model, part)
        found, _ = recorded(compiled, clip, steps=1)
    assert count.graphs > 0 and np.array_equal(found, expected)


@one_of_each
def test_an_hrv_is_built_from_words_to_file(kind: Kind, tmp_path: Path) -> None:
    """Whether images are made together or one by one."""
    settings = BuildSettings(2, 3, 1, 2.0, "euler", "normal", 64, 64)
    prompts = ["a red car", "two dark blue trees"]
    with torch.inference_mode():
        built, together = (
            build_hrv(
                small(kind), clip_of(kind), VOCABULARY, prompts, replace(settings, batch_size=size), states=tmp_path
            )
            for size in (1, 2)
        )
    np.testing.assert_array_equal(built.values, together.values)
    assert (
        built.layout == head_layout(small(kind)) and built.layout.family == architecture_of(small(kind)).layout.family
    )
    assert load_hrv(save_hrv(built, tmp_path / "recorded.safetensors")).layout == built.layout
