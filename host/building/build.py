"""Building an HRV: generate images with any sampler of the host and count what every head attends to.

Images are made in a fixed grid of batches. Every batch is a sample of its own: a build may be interrupted and resumed
between two of them, and a shard is a run of consecutive ones, so all ways to the end give the same counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...hrv.building.state import KIND, BuildState
from ...hrv.draws import noise_seed
from ...hrv.errors import HRVError
from ...hrv.relevance.evidence import Counts, head_shares, normalised
from ...hrv.relevance.files import require_savable
from ...hrv.relevance.vectors import HRV
from ...hrv.relevance.vocabulary import Vocabulary, require_contrast
from ..models.architectures import architecture_of
from ..models.capabilities import Capability
from ..prompts.carried import Conditioning
from ..prompts.encoding import encode_once
from ..work.description import Description
from ..work.executor import HERE, Executor, Tick
from ..work.job import Report, job_key, no_report, run_job, shard_of
from ..work.memory import require_room
from ..work.sampling import have_one_text, sample_latents, stacked
from ..work.states import states_folder
from ..work.status import Curve, Curves, Seen
from .concept_words import ESTIMATORS, PAPER_ESTIMATOR, ConceptWords
from .provenance import made_from
from .recording import Recorder

MOST_IMAGES = 1_000_000

# Early stops before so many images would be chance: a half needs a few images to be ranked at all.
_FEWEST = 16


@dataclass(frozen=True)
class BuildSettings:
    """How the images of a build are made; ``width`` and ``height`` are pixels, ``images`` how many there are.

    Image i uses prompt i modulo the number of prompts, and noise that depends only on (seed, i). ``estimator`` is one
    of :data:`~.concept_words.ESTIMATORS`. ``shard`` (i, n) makes only the i-th of n parts, counted from 1.
    ``stop_at`` ends the build when its expected agreement with an endless one (:mod:`...hrv.building.convergence`)
    reaches it; 0 never does.
    """

    images: int
    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    width: int
    height: int
    batch_size: int = 1
    negative: str = ""
    estimator: str = PAPER_ESTIMATOR
    shard: tuple[int, int] = (1, 1)
    stop_at: float = 0.0

    def __post_init__(self) -> None:
        index, count = self.shard
        if not 1 <= self.images <= MOST_IMAGES:
            raise HRVError(f"A build makes 1 to {MOST_IMAGES} images, not {self.images}.")
        if self.estimator not in ESTIMATORS:
            raise HRVError(f"There is no estimator {self.estimator!r}; there are {' and '.join(ESTIMATORS)}.")
        if not 1 <= index <= count or count > self.images:
            raise HRVError(
                f"There is no shard {index} of {count}: shards are counted from 1, and {self.images} images make "
                f"at most {self.images} shards."
            )
        if not 0 <= self.stop_at < 1:
            raise HRVError(
                f"A build can stop at an agreement of 0 or more and below 1, such as 0.98, not at {self.stop_at:g}."
            )
        if self.stop_at and count > 1:
            raise HRVError(
                "A shard cannot stop early, because all shards together would not be the whole build. Set stop_at to 0."
            )

    def batches(self) -> list[range]:
        """The numbers of the images of every batch of the shard, in order."""
        firsts = range(0, self.images, self.batch_size)
        return list(shard_of([range(first, min(first + self.batch_size, self.images)) for first in firsts], self.shard))


def build_hrv(
    model: Any,
    clip: Any,
    vocabulary: Vocabulary,
    prompts: Sequence[str],
    settings: BuildSettings,
    *,
    states: Path | None = None,
    report: Report = no_report,
    executor: Executor = HERE,
) -> HRV:
    """Build the HRV of a MODEL for a vocabulary (arXiv 2412.02237, section 3).

    The host's progress is told per sampling step, ``report`` is called after every batch of images, and a cancel takes
    effect between two steps; the model is as before afterwards. What was counted is saved in the folder ``states``
    (None: the host's user folder) as :func:`~..work.job.run_job` does, and the same build resumes from there. Whatever
    ``executor`` makes the images, the counts are the same. Raises HRVError for fewer than two concepts, no prompts,
    words without tokens, an unsupported architecture, a text encoder that encodes a prompt differently in the course of
    sampling, a model that yields numbers that are not finite, an HRV too large for a file, a batch too large for the
    memory, a folder that cannot be written, a build that another process is making at this moment, and what the
    executor does.
    """
    require_contrast(vocabulary)
    if not prompts:
        raise HRVError("There are no prompts to make images of: write at least one line.")
    if not settings.batches():
        raise HRVError(
            f"Shard {settings.shard[0]} of {settings.shard[1]} has no images, because a shard is made of whole "
            f"batches of {settings.batch_size}. Make fewer shards or smaller batches."
        )
    job = _Build(model, clip, vocabulary, prompts, settings)
    state = run_job(job, states_folder("builds") if states is None else states, report, executor)
    curve = [asdict(point) for point in state.curve]
    made = {"images": settings.images if state.done == job.units else state.done, "convergence": curve}
    return HRV.from_counts(state.counts, vocabulary.names, job.layout, {**job.provenance, **made})


class _Build:
    """A build as a :class:`~..work.job.Job`; its pieces are batches of images, by their numbers."""

    kind, unit = KIND, "images"

    def __init__(self, model: Any, clip: Any, vocabulary: Vocabulary, prompts: Sequence[str], settings: BuildSettings):
        self.model, self.clip, self.prompts, self.settings = model, clip, prompts, settings
        architecture = architecture_of(model, Capability.RECORDING)
        self.layout = architecture.layout
        require_room(model, settings, settings.images)
        # The values and the counts.
        require_savable(len(vocabulary) * self.layout.head_count * 12, "fewer concepts")
        self.provenance = _provenance(model, clip, vocabulary, prompts, settings)
        self.key = job_key(self.provenance, settings.stop_at)
        self.vocabulary = vocabulary
        self.words = ConceptWords(clip, vocabulary, in_texts=architecture.projections is None)
        self.batches = settings.batches()
        self.units, self.steps = sum(len(batch) for batch in self.batches), settings.steps

    def fresh(self) -> BuildState:
        halves = np.zeros((2, len(self.words.numbers), self.layout.head_count), dtype=np.int64)
        ends = [batch.stop - self.batches[0].start for batch in self.batches]
        return BuildState(self.key, halves, ends)

    def description(self) -> Description:
        parameters = {
            "vocabulary": list(self.vocabulary),
            "prompts": list(self.prompts),
            "settings": asdict(self.settings),
        }
        return Description("building.build:described", {"model": self.model, "clip": self.clip}, parameters)

    def left(self, state: BuildState) -> list[range]:
        if self.is_finished(state):
            return []
        first = self.batches[0].start
        return [batch for batch in self.batches if batch.stop - first > state.done]

    def size(self, piece: range) -> int:
        return len(piece)

    def maker(self, tick: Tick) -> Callable[[range], Counts]:
        """What makes one batch and counts it [2, N, H]; prompts of another length are sampled by themselves."""
        recorder = Recorder(self.model, self.words, self.settings.seed, self.settings.estimator)
        negative = [encode_once(self.clip, self.settings.negative)]

        def make(batch: range) -> Counts:
            total: np.ndarray | int = 0
            for images, positive in alike(self.clip, self.prompts, batch):
                recorder.begin(images)
                record_images(recorder, images, positive, negative, self.settings, tick)
                total = total + recorder.counts()
            found = np.asarray(total)
            # In as few bytes as hold them: they may go through a network.
            return found.astype(np.min_scalar_type(found.max()))

        return make

    def keep(self, state: BuildState, piece: range, made: Counts) -> None:
        state.add(made, piece)

    def is_finished(self, state: BuildState) -> bool:
        """Whether all images are counted, or enough for the agreement asked for."""
        converged = (
            self.settings.stop_at > 0
            and state.done >= _FEWEST
            and bool(state.curve)
            and state.curve[-1].images == state.done
            and state.curve[-1].expected >= self.settings.stop_at
        )
        return state.done >= self.units or converged

    def detail(self, state: BuildState, piece: range) -> str:
        return f"agreement {state.curve[-1].expected:.3f}" if state.curve else ""

    def seen(self, state: BuildState) -> Seen:
        """How the build converges, and its HRV so far."""
        across = [point.images for point in state.curve]
        curves = [
            Curve.of("all concepts", across, [point.expected for point in state.curve]),
            Curve.of("least settled concept", across, [point.expected_least for point in state.curve]),
        ]
        counts = state.counts
        hrv = (
            HRV(normalised(head_shares(counts)), self.vocabulary.names, self.layout)
            if counts.any(axis=0).all()
            else None
        )
        return Seen(Curves("images", "expected agreement", curves), hrv)


def described(inputs: Mapping[str, Any], parameters: Mapping[str, Any]) -> _Build:
    """A build on a worker: with its own model and CLIP, by a description's parameters."""
    vocabulary = Vocabulary(tuple((name, tuple(words)) for name, words in parameters["vocabulary"]))
    settings = BuildSettings(**parameters["settings"])
    return _Build(inputs["model"], inputs["clip"], vocabulary, parameters["prompts"], settings)


def _provenance(
    model: Any, clip: Any, vocabulary: Vocabulary, prompts: Sequence[str], settings: BuildSettings
) -> dict[str, Any]:
    """What counts depend on, with what people want to know of it."""
    made = asdict(settings)
    shard = made.pop("shard")
    made.pop("stop_at")
    return {
        **made_from(model, clip, vocabulary),
        "prompts": list(prompts),
        **made,
        **({"shard": "{}/{}".format(*shard)} if shard != (1, 1) else {}),
    }


def alike(clip: Any, prompts: Sequence[str], batch: range) -> Iterator[tuple[list[int], Conditioning]]:
    """Consecutive images whose conditionings [rows, tokens, C] can be rows of one."""
    images: list[int] = []
    rows: Conditioning = []
    for image in batch:
        tensor, extras = encode_once(clip, prompts[image % len(prompts)])
        if images and (tensor.shape != rows[0][0].shape or not have_one_text([rows[0], [tensor, extras]])):
            yield images, stacked(rows)
            images, rows = [], []
        images.append(image)
        rows.append([tensor, extras])
    yield images, stacked(rows)


class Recording(Protocol):
    """What making images needs of who records them, such as a :class:`~.recording.Recorder`."""

    model: Any

    def step_done(self) -> None: ...


def record_images(
    recorder: Recording,
    images: Sequence[int],
    positive: Conditioning,
    negative: Conditioning,
    settings: BuildSettings,
    tick: Tick,
) -> None:
    """Make images of a build together; only what is recorded is kept."""

    def step_done() -> None:
        recorder.step_done()
        tick(len(images))

    seeds = [noise_seed(settings.seed, image) for image in images]
    sample_latents(recorder.model, seeds, positive, negative, settings, step_done)
