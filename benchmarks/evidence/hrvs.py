"""The HRVs that the evidence is about, built through the host: by counting, causal, and from values alone.

Builds of one seed and setting share nothing with those of another: other captions, words, noise and pairs. The two that
count record the same images. All are kept beside their pieces, and what each image or pair adds with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import comfy.utils
import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from ...host.building.build import BuildSettings, alike, record_images
from ...host.building.causal import CausalSettings, build_causal_hrv
from ...host.building.concept_words import ALL_WORDS_ESTIMATOR, PAPER_ESTIMATOR, ConceptWords
from ...host.building.recording import Recorder
from ...host.building.value_contrast import instant_hrv
from ...host.mini.loader import WEIGHTS, load_mini
from ...host.models.architectures import architecture_of
from ...host.models.layouts import head_layout
from ...hrv.building.pairs import Example
from ...hrv.relevance.files import load_hrv, save_hrv
from ...hrv.relevance.vectors import HRV
from ...hrv.relevance.vocabulary import parse_vocabulary
from ...hrv.scoring.experiments import parse_experiment
from ...mini.batches import TrainingSettings
from ...mini.captions import draw_samples
from ...mini.training import export, train
from ...mini.unet import UNetNetwork
from ..estimators import Together, Variant
from .pieces import Piece, Store
from .sizes import KINDS, Sizes

PRESETS = WEIGHTS.parents[1]
EXPERIMENT, VOCABULARY = (PRESETS / folder / "hrv-mini.txt" for folder in ("experiments", "vocabularies"))
BATCH = 16
PAIRS_TOGETHER = 7
STEPS, CFG = 8, 4.0
SAMPLER = "euler", "normal"
HALF, STAGE = "half precision", "another stage"
PLAIN = "as it is"
_COUNTED = {"paper": PAPER_ESTIMATOR, "all words": ALL_WORDS_ESTIMATOR}


class Build(NamedTuple):
    """Which HRVs: by counts, causal or from values; of the model and sampler as they are or another way; and a seed."""

    how: str
    variant: str = PLAIN
    seed: int = 0


class HRVs:
    """A part without claims of its own, which the others build on."""

    name = "hrvs"

    def __init__(self, stage: Path | None = None, weights: Path = WEIGHTS):
        self.stage, self.weights = stage, weights

    def piece(self, build: Build, sizes: Sizes) -> Piece:
        steers = build == Build(build.how)
        images, pairs = (sizes.images, sizes.pairs) if steers else (sizes.again_images, sizes.again_pairs)
        size = {"counts": {"images": images}, "causal": {"pairs": pairs}}.get(build.how, {})
        stage = {"steps": sizes.further_training, "file": str(self.stage or "")} if build.variant == STAGE else {}
        cost = {"counts": images * STEPS * 3.0, "causal": pairs * 7 * 50.0}.get(build.how, 100.0)
        return Piece(self.name, {**build._asdict(), **size, **stage}, cost)

    def stage_piece(self, sizes: Sizes) -> Piece:
        return Piece(
            self.name, {"how": "further training", "steps": sizes.further_training}, sizes.further_training * 60.0
        )

    def missing(self, builds: Sequence[Build], store: Store, sizes: Sizes) -> list[Piece]:
        """Pieces of some builds that are not there yet; first what they rest on."""
        if any(build.variant == STAGE for build in builds) and self.stage is None:
            stage = self.stage_piece(sizes)
            if not store.has(stage):
                others = [build for build in builds if build.variant != STAGE]
                return [stage, *self.missing(others, store, sizes)]
        pieces = [self.piece(build, sizes) for build in builds]
        return [piece for piece in pieces if not store.has(piece)]

    def make(self, store: Store, sizes: Sizes, what: dict[str, Any]) -> Any:
        if what["how"] == "further training":
            _train_on(what["steps"], store.place(self.stage_piece(sizes), ".safetensors"))
            return {}
        build = Build(what["how"], what["variant"], what["seed"])
        piece = self.piece(build, sizes)
        model, clip, sampler = self._variant(build.variant, store, sizes)
        if build.how == "counts":
            found, batches = _counted(model, clip, build.seed, what["images"], sampler)
            for name, hrv in found.items():
                save_hrv(hrv, store.place(piece, f"-{name}.safetensors"), overwrite=True)
            save_file({name: torch.from_numpy(counts) for name, counts in batches.items()}, _batches(store, piece))
            return {}
        if build.how == "values":
            hrv = instant_hrv(model, clip, parse_vocabulary(VOCABULARY.read_text(encoding="utf-8")))
            save_hrv(hrv, store.place(piece, "-values.safetensors"), overwrite=True)
            return {}
        experiment = parse_experiment(EXPERIMENT.read_text(encoding="utf-8"))
        examples = {
            name: [Example(case.prompt, case.target) for case in experiment.of(name)] for name in experiment.concepts
        }
        settings = CausalSettings(
            what["pairs"], 100 + build.seed, STEPS, CFG, *sampler, 128, 128, batch_size=PAIRS_TOGETHER
        )
        causal = build_causal_hrv(model, clip, examples, settings, states=store.folder)
        save_hrv(causal.hrv, store.place(piece, "-causal.safetensors"), overwrite=True)
        return {"report": causal.report.text()}

    def hrv(self, kind: str, store: Store, sizes: Sizes, build: Build | None = None) -> HRV:
        """An HRV of one of :data:`~.sizes.KINDS`, or "shuffled", the causal one's relevances at other heads."""
        if kind == "shuffled":
            return shuffled(self.hrv("causal", store, sizes))
        how = "counts" if kind in _COUNTED else kind
        piece = self.piece(Build(how) if build is None else build._replace(how=how), sizes)
        return _loaded(store.place(piece, f"-{kind}.safetensors"))

    def batches(self, kind: str, store: Store, sizes: Sizes, build: Build) -> npt.NDArray[np.int64]:
        """What each batch of images adds to the counts of a build: [batches, N, H]."""
        found: npt.NDArray[np.int64] = load_file(_batches(store, self.piece(build, sizes)))[kind].numpy()
        return found

    def _variant(self, variant: str, store: Store, sizes: Sizes) -> tuple[Any, Any, tuple[str, str]]:
        """MODEL, CLIP, sampler and scheduler of a variant."""
        weights = self.weights
        if variant == STAGE:
            weights = self.stage or store.place(self.stage_piece(sizes), ".safetensors")
        model, clip, _ = load_mini(weights)
        if variant == HALF:
            _halve(model)
        sampler = (variant, SAMPLER[1]) if variant not in (PLAIN, HALF, STAGE) else SAMPLER
        return model, clip, sampler


