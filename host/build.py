"""Building an HRV: generate images with any sampler of the host and count what every head attends to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import numpy as np
import torch
from comfyui_version import __version__ as host_version

from ..hrv.draws import noise_seed
from ..hrv.errors import HRVError
from ..hrv.vectors import HRV
from ..hrv.vocabulary import Vocabulary, require_contrast
from .head_layout import describe_model, head_layout
from .recording import Recorder, WordBank
from .text_encoding import Conditioning


@dataclass(frozen=True)
class BuildSettings:
    """How the images of a build are made; ``width`` and ``height`` are pixels, ``images`` how many there are.

    Image i uses prompt i modulo the number of prompts, and noise that depends only on (seed, i).
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


def build_hrv(model: Any, clip: Any, vocabulary: Vocabulary, prompts: Sequence[str], settings: BuildSettings) -> HRV:
    """Build the HRV of a MODEL for a vocabulary (arXiv 2412.02237, section 3).

    Progress is reported per sampling step and a cancel takes effect between two of them; the model is as before
    afterwards. Raises HRVError for fewer than two concepts, no prompts, words without tokens, an unsupported
    architecture, and a model that yields numbers that are not finite.
    """
    require_contrast(vocabulary)
    if not prompts:
        raise HRVError("There are no prompts to make images of: write at least one line.")
    layout = head_layout(model)
    bank = WordBank(clip, vocabulary)
    negative = clip.encode_from_tokens_scheduled(clip.tokenize(settings.negative))
    shape = _latent_shape(model, settings)
    progress = comfy.utils.ProgressBar(settings.images * settings.steps)
    counts = torch.zeros(layout.head_count, len(vocabulary), dtype=torch.int64)
    for images, positive in _batches(clip, prompts, settings):
        recorder = Recorder(model, bank, settings.seed, images)
        _sample(recorder, model, images, positive, negative, shape, settings, progress)
        if recorder.counts is None:
            raise HRVError("The sampler made no step, so nothing was recorded: give it at least one.")
        counts += recorder.counts.cpu()
    provenance = {
        "model": describe_model(model),
        "text_encoder": type(clip.cond_stage_model).__name__,
        "vocabulary": vocabulary.to_text(),
        "prompts": list(prompts),
        "estimator": "paper",
        "host": f"ComfyUI {host_version}",
        **asdict(settings),
    }
    return HRV.from_counts(counts.T.numpy().astype(np.int64), vocabulary.names, layout, provenance)


def _latent_shape(model: Any, settings: BuildSettings) -> tuple[int, ...]:
    """[C, h, w] of the model's latents for the size in pixels."""
    latent_format = model.get_model_object("latent_format")
    ratio = latent_format.spacial_downscale_ratio
    return latent_format.latent_channels, settings.height // ratio, settings.width // ratio


def _batches(clip: Any, prompts: Sequence[str], settings: BuildSettings) -> Iterator[tuple[list[int], Conditioning]]:
    """Consecutive images with their conditioning [rows, tokens, C]; prompts of other lengths start a new batch."""
    images: list[int] = []
    rows: Conditioning = []
    for image in range(settings.images):
        ((tensor, extras),) = clip.encode_from_tokens_scheduled(clip.tokenize(prompts[image % len(prompts)]))
        if images and (len(images) == settings.batch_size or tensor.shape != rows[0][0].shape):
            yield images, _stacked(rows)
            images, rows = [], []
        images.append(image)
        rows.append([tensor, extras])
    yield images, _stacked(rows)


def _stacked(rows: Conditioning) -> Conditioning:
    """One conditioning of many rows; pooled outputs are stacked along."""
    extras = dict(rows[0][1])
    if extras.get("pooled_output") is not None:
        extras["pooled_output"] = torch.cat([row["pooled_output"] for _, row in rows])
    return [[torch.cat([tensor for tensor, _ in rows]), extras]]


def _sample(
    recorder: Recorder,
    model: Any,
    images: Sequence[int],
    positive: Conditioning,
    negative: Conditioning,
    shape: tuple[int, ...],
    settings: BuildSettings,
    progress: comfy.utils.ProgressBar,
) -> None:
    """Make one batch of images; only what is recorded is kept."""
    latent = torch.zeros(len(images), *shape, device=comfy.model_management.intermediate_device())
    noise = torch.cat([comfy.sample.prepare_noise(latent[:1], noise_seed(settings.seed, image)) for image in images])

    def step_done(step: int, denoised: torch.Tensor, x: torch.Tensor, steps: int) -> None:
        recorder.step_done()
        progress.update(len(images))

    samples = comfy.sample.sample(
        recorder.attach(model),
        noise,
        settings.steps,
        settings.cfg,
        settings.sampler_name,
        settings.scheduler,
        positive,
        negative,
        latent,
        callback=step_done,
        disable_pbar=True,
        seed=noise_seed(settings.seed, images[0]),
    )
    if not torch.isfinite(samples).all():
        raise HRVError(
            f"The model gave numbers that are not finite (image {images[0] + 1}), so nothing it attends to means "
            "anything. The checkpoint may be broken, or its precision too low for this sampler."
        )
