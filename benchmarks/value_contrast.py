"""How much of the causal effect of HRV-mini's concepts lies in the heads that value contrast puts first, and variants.

    python benchmarks/value_contrast.py [--pairs 12] [--levels 940 760 560 320] [--seed 0] [--out FOLDER]

The effect of each head is integrated attribution (host/building/attribution.py) on pairs of captions that differ in one
word of a concept, at noised pictures of the first one. Words are split in two halves, and pairs hold words of one half
only: variants are compared on the first half, and what counts is the second one. "Top 8" is the share of the effect
that the first 8 of 128 heads hold, mean over the concepts. Variants change the sentences that hold a word, what is
compared of a head (what it writes, its values, its keys), whether and how a head's numbers are shared out among the
concepts, and how the words of a concept are summed up. Effects are kept as ``effects-*.npy``, so that a run goes on
where it was. Needs a host on COMFYUI_PATH. Writes ``value_contrast.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from host_process import enter_host
from pack_import import PACK_ROOT, import_pack

enter_host()
import_pack()

import numpy as np
import numpy.typing as npt
import torch
from hrv_pack.host.building.attribution import Attribution, Pairs
from hrv_pack.host.building.value_contrast import ALWAYS, background_of, instant_hrv
from hrv_pack.host.mini.loader import load_mini
from hrv_pack.host.models.architectures import architecture_of
from hrv_pack.host.models.capabilities import Capability
from hrv_pack.host.prompts.carried import Conditioning
from hrv_pack.host.prompts.encoding import token_map, word_tokens
from hrv_pack.hrv.prompts.frames import ALONE, DEFAULT_FRAMES
from hrv_pack.hrv.relevance.files import load_hrv
from hrv_pack.hrv.relevance.vocabulary import Vocabulary, parse_vocabulary
from hrv_pack.mini.captions import draw_samples
from hrv_pack.mini.latents import to_latents
from hrv_pack.mini.world import draw

PRESETS = PACK_ROOT / "hrv_presets"
HALVES = ("words to choose by", "other words")
TOPS = (8, 24)
_TOGETHER = 6
# Captions drawn at a time; most name several concepts.
_DRAWN = 2000

Numbers = npt.NDArray[np.float64]


def halves_of(clip: Any, words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words in two halves of pairs with equally many tokens; words that are left over are in neither.

    Where there is one such pair only, it is both halves, which then differ in captions alone.
    """
    by_tokens: dict[int, list[str]] = {}
    for word in words:
        # The center has another preposition than the other positions.
        if word != "center":
            by_tokens.setdefault(len(token_map(clip, word).content_positions), []).append(word)
    halves: tuple[list[str], list[str]] = ([], [])
    for alike in by_tokens.values():
        for first in range(0, len(alike) - 1, 2):
            min(halves, key=len).extend(alike[first : first + 2])
    return halves if halves[1] else (halves[0], halves[0])


def pairs_of(
    clip: Any, concept: str, words: Sequence[str], count: int, rng: np.random.Generator
) -> tuple[list[tuple[str, str]], torch.Tensor]:
    """Captions with and without a word exchanged for another of ``words``, and latents of the first ones."""
    captions: list[tuple[str, str]] = []
    latents: list[torch.Tensor] = []
    while len(captions) < count:
        samples, pictures = draw_samples(_DRAWN, rng)
        for number, sample in enumerate(samples):
            word = sample.named.get(concept, "")
            if sample.kind not in ("single", "plant") or word not in words:
                continue
            other = str(rng.choice([one for one in words if one != word]))
            parts = sample.caption.split(" ")
            spots = [spot for spot, part in enumerate(parts) if part.rstrip(",") == word]
            if len(spots) != 1:
                continue
            exchanged = [part.replace(word, other) if spot == spots[0] else part for spot, part in enumerate(parts)]
            both = sample.caption, " ".join(exchanged)
            if len({len(token_map(clip, caption).content_positions) for caption in both}) == 1:
                captions.append(both)
                latents.append(to_latents(draw(pictures[torch.tensor([number])])))
            if len(captions) == count:
                break
    return captions, torch.cat(latents)


