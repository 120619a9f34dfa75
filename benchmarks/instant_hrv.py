"""What an instant HRV takes on full-size models with random weights, text encoder and weights apart.

    python benchmarks/instant_hrv.py [--model sd15] [--device cpu] [--words 2] [--frames 1] [--rounds 3]

The vocabulary is the first words of each of the paper's 34 concepts. Time in the text encoder grows with sentences: it
is given for each, and what all ten words in all default frames would take; that of the weights hardly depends on
words. Everything is kept in half precision, as checkpoints are. Needs a host on COMFYUI_PATH.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from host_process import enter_host
from pack_import import PACK_ROOT, import_pack

enter_host(gpu="cuda" in sys.argv)
import_pack()

import comfy.sd
import torch
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer
from comfy.supported_models_base import ClipTarget
from hrv_pack.benchmarks.measuring import machine, random_unet
from hrv_pack.host.building.value_contrast import instant_hrv
from hrv_pack.hrv.prompts.frames import DEFAULT_FRAMES
from hrv_pack.hrv.relevance.vocabulary import Vocabulary, parse_vocabulary

VOCABULARY = PACK_ROOT / "hrv_presets" / "vocabularies" / "paper-34-concepts.txt"
TEXT_ENCODERS = {"sd15": (SD1Tokenizer, SD1ClipModel), "sdxl": (SDXLTokenizer, SDXLClipModel)}


class TimedClip:
    """A CLIP that knows how long it encoded."""

    def __init__(self, clip: Any):
        self._clip, self.seconds = clip, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clip, name)

    def encode_from_tokens(self, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        # On the CPU in the end, so that all of it is done.
        encoded = self._clip.encode_from_tokens(*args, **kwargs).cpu()
        self.seconds += time.perf_counter() - started
        return encoded


def random_clip(name: str) -> Any:
    clip = comfy.sd.CLIP(ClipTarget(*TEXT_ENCODERS[name]))
    generator = torch.Generator().manual_seed(0)
    for weight in clip.cond_stage_model.parameters():
        scale = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.02
        weight.data.copy_(torch.randn(weight.shape, generator=generator) * scale)
    return clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(TEXT_ENCODERS), default="sd15")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--words", type=int, default=2, help="of each concept")
    parser.add_argument("--frames", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    device = torch.device(options.device)
    every = parse_vocabulary(VOCABULARY.read_text(encoding="utf-8"))
    vocabulary = Vocabulary(tuple((name, listed[: options.words]) for name, listed in every))
    model, clip = random_unet(options.model, device, torch.float16), TimedClip(random_clip(options.model))
    sentences = len({word for _, listed in vocabulary for word in listed}) * options.frames
    whole = len({word for _, listed in every for word in listed}) * len(DEFAULT_FRAMES)
    print(
        f"{options.model}, {sentences} sentences, {machine(device)}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}",
        flush=True,
    )
    for number in range(options.rounds):
        clip.seconds = 0.0
        started = time.perf_counter()
        with torch.inference_mode():
            instant_hrv(model, clip, vocabulary, DEFAULT_FRAMES[: options.frames])
        seconds = time.perf_counter() - started
        print(
            f"round {number + 1}: {seconds:.1f} s, of which the text encoder {clip.seconds:.1f} s "
            f"({1000 * clip.seconds / sentences:.0f} ms a sentence; {whole} sentences would take "
            f"{whole * clip.seconds / sentences:.0f} s), the rest {seconds - clip.seconds:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
