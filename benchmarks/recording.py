"""What recording for a build costs: time and memory over plain sampling of the same images.

    python benchmarks/recording.py [--model hrv-mini] [--device cpu] [--rounds 5] [--out FOLDER]

Every round samples the same images plainly, recorded with each estimator, and recorded by explicit maps (the way of
the method's first implementation: every layer's maps are kept until the step is done), in turn. A ratio is the time of
a way over the plain sampling of its round; shown is the median, with the smallest and the largest. ``sd15`` and
``sdxl`` are UNets of full size with random weights; their vocabulary is the shipped one of 34 concepts with random text
encodings. Memory is the highest over that of plain sampling: of a GPU as its allocator counts it, else of the process.
Needs a host on COMFYUI_PATH. Writes ``recording-MODEL.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from host_process import enter_host
from pack_import import PACK_ROOT, import_pack

enter_host(gpu="cuda" in sys.argv)
import_pack()

import comfy.model_management
import comfy.model_patcher
import comfy.sample
import torch
from hrv_pack.host.concept_words import ALL_WORDS, PAPER, ConceptWords
from hrv_pack.host.cross_attention import plain_attention
from hrv_pack.host.head_layout import cross_attention_modules
from hrv_pack.host.mini_loader import load_mini
from hrv_pack.host.recording import Recorder
from hrv_pack.hrv.vocabulary import Vocabulary, parse_vocabulary

VOCABULARIES = PACK_ROOT / "hrv_presets" / "vocabularies"
SIZES = {"hrv-mini": 128, "sd15": 512, "sdxl": 1024}


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
        self.context = torch.randn(taken, width, generator=torch.Generator().manual_seed(0))
        self._placed = self._all = None


def random_unet(name: str, device: torch.device) -> Any:
    """A MODEL of full size whose weights are small random numbers."""
    from hrv_pack.tests.host.full_size_unets import FULL_SIZE

    kind, unet = FULL_SIZE[{"sd15": "SD 1.x", "sdxl": "SDXL"}[name]]
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    config = kind({**unet, "dtype": dtype})
    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, device="cpu")
    generator = torch.Generator().manual_seed(0)
    for weight in model.diffusion_model.parameters():
        scale = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.02
        weight.data.copy_(torch.randn(weight.shape, generator=generator) * scale)
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))


class ExplicitMaps:
    """Recording as in the method's first implementation: keys projected at every call, maps kept for the step."""

    def __init__(self, model: Any, words: ConceptWords, seed: int):
        self.words, self.seed = words, seed
        self.modules = cross_attention_modules(model)
        self.maps: list[torch.Tensor] = []
        self.counted: torch.Tensor | int = 0
        self.model = model.clone()
        for number, key in enumerate(self.modules):
            self.model.set_model_attn2_replace(self._listener(number, key), *key)

    def _listener(self, number: int, key: Any) -> Callable[..., torch.Tensor]:
        def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra: dict[str, Any]) -> torch.Tensor:
            heads = extra["n_heads"]
            queries = q.chunk(len(extra["cond_or_uncond"]))[extra["cond_or_uncond"].index(0)]
            asked = self.words.ask(PAPER, self.seed, range(len(queries)), len(self.maps), number + 1, q.device)
            tokens, _, _ = asked.of_layer(number)
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


def sampling(model: Any, options: argparse.Namespace, positive: Any, negative: Any) -> Callable[..., None]:
    """A function that makes the images with a clone of the MODEL."""
    latent_format = model.get_model_object("latent_format")
    side = SIZES[options.model] // latent_format.spacial_downscale_ratio
    latent = torch.zeros(options.batch, latent_format.latent_channels, side, side)
    noise = comfy.sample.prepare_noise(latent, 0)

    def sample(clone: Any, step_done: Callable[[], None]) -> None:
        comfy.sample.sample(
            clone, noise, options.steps, 5.0, "euler", "normal", positive, negative, latent,
            callback=lambda *_: step_done(), disable_pbar=True, seed=0,
        )  # fmt: skip

    return sample


def peak_of(device: torch.device, run: Callable[[], None]) -> tuple[float, int]:
    """Seconds, and the highest memory in bytes, of a run."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    else:
        # Linux: forget the highest resident size so far.
        Path("/proc/self/clear_refs").write_text("5")
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter() - started, torch.cuda.max_memory_allocated()
    seconds = time.perf_counter() - started
    status = Path("/proc/self/status").read_text()
    (peak,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return seconds, int(peak) * 1024


def ways(options: argparse.Namespace, device: torch.device) -> dict[str, Callable[[], None]]:
    """Ways to make the same images, by name; plain sampling comes first."""
    if options.model == "hrv-mini":
        model, clip, _ = load_mini()
        words = ConceptWords(clip, parse_vocabulary((VOCABULARIES / "hrv-mini.txt").read_text(encoding="utf-8")))
        positive, negative = (
            clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("a red circle on the left, night", "")
        )
    else:
        model = random_unet(options.model, device)
        width = model.model.model_config.unet_config["context_dim"]
        vocabulary = parse_vocabulary((VOCABULARIES / "paper-34-concepts.txt").read_text(encoding="utf-8"))
        words = RandomWords(vocabulary, width)
        pooled = {"pooled_output": torch.zeros(1, 1280)} if options.model == "sdxl" else {}
        positive, negative = ([[torch.randn(1, 77, width), dict(pooled)]] for _ in range(2))
    sample = sampling(model, options, positive, negative)
    made: dict[str, Callable[[], None]] = {"plain sampling": lambda: sample(model.clone(), lambda: None)}
    for estimator in (PAPER, ALL_WORDS):
        recorder = Recorder(model, words, 0, estimator)

        def recorded(recorder: Recorder = recorder) -> None:
            recorder.begin(range(options.batch))
            sample(recorder.model, recorder.step_done)
            recorder.counts()

        made[f"recorded, {estimator}"] = recorded
    if not options.without_maps:
        explicit = ExplicitMaps(model, words, 0)
        made["recorded by explicit maps"] = lambda: sample(explicit.model, explicit.step_done)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=list(SIZES), default="hrv-mini")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--without-maps", action="store_true", help="leave the explicit maps out")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    device = comfy.model_management.get_torch_device()
    with torch.inference_mode():
        runs = ways(options, device)
        for run in runs.values():
            run()
        measured: dict[str, list[tuple[float, int]]] = {name: [] for name in runs}
        for number in range(options.rounds):
            for name, run in runs.items():
                measured[name].append(peak_of(device, run))
            print(f"round {number + 1} of {options.rounds}", flush=True)
    plain = measured["plain sampling"]
    what = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()}, {os.cpu_count()} CPUs"
    seconds = statistics.median(seconds for seconds, _ in plain)
    text = (
        f"{options.model}, {options.batch} image(s) at a time, {options.steps} steps, {what}, "
        f"torch {torch.__version__}, {options.rounds} rounds; plain sampling {seconds:.2f} s.\n\n"
        "| way | time over plain | memory over plain |\n|---|---|---|\n"
    )
    rows = []
    for name, results in measured.items():
        ratios = [seconds / base for (seconds, _), (base, _) in zip(results, plain, strict=True)]
        memory = [peak / base for (_, peak), (_, base) in zip(results, plain, strict=True)]
        rows.append({"way": name, "time": ratios, "memory": memory})
        text += (
            f"| {name} | {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) "
            f"| {statistics.median(memory):.3f} |\n"
        )
    record = {"made": {**vars(options), "out": "", "machine": what}, "rows": rows}
    (options.out / f"recording-{options.model}.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    (options.out / f"recording-{options.model}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
