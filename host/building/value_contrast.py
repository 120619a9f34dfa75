"""HRVs from a model's weights alone, in seconds: which heads write a concept's words differently.

No image is made. A head that is to tell red from blue has to write something else for the one than for the other,
however it shares its attention out. Per head and concept that is the root mean square, over the concept's words, of
|W_O,h V_h(word) - mean over these words|; then each head's numbers are divided by their sum over all concepts that
are compared, as counts are. V_h(word) is the value of the word's embedding, averaged over the word's tokens and over
sentences that hold it. Where a model makes more of a text than its text encoder does, values are those of passes with
these sentences (:mod:`.text_values`), and a block's gate is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from ...hrv.heads.layout import AttentionLayer, LayerKey
from ...hrv.prompts.frames import DEFAULT_FRAMES
from ...hrv.relevance.evidence import normalised
from ...hrv.relevance.vectors import HRV
from ...hrv.relevance.vocabulary import Vocabulary, fold, parse_vocabulary
from ...hrv_kernels.value_contrast import value_contrast
from ..files.folders import PRESETS
from ..models.architectures import architecture_of
from ..models.capabilities import Capability
from ..models.families.architecture import Architecture, CrossAttention
from ..models.ours import our_key
from ..prompts.encoding import encode_once, word_tokens
from ..work.sampling import sample_latents
from .provenance import made_from
from .text_values import PROGRESS, SMALLEST_IMAGE, word_values
from .word_texts import require_finite, word_text

VALUES_ESTIMATOR = "values"
"""The name of this estimator in a provenance."""

WHEN_NEEDED, ALWAYS, NEVER = BACKGROUNDS = ("when needed", "always", "never")
"""When a vocabulary is read against the 34 concepts of the paper."""

# With fewer concepts a head's share says little: with one it is always all of it.
_ENOUGH = 5

# Sentences that go through the text encoder at once: each takes as much work as a prompt.
_TOGETHER = 32

# Sentences that are encoded before the model runs with them: the two don't take turns on the device at each.
_AT_ONCE = 128

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
    architecture = architecture_of(model, Capability.VALUES)
    layers = architecture.layout.layers
    words = list(dict.fromkeys(word for _, listed in every for word in listed))
    bar = comfy.utils.ProgressBar(len(words) * len(frames) + len(layers))

    def tell(done: int) -> None:
        bar.update(done)
        comfy.model_management.throw_exception_if_processing_interrupted()

    values_at: Callable[[AttentionLayer, torch.device], torch.Tensor]
    if architecture.projections is None:
        values_at = _of_passes(model, clip, architecture, words, frames, tell)
    else:
        values_at = _projected(clip, architecture.projections, words, frames, tell)
    own = [words.index(word) for _, listed in every for word in listed]
    numbers = [len(listed) for _, listed in every]
    contrasts: list[torch.Tensor] = []

    def read(device: torch.device) -> None:
        with _InFloat32():
            for layer in layers:
                contrasts.append(_layer_contrast(architecture, layer, values_at(layer, device)[own], numbers).cpu())
                tell(1)

    _at_an_evaluation(model, [encode_once(clip, "")], read)
    if not contrasts:
        raise HRVError("The model was not evaluated: another node skips it. Use the plain model.")
    contrast = torch.cat(contrasts, dim=1).double().numpy()
    provenance = {
        **made_from(model, clip, vocabulary),
        "estimator": VALUES_ESTIMATOR,
        "frames": list(frames),
        "background": background.to_text() if background else "",
        **({"level": PROGRESS} if architecture.projections is None else {}),
    }
    return HRV(
        normalised(_shares(contrast)[: len(vocabulary)]), vocabulary.names, architecture.layout, provenance=provenance
    )


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


def _projected(
    clip: Any,
    projections: Mapping[LayerKey, CrossAttention],
    words: Sequence[str],
    frames: Sequence[str],
    tell: Callable[[int], None],
) -> Callable[[AttentionLayer, torch.device], torch.Tensor]:
    """Values [W, heads x d] of words whose embeddings are all that a layer gets of them."""
    batches = [words[first : first + _TOGETHER] for first in range(0, len(words), _TOGETHER)]
    context = _encoded(clip, batches, frames, tell)
    return lambda layer, device: projections[layer.key].to_v(context.to(device))


def _of_passes(
    model: Any,
    clip: Any,
    architecture: Architecture,
    words: Sequence[str],
    frames: Sequence[str],
    tell: Callable[[int], None],
) -> Callable[[AttentionLayer, torch.device], torch.Tensor]:
    """Values [W, heads x d] of words that become more than their embeddings on their way to a layer."""
    found: dict[LayerKey, torch.Tensor] = {}
    sentences = [(place, word, frame) for place, word in enumerate(words) for frame in frames]
    for first in range(0, len(sentences), _AT_ONCE):
        texts = []
        batch = sentences[first : first + _AT_ONCE]
        for _, word, frame in batch:
            texts.append(word_text(clip, word, frame))
            comfy.model_management.throw_exception_if_processing_interrupted()
        places = torch.tensor([place for place, *_ in batch])
        for key, values in word_values(model, architecture, texts, tell).items():
            total = found.setdefault(key, torch.zeros(len(words), values.shape[1]))
            total.index_add_(0, places, values / len(frames))
    return lambda layer, device: found[layer.key].to(device)


def _encoded(
    clip: Any, batches: Sequence[Sequence[str]], frames: Sequence[str], tell: Callable[[int], None]
) -> torch.Tensor:
    """The embedding [W, C] of every word, the mean over its tokens and then over the frames; float32 on the CPU."""
    found: list[torch.Tensor] = []
    for batch in batches:
        total: torch.Tensor | int = 0
        for frame in frames:
            means = torch.stack([word.tokens.mean(dim=0) for word in word_tokens(clip, batch, frame, whole=False)])
            for word, mean in zip(batch, means, strict=True):
                require_finite(f"the concept-word {quoted(word)}", mean)
            total = total + means
            tell(len(batch))
        assert isinstance(total, torch.Tensor)
        found.append(total / len(frames))
    return torch.cat(found)


def _layer_contrast(
    architecture: Architecture, layer: AttentionLayer, values: torch.Tensor, numbers: Sequence[int]
) -> torch.Tensor:
    """Value contrasts [N, heads] of one layer for words that have these values [W, heads x d]."""
    # The projection as it acts, whatever stores it; the last row is its bias.
    width = values.shape[1]
    rows = architecture.written(layer, torch.eye(width + 1, width, dtype=values.dtype, device=values.device))
    out = (rows[:-1] - rows[-1]).T.unflatten(-1, (layer.heads, -1))
    contrast = value_contrast(values.unflatten(-1, (layer.heads, -1)), out, numbers)
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
    width: int = SMALLEST_IMAGE
    height: int = SMALLEST_IMAGE


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
