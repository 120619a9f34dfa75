"""HRVs from a model's weights alone, in seconds: which heads write a concept's words differently.

No image is made. A head that is to tell red from blue has to write something else for the one than for the other,
however it shares its attention out. Per head and concept that is the root mean square, over the concept's words, of
|W_O,h V_h(word) - mean over these words|; then each head's numbers are divided by their sum over all concepts that
are compared, as counts are. V_h(word) is the value of the word's embedding, averaged over the word's tokens and over
sentences that hold it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import comfy.utils
import numpy as np
import numpy.typing as npt
import torch
from comfy.patcher_extension import WrappersMP
from torch.overrides import TorchFunctionMode

from ...hrv.errors import HRVError, quoted, short
from ...hrv.heads.layout import AttentionLayer
from ...hrv.prompts.frames import DEFAULT_FRAMES
from ...hrv.relevance.evidence import normalised
from ...hrv.relevance.vectors import HRV
from ...hrv.relevance.vocabulary import Vocabulary, fold, parse_vocabulary
from ...hrv_kernels.value_contrast import value_contrast
from ..files.folders import PRESETS
from ..models.architectures import unet_of
from ..models.capabilities import Capability
from ..models.families.unet import CrossAttention
from ..models.ours import our_key
from ..prompts.encoding import word_tokens
from ..work.sampling import sample_latents
from .build import encode_once
from .provenance import made_from

VALUES_ESTIMATOR = "values"
"""The name of this estimator in a provenance."""

WHEN_NEEDED, ALWAYS, NEVER = BACKGROUNDS = ("when needed", "always", "never")
"""When a vocabulary is read against the 34 concepts of the paper."""

# With fewer concepts a head's share says little: with one it is always all of it.
_ENOUGH = 5

# Sentences that go through the text encoder at once: each takes as much work as a prompt.
_TOGETHER = 32

_WRAPPER_KEY = our_key("values")


def background_of(vocabulary: Vocabulary, when: str = WHEN_NEEDED) -> Vocabulary | None:
    """The 34 concepts of the paper with this pack's words, or None where they are not wanted.

    ``when`` is one of :data:`BACKGROUNDS`; they are needed for fewer than five concepts. HRVError for anything else.
    """
    if when not in BACKGROUNDS:
        raise HRVError(f"There is no background {when!r}; there are {', '.join(BACKGROUNDS)}.")
    if when == NEVER or (when == WHEN_NEEDED and len(vocabulary) >= _ENOUGH):
        return None
    return parse_vocabulary((PRESETS / "vocabularies" / "paper-34-concepts.txt").read_text(encoding="utf-8"))


def instant_hrv(
    model: Any,
    clip: Any,
    vocabulary: Vocabulary,
    frames: Sequence[str] = DEFAULT_FRAMES,
    background: Vocabulary | None = None,
) -> HRV:
    """The HRV of a MODEL for a vocabulary by value contrast (see above); the same inputs give the same HRV.

    ``frames`` are sentences as :func:`...hrv.prompts.frames.parse_frames` gives them. The concepts of ``background``
    are compared too, but are not in the result; those of the same names as the vocabulary's are left out. LoRAs and
    hooks count as in sampling; a hook whose strength changes counts as it is at the first step. The host's progress is
    told, a cancel takes effect between batches of sentences and between layers, and the model is as before afterwards.

    Raises HRVError for a single concept without background, a concept of one word, words without tokens, sentences
    that are too long, an unsupported architecture, weights or encodings that are not finite, and a model that is not
    evaluated because another node skips it.
    """
    every = _compared(vocabulary, background)
    architecture = unet_of(model, Capability.VALUES)
    layout, modules = architecture.layout, architecture.cross_attention
    words = list(dict.fromkeys(word for _, listed in every for word in listed))
    batches = [words[first : first + _TOGETHER] for first in range(0, len(words), _TOGETHER)]
    bar = comfy.utils.ProgressBar(len(batches) * len(frames) + len(layout.layers))

    def tell() -> None:
        bar.update(1)
        comfy.model_management.throw_exception_if_processing_interrupted()

    encoded = dict(zip(words, _encoded(clip, batches, frames, tell), strict=True))
    prompt = [encode_once(clip, "")]
    context = torch.stack([encoded[word] for _, listed in every for word in listed])
    numbers = [len(listed) for _, listed in every]
    contrasts: list[torch.Tensor] = []

    def read(device: torch.device) -> None:
        placed = context.to(device)
        with _InFloat32():
            for layer in layout.layers:
                contrasts.append(_layer_contrast(modules[layer.key], layer, placed, numbers).cpu())
                tell()

    _at_an_evaluation(model, prompt, read)
    if not contrasts:
        raise HRVError("The model was not evaluated: another node skips it. Use the plain model.")
    contrast = torch.cat(contrasts, dim=1).double().numpy()
    provenance = {
        **made_from(model, clip, vocabulary),
        "estimator": VALUES_ESTIMATOR,
        "frames": list(frames),
        "background": background.to_text() if background else "",
    }
    return HRV(normalised(_shares(contrast)[: len(vocabulary)]), vocabulary.names, layout, provenance=provenance)


def _compared(vocabulary: Vocabulary, background: Vocabulary | None) -> Vocabulary:
    """All concepts that are compared, those of the vocabulary first; HRVError if they cannot be."""
    own = {fold(name) for name in vocabulary.names}
    others = [entry for entry in background or () if fold(entry[0]) not in own]
    every = Vocabulary((*vocabulary, *others))
    for name, listed in every:
        if len(listed) < 2:
            raise HRVError(
                f"The concept {short(name)} has only the word {quoted(listed[0])}, but a head shows what it does "
                "for a concept by writing the concept's words differently. Add words; about ten work best."
            )
    if len(every) < 2:
        raise HRVError(
            f"{vocabulary.names[0]} is the only concept, and with nothing to compare it with all heads would look "
            "equally relevant. Add concepts, or read it against a background."
        )
    return every


def _encoded(
    clip: Any, batches: Sequence[Sequence[str]], frames: Sequence[str], tell: Callable[[], None]
) -> torch.Tensor:
    """The embedding [W, C] of every word, the mean over its tokens and then over the frames; float32 on the CPU."""
    found: list[torch.Tensor] = []
    for batch in batches:
        total: torch.Tensor | int = 0
        for frame in frames:
            means = torch.stack([word.tokens.mean(dim=0) for word in word_tokens(clip, batch, frame)])
            for word, mean in zip(batch, means, strict=True):
                if not mean.isfinite().all():
                    raise HRVError(
                        f"The text encoder gave numbers that are not finite for the concept-word {quoted(word)}. The "
                        "checkpoint may be broken."
                    )
            total = total + means
            tell()
        assert isinstance(total, torch.Tensor)
        found.append(total / len(frames))
    return torch.cat(found)


def _layer_contrast(
    module: CrossAttention, layer: AttentionLayer, context: torch.Tensor, numbers: Sequence[int]
) -> torch.Tensor:
    """Value contrasts [N, heads] of one layer for words [W, C]."""
    values = module.to_v(context).unflatten(-1, (layer.heads, -1))
    # The projection as it acts, whatever stores it; the last row is its bias.
    width = values.shape[1] * values.shape[2]
    rows = module.to_out(torch.eye(width + 1, width, dtype=context.dtype, device=context.device))
    out = (rows[:-1] - rows[-1]).T.unflatten(-1, (layer.heads, -1))
    contrast = value_contrast(values, out, numbers)
    if not contrast.isfinite().all():
        raise HRVError(
            f"The model's weights give numbers that are not finite at {layer.name}. The checkpoint may be broken."
        )
    return contrast


def _shares(contrast: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Contrasts [N, H] divided by their sum over the concepts; heads that write nothing have shares of 0."""
    sums = contrast.sum(axis=0)
    return np.divide(contrast, sums, out=np.zeros_like(contrast), where=sums > 0)


class _InFloat32(TorchFunctionMode):
    """Has linear layers compute in float32 whatever type their weights are kept in."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.linear:
            args = tuple(arg.float() if type(arg) in (torch.Tensor, torch.nn.Parameter) else arg for arg in args)
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class _OneEvaluation:
    """The shortest sampling run there is; nothing of the image is computed."""

    steps: int = 1
    cfg: float = 1.0
    sampler_name: str = "euler"
    scheduler: str = "normal"
    width: int = 64
    height: int = 64


def _at_an_evaluation(model: Any, prompt: list[list[Any]], read: Callable[[torch.device], None]) -> None:
    """Call ``read`` with the model's device in the place of an evaluation, all weights being as they are in sampling.

    The host loads the model, patches LoRAs into it, and exchanges what the hooks of ``prompt`` ask for.
    """

    def instead(executor: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        read(x.device)
        return x

    clone = model.clone()
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, _WRAPPER_KEY, instead)
    sample_latents(clone, [0], prompt, prompt, _OneEvaluation(), lambda: None)
