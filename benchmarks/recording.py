"""What recording for a build costs: time and memory over plain sampling of the same images.

    python benchmarks/recording.py [--model hrv-mini] [--device cpu] [--rounds 5] [--out FOLDER]

Every round samples the same images plainly, recorded with each estimator, and recorded by explicit maps (the way of
the method's first implementation: every layer's maps are kept until the step is done), in turn. ``sd15`` and ``sdxl``
are UNets of full size with random weights; their vocabulary is the shipped one of 34 concepts with random text
encodings. On a CPU each recorded run also says what share of it recording took itself. Needs a host on COMFYUI_PATH.
Writes ``recording-MODEL.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from host_process import enter_host
from pack_import import PACK_ROOT, import_pack

enter_host(gpu="cuda" in sys.argv)
import_pack()

import comfy.model_management
import torch
from hrv_pack.benchmarks.measuring import add_options, compare, load, sampling
from hrv_pack.host.building.concept_words import ALL_WORDS_ESTIMATOR, PAPER_ESTIMATOR, ConceptWords
from hrv_pack.host.building.recording import Recorder
from hrv_pack.host.models.architectures import unet_of
from hrv_pack.host.models.families.replacers import plain_attention
from hrv_pack.hrv.heads.layout import AttentionLayer
from hrv_pack.hrv.relevance.evidence import Counts
from hrv_pack.hrv.relevance.vocabulary import Vocabulary, parse_vocabulary

VOCABULARIES = PACK_ROOT / "hrv_presets" / "vocabularies"


class RandomWords(ConceptWords):
    """Words of one or two tokens with random encodings, for a UNet without its text encoder."""

    def __init__(self, vocabulary: Vocabulary, width: int):
        lengths = [[1 + (len(word) > 8) for word in words] for _, words in vocabulary]
        self.numbers = [len(words) for words in lengths]
        self.rows = torch.full((len(lengths), max(self.numbers), 2), -1).numpy()
        taken = 1
        for concept, words in enumerate(lengths):
            for word, length in enumerate(words):
                self.rows[concept, word, :length] = range(taken, taken + length)
                taken += length
        self.tokens = taken
        self.context = torch.randn(taken, width, generator=torch.Generator().manual_seed(0))
        self._placed = self._all = None


class TimedRecorder(Recorder):
    """A recorder that knows how long it took itself, which other work on the machine hardly changes; on a CPU."""

    own = 0.0

    def begin(self, images: Sequence[int]) -> None:
        self._timed(super().begin, images)

    def step_done(self) -> None:
        self._timed(super().step_done)

    def counts(self) -> Counts:
        return self._timed(super().counts)

    def _record(self, layer: AttentionLayer, q: torch.Tensor, extra: dict[str, Any]) -> None:
        self._timed(super()._record, layer, q, extra)

    def _timed(self, do: Callable[..., Any], *args: Any) -> Any:
        started = time.perf_counter()
        try:
            return do(*args)
        finally:
            self.own += time.perf_counter() - started


class ExplicitMaps:
    """Recording as in the method's first implementation: keys projected at every call, maps kept for the step."""

    def __init__(self, model: Any, words: ConceptWords, seed: int):
        self.words, self.seed = words, seed
        self.modules = unet_of(model).cross_attention
        self.maps: list[torch.Tensor] = []
        self.counted: torch.Tensor | int = 0
        self.model = model.clone()
        for number, key in enumerate(self.modules):
            self.model.set_model_attn2_replace(self._listener(number, key), *key)

    def _listener(self, number: int, key: Any) -> Callable[..., torch.Tensor]:
        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
            heads = extra["n_heads"]
            queries = q.chunk(len(extra["cond_or_uncond"]))[extra["cond_or_uncond"].index(0)]
            asked = self.words.ask(
                PAPER_ESTIMATOR, self.seed, range(len(queries)), len(self.maps), number + 1, q.device
            )
            tokens = asked.tokens[number]
            keys = self.modules[key].to_k(self.words.context_on(q)[tokens])
            queries, keys = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (queries, keys))
            logits = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
            self.maps.append(logits.float().softmax(-1))
            return plain_attention(q, k, v, extra)

        return attend

    def step_done(self) -> None:
        for maps in self.maps:
            self.counted = self.counted + maps.mean(2)[..., 1:].argmax(-1).cpu().sum()
        self.maps.clear()


def ways(options: argparse.Namespace, device: torch.device) -> dict[str, Callable[[], None]]:
    """Ways to make the same images, by name; plain sampling comes first."""
    model, clip, positive, negative = load(options.model, device)
    if clip is not None:
        words = ConceptWords(clip, parse_vocabulary((VOCABULARIES / "hrv-mini.txt").read_text(encoding="utf-8")))
    else:
        vocabulary = parse_vocabulary((VOCABULARIES / "paper-34-concepts.txt").read_text(encoding="utf-8"))
        words = RandomWords(vocabulary, positive[0][0].shape[-1])
    sample = sampling(options, model, negative)
    made: dict[str, Callable[[], None]] = {"plain sampling": lambda: sample(model.clone(), positive)}
    for estimator in (PAPER_ESTIMATOR, ALL_WORDS_ESTIMATOR):
        recorder = TimedRecorder(model, words, 0, estimator)

        def recorded(recorder: TimedRecorder = recorder, estimator: str = estimator) -> None:
            recorder.own, started = 0.0, time.perf_counter()
            recorder.begin(range(options.batch))
            sample(recorder.model, positive, recorder.step_done)
            recorder.counts()
            if device.type == "cpu":
                rest = time.perf_counter() - started - recorder.own
                print(f"{estimator}: recording itself {recorder.own / rest:.2%} of the rest of the run", flush=True)

        made[f"recorded, {estimator}"] = recorded
    if not options.without_maps:
        explicit = ExplicitMaps(model, words, 0)
        made["recorded by explicit maps"] = lambda: sample(explicit.model, positive, explicit.step_done)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    options = parser.parse_args()
    device = comfy.model_management.get_torch_device()
    compare(options, device, "recording", ways(options, device))


if __name__ == "__main__":
    main()