def needed(kinds: Sequence[str]) -> list[Build]:
    """The builds of HRVs that steer."""
    hows = ["counts" if kind in _COUNTED else "causal" if kind == "shuffled" else kind for kind in kinds]
    return [Build(how) for how in dict.fromkeys(hows) if how in ("counts", *KINDS)]


def shuffled(hrv: HRV) -> HRV:
    """The same relevances at other heads, the same for every concept; a causal HRV stays one."""
    order = np.random.default_rng(0).permutation(hrv.layout.head_count)
    return HRV(hrv.values[:, order], hrv.concepts, hrv.layout, provenance={**hrv.provenance, "shuffled": hrv.digest})


def captions(seed: int, images: int) -> list[str]:
    """Captions that a build by counts makes images of."""
    samples, _ = draw_samples(images, np.random.default_rng(seed))
    return [sample.caption for sample in samples]


def _batches(store: Store, piece: Piece) -> Path:
    return store.place(piece, "-batches.safetensors")


@cache
def _loaded(path: Path) -> HRV:
    return load_hrv(path)


def _counted(
    model: Any, clip: Any, seed: int, images: int, sampler: tuple[str, str]
) -> tuple[dict[str, HRV], dict[str, npt.NDArray[np.int64]]]:
    """HRVs of both ways to count, and what every batch of images adds to each: [batches, N, H].

    Both record the same run, but for words that are a pass of the model at each step: recorders with such passes can't
    stand around each other.
    """
    vocabulary = parse_vocabulary(VOCABULARY.read_text(encoding="utf-8"))
    in_passes = architecture_of(model).projections is None
    words = ConceptWords(clip, vocabulary, in_texts=in_passes)
    settings = BuildSettings(images, seed, STEPS, CFG, *sampler, 128, 128, batch_size=BATCH)
    arrays: dict[str, npt.NDArray[np.int64]] = {}
    for names in [[name] for name in _COUNTED] if in_passes else [list(_COUNTED)]:
        variants: list[Variant] = []
        for name in names:
            around = variants[-1].recorder.model if variants else model
            variants.append(Variant(name, Recorder(around, words, seed, _COUNTED[name], "mean")))
        _record(Together(variants), clip, captions(seed, images), settings)
        arrays |= {variant.name: np.stack(variant.batches) for variant in variants}
    made = {"images": images, "seed": seed}
    found = {
        name: HRV.from_counts(
            counts.sum(axis=0), vocabulary.names, head_layout(model), {"estimator": _COUNTED[name], **made}
        )
        for name, counts in arrays.items()
    }
    return found, arrays


def _record(together: Together, clip: Any, prompts: list[str], settings: BuildSettings) -> None:
    """Make images of prompts; every recorder keeps what each batch adds."""
    negative = clip.encode_from_tokens_scheduled(clip.tokenize(""))
    bar = comfy.utils.ProgressBar(settings.images * STEPS)
    for batch in settings.batches():
        ((numbers, positive),) = alike(clip, prompts, batch)
        together.begin(numbers)
        record_images(together, numbers, positive, negative, settings, bar.update)
        for variant in together.variants:
            variant.batches.append(variant.recorder.counts().sum(axis=0))


def _halve(model: Any) -> None:
    """Compute in bfloat16, the half precision that CPUs have, as the host does where a device prefers it."""
    unet = model.model.diffusion_model.to(torch.bfloat16)
    unet.dtype = torch.bfloat16
    model.model.manual_cast_dtype = None


def _train_on(steps: int, path: Path) -> None:
    """Weights of a later stage: so many more steps of training from those that ship."""
    settings = TrainingSettings(steps, batch=24, rate=4e-4, warm_up=10, decay=max(1, steps // 2), ema=0.9, seed=7)
    checkpoint = path.with_suffix(".pt")
    # Training is the one thing here that needs gradients of the weights.
    with torch.inference_mode(mode=False), torch.enable_grad():
        network = train(UNetNetwork, settings, checkpoint, lambda *_: None, save_every=10, start=WEIGHTS)
        export(network, path)
    checkpoint.unlink(missing_ok=True)
