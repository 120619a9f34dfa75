"""Measure HRV-mini or HRV-mini-T: ``python scripts/evaluate_mini.py --weights RUN_FOLDER/checkpoint.pt --out FOLDER``.

Draws captions of every kind, generates their pictures with the network alone (deterministic steps, classifier-free
guidance), and reads them with the ground-truth scorer, whose own accuracy on the renderer's pictures of the same
captions is reported beside it. Then measures in the host, on pairs of prompts, whether every concept is told by its own
word, and how alike the heads of concepts are. Needs a host on COMFYUI_PATH and its Python environment. Takes a training
checkpoint (its averaged weights) or exported weights; writes ``evaluation.json``, ``evaluation.md`` and
``pictures.png``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from host_process import enter_host
from pack_import import PACK_ROOT, import_pack
from PIL import Image

if TYPE_CHECKING:
    import torch
    from hrv_pack.mini.networks import MiniNetwork
    from hrv_pack.mini.own_words import WordReport

PAIR_STEPS, PAIR_CFG = 8, 4.0
"""How the pictures of pairs are made; they only have to be pictures of their prompts."""

SCENE_AS_COLOR = "[Scene as color]\na large <forest | ocean | desert> {circle | star}, {night | snow}"
"""Pairs of words of the concept Scene that mean a color."""

SHOWN = 10
"""Pictures of every kind on the sheet."""


def load_network(weights: Path) -> MiniNetwork:
    """The network of exported weights or of a checkpoint, of whichever kind."""
    import torch
    from hrv_pack.mini.batches import Vocabulary
    from hrv_pack.mini.kinds import kind_of
    from hrv_pack.mini.training import load_weights
    from safetensors import safe_open

    tokens = len(Vocabulary().token_ids)
    if weights.suffix == ".safetensors":
        with safe_open(weights, "pt") as file:
            network = kind_of(file.keys())(tokens)
        load_weights(network, weights)
    else:
        tensors = torch.load(weights, weights_only=True, map_location="cpu")["averaged"]
        network = kind_of(tensors)(tokens)
        network.load_state_dict(tensors)
    return network.eval()


def generator(network: MiniNetwork, options: argparse.Namespace) -> Callable[[list[str]], torch.Tensor]:
    """A function from captions to pictures [B, 3, 32, 32]."""
    import torch
    from hrv_pack.host.mini.model import LATENT_SCALE
    from hrv_pack.mini.batches import Vocabulary
    from hrv_pack.mini.latents import to_pictures

    vocabulary = Vocabulary()
    random = torch.Generator().manual_seed(options.seed)

    @torch.inference_mode()
    def draw(captions: list[str]) -> torch.Tensor:
        noise = torch.randn(len(captions), 12, 16, 16, generator=random)
        rows, empty = vocabulary.rows(captions), vocabulary.rows([""])
        return to_pictures(network.draw(rows, empty, noise, options.steps, options.cfg) / LATENT_SCALE)

    def draw_all(captions: list[str]) -> torch.Tensor:
        starts = range(0, len(captions), options.batch)
        return torch.cat([draw(captions[start : start + options.batch]) for start in starts])

    return draw_all


def sheet(kinds: list[str], captions: list[list[str]], pictures: list[torch.Tensor]) -> Image.Image:
    """One row for every kind: its first pictures under their captions."""
    from hrv_pack.hrv.drawing.grid import picture_grid
    from hrv_pack.hrv.drawing.paper import PAPER

    rows = []
    for kind, texts, drawn in zip(kinds, captions, pictures, strict=True):
        pixels = [(picture * 255).round().byte().permute(1, 2, 0).numpy() for picture in drawn]
        rows.append(picture_grid([pixels], [kind], texts[: len(pixels)]))
    whole = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), PAPER)
    top = 0
    for row in rows:
        whole.paste(row, (whole.width - row.width, top))
        top += row.height
    return whole


def words_of(network: MiniNetwork, options: argparse.Namespace) -> WordReport:
    """Pairs of prompts measured in the host."""
    import torch
    from hrv_pack.host.building.causal import CausalSettings
    from hrv_pack.host.mini.loader import load_mini
    from hrv_pack.hrv.building.pairs import Example
    from hrv_pack.hrv.scoring.experiments import parse_experiment
    from hrv_pack.mini.own_words import measure_words
    from hrv_pack.mini.training import export

    text = (PACK_ROOT / "hrv_presets" / "experiments" / "hrv-mini.txt").read_text(encoding="utf-8")
    experiment = parse_experiment(f"{text}\n{SCENE_AS_COLOR}\n")
    examples = {
        name: [Example(case.prompt, case.target) for case in experiment.of(name)] for name in experiment.concepts
    }
    settings = CausalSettings(
        options.pairs, options.seed, PAIR_STEPS, PAIR_CFG, "euler", "normal", 128, 128, batch_size=8
    )
    with TemporaryDirectory() as folder, torch.inference_mode():
        weights = Path(folder) / "model.safetensors"
        export(network, weights)
        model, clip, _ = load_mini(weights)
        return measure_words(model, clip, examples, settings, lambda name: print(f"pairs of {name}", flush=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True, help="checkpoint.pt or model.safetensors")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--samples", type=int, default=128, help="captions of every kind, 0 for no pictures")
    parser.add_argument("--pairs", type=int, default=16, help="pairs of prompts for every concept, 0 for none")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cfg", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1, help="of the captions and of the starting noise")
    parser.add_argument("--batch", type=int, default=64, help="pictures generated at a time")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    options = parser.parse_args()
    if not options.weights.is_file():
        raise SystemExit(f"There are no weights at {options.weights}.")
    enter_host()
    import_pack()
    import torch
    from hrv_pack.mini.evaluation import ask, evaluate, evaluate_scorer

    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    network = load_network(options.weights)
    made = {name: value for name, value in vars(options).items() if name not in ("out", "threads")}
    record: dict[str, object] = {"made": made | {"weights": options.weights.name}}
    parts = []
    if options.samples:
        pictures_for = generator(network, options)
        asked = ask(options.samples, options.seed)
        shown: list[torch.Tensor] = []

        def draw(captions: list[str]) -> torch.Tensor:
            pictures = pictures_for(captions)
            shown.append(pictures[:SHOWN])
            print(f"{len(captions)} pictures of “{captions[0]}” and others like it", flush=True)
            return pictures

        reports = {"model": evaluate(draw, asked), "scorer on the renderer's pictures": evaluate_scorer(asked)}
        for name, report in reports.items():
            parts.append(f"## {name}\n\n{report.to_markdown()}")
            record[name] = report.to_json()
        sheet([one.kind for one in asked], [one.captions for one in asked], shown).save(options.out / "pictures.png")
    if options.pairs:
        words = words_of(network, options)
        parts.append(f"## words and heads\n\n{words.to_markdown()}")
        record["words and heads"] = words.to_json()
    text = "\n".join(parts)
    (options.out / "evaluation.md").write_text(text, encoding="utf-8")
    (options.out / "evaluation.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