def encoded(clip: Any, captions: Sequence[str]) -> Conditioning:
    rows = [clip.encode_from_tokens_scheduled(clip.tokenize(caption))[0] for caption in captions]
    return [[torch.cat([tensor for tensor, _ in rows]), dict(rows[0][1])]]


def effects_of(
    model: Any, clip: Any, captions: Sequence[tuple[str, str]], latents: torch.Tensor, levels: Sequence[int]
) -> Numbers:
    """The effect of every head [H], mean over the noise levels; nearly 1 in sum."""
    attribution, sigmas = Attribution(model), model.get_model_object("model_sampling").sigmas
    found: list[Numbers] = []
    for level in levels:
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(level))
        heads, squares = np.zeros(attribution.layout.head_count), 0.0
        for first in range(0, len(captions), _TOGETHER):
            part = slice(first, first + _TOGETHER)
            a, b = (encoded(clip, [both[side] for both in captions[part]]) for side in (0, 1))
            names = [" / ".join(both) for both in captions[part]]
            measured = attribution.effects(Pairs(names, a, b, latents[part], noise[part]), float(sigmas[level]))
            heads, squares = heads + measured.heads.sum(axis=0), squares + measured.squares.sum()
        found.append(heads / squares)
    return np.stack(found).mean(axis=0)


def measured_effects(model: Any, clip: Any, vocabulary: Vocabulary, options: argparse.Namespace) -> Numbers:
    """Effects [halves, N, H]; what is measured is kept row by row."""
    rows = []
    for half in (0, 1):
        for number, (concept, words) in enumerate(vocabulary):
            kept = options.out / f"effects-{half}-{number}.npy"
            if kept.exists():
                rows.append(np.load(kept))
                continue
            rng = np.random.default_rng((options.seed, half, number))
            captions, latents = pairs_of(clip, concept, halves_of(clip, words)[half], options.pairs, rng)
            rows.append(effects_of(model, clip, captions, latents, options.levels))
            np.save(kept, rows[-1])
            print(f"{concept}, {HALVES[half]}: {captions[0]}, sum {rows[-1].sum():.2f}", flush=True)
    return np.stack(rows).reshape(2, len(vocabulary), -1)


def held(effects: Numbers, scores: Numbers, top: int) -> Numbers:
    """The share of each concept's effects [N, H] that the heads with the highest scores [N, H] hold: [N]."""
    positive = np.maximum(effects, 0.0)
    first = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return np.take_along_axis(positive, first, axis=1).sum(axis=1) / positive.sum(axis=1)


class Differences(NamedTuple):
    """Of every concept [N] and head [H], how the words of the concept differ from their mean.

    ``written``  what heads write, root mean square over the words; ``largest`` the word that differs most.
    ``values``   values before the output projection; ``keys`` keys; both root mean square.
    ``size``     what heads write of these words at all.
    """

    written: Numbers
    largest: Numbers
    values: Numbers
    keys: Numbers
    size: Numbers


def differences_of(model: Any, clip: Any, vocabulary: Vocabulary, frames: Sequence[str]) -> Differences:
    """By the plain formulas, head by head."""
    architecture = architecture_of(model, Capability.VALUES)
    assert architecture.projections is not None
    found: list[list[Numbers]] = []
    for _, words in vocabulary:
        means = [torch.stack([one.tokens.mean(dim=0) for one in word_tokens(clip, words, frame)]) for frame in frames]
        context, row = torch.stack(means).mean(dim=0), []
        for layer in architecture.layout.layers:
            own = architecture.projections[layer.key]
            keys, values = (one(context).unflatten(-1, (layer.heads, -1)) for one in (own.to_k, own.to_v))
            # Each head's values with those of the others at zero, and nothing at all for what the layer adds anyway.
            apart = torch.block_diag(*torch.ones(layer.heads, 1, own.dim_head)) * values.flatten(1)[:, None]
            written = architecture.written(layer, apart) - architecture.written(layer, torch.zeros_like(apart[:1, :1]))
            far = [(one - one.mean(dim=0)).norm(dim=-1) for one in (written, values, keys)]
            squares = [one.square().mean(dim=0).sqrt() for one in (*far, written.norm(dim=-1))]
            row.append(torch.stack([squares[0], far[0].amax(dim=0), *squares[1:]]))
        found.append(list(torch.cat(row, dim=-1).double().numpy()))
    return Differences(*(np.stack(one) for one in zip(*found, strict=True)))


def shared_out(scores: Numbers) -> Numbers:
    """Every head's numbers over their sum."""
    return scores / scores.sum(axis=0)


def variants_of(model: Any, clip: Any, vocabulary: Vocabulary) -> dict[str, Numbers]:
    """Scores [N, H] by name."""
    by_frames = {
        "three sentences": DEFAULT_FRAMES, "the word alone": (ALONE,), "one sentence": (DEFAULT_FRAMES[-1],),
        "captions": ("a {word}, day", "a large red {word}"),
    }  # fmt: skip
    variants: dict[str, Numbers] = {}
    for name, frames in by_frames.items():
        one = differences_of(model, clip, vocabulary, frames)
        share = shared_out(one.written)
        variants |= {
            f"{name}, {how}": scores
            for how, scores in {
                "shares": share,
                "shares of squares": shared_out(np.square(one.written)),
                "shares of roots": shared_out(np.sqrt(one.written)),
                "not shared out": one.written,
                "share times what is written": share * one.written,
                "share times its root": share * np.sqrt(one.written),
                "the word that differs most, shares": shared_out(one.largest),
                "values alone, shares": shared_out(one.values),
                "keys alone, shares": shared_out(one.keys),
                "share times the keys' share": share * shared_out(one.keys),
                "relative to what the words write, shares": shared_out(one.written / one.size),
            }.items()
        }
    published = load_hrv(PRESETS / "hrvs" / "hrv-mini.safetensors")
    background = background_of(vocabulary, ALWAYS)
    singles = [instant_hrv(model, clip, Vocabulary((entry,)), background=background).values[0] for entry in vocabulary]
    return variants | {
        "published estimator": np.stack([published.row(name) for name in vocabulary.names]),
        "value contrast": instant_hrv(model, clip, vocabulary).values,
        "each concept alone against the paper's 34": np.stack(singles),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12, help="of each concept and half of its words")
    parser.add_argument("--levels", type=int, nargs="+", default=[940, 760, 560, 320], help="of 1000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    vocabulary = parse_vocabulary((PRESETS / "vocabularies" / "hrv-mini.txt").read_text(encoding="utf-8"))
    with torch.inference_mode():
        model, clip, _ = load_mini()
        effects = measured_effects(model, clip, vocabulary, options)
        variants = {f"effects of {HALVES[half]}": effects[half] for half in (0, 1)}
        variants |= variants_of(model, clip, vocabulary)
    made = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__}",
        "pairs": options.pairs,
        "levels": options.levels,
        "seed": options.seed,
    }
    text = f"{made['machine']}; {options.pairs} pairs of each concept and half, levels {options.levels}.\n\n"
    text += "| heads in the order of | " + " | ".join(f"top {top}, {half}" for half in HALVES for top in TOPS)
    text += " | " + " | ".join(f"{name}, top 8, {HALVES[1]}" for name in vocabulary.names) + " |\n"
    text += "|---" * (1 + 2 * len(TOPS) + len(vocabulary)) + "|\n"
    rows = []
    for name, scores in variants.items():
        shares = {half: {top: held(effects[half], scores, top) for top in TOPS} for half in (0, 1)}
        rows.append({"variant": name, "held": [[shares[half][top].tolist() for top in TOPS] for half in (0, 1)]})
        cells = [shares[half][top].mean() for half in (0, 1) for top in TOPS] + list(shares[1][8])
        text += f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |\n"
    (options.out / "value_contrast.json").write_text(json.dumps({"made": made, "rows": rows}, indent=2) + "\n", "utf-8")
    (options.out / "value_contrast.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
