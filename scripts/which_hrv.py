"""Find out which kind of HRV holds on a checkpoint: causal, instant or published.

    python scripts/which_hrv.py --checkpoint sd15.safetensors --scorer clip/clip-vit-large-patch14 --out results --gpu

Builds a causal and an instant HRV of the checkpoint, takes the published one if its heads fit, and weakens the heads of
each in order (docs/ordered-weakening.md) on the same prompts and seeds. Writes ``report.md``, ``report.json`` and the
HRVs into the folder. ``--checkpoint hrv-mini`` tries it on the model of this pack, with its own prompts and scorer.

Runs in the Python environment of the ComfyUI at COMFYUI_PATH, or of the one whose custom_nodes the pack lies in. If
interrupted, the same command resumes. Exit status: 0 done, 1 refused with a sentence, 2 wrong options, 130 stopped by
Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hrv_commands import (
    MINI,
    MINI_TRANSFORMER,
    VOCABULARIES,
    add_places,
    at_least,
    executor_of,
    load_parts,
    progress_bar,
    read,
    run_in_host,
)
from launcher.errors import LauncherError
from pack_import import PACK_ROOT
from peak_memory import Cost, measured
from which_hrv_report import Comparison, write_report

EXPERIMENTS = PACK_ROOT / "hrv_presets" / "experiments"
CAUSAL, INSTANT, PUBLISHED = "causal", "instant", "published"
NOT_SETTINGS = ("checkpoint", "check", "hrv", "download", "out", "states", "gpu", "run_on")
"""Options that the report leaves out: it says these things in other places, or they don't matter."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", required=True, help=f"file, name in ComfyUI's models/checkpoints, {MINI} or {MINI_TRANSFORMER}"
    )
    parser.add_argument("--scorer", help="a CLIP in a folder below ComfyUI's models folder; nothing is downloaded")
    parser.add_argument("--experiment", type=Path, help="prompts with words in angle brackets (the paper's concepts)")
    parser.add_argument("--concepts", type=Path, help="concepts of the instant HRV (the paper's 34)")
    parser.add_argument("--check", default="", help='concepts to check, such as "Color, Animals" (three of them)')
    parser.add_argument("--hrv", action="append", default=[], metavar="NAME=FILE", help="another HRV to check")
    parser.add_argument("--download", action="store_true", help="fetch the published HRV if it is not there (0.2 MB)")
    parser.add_argument("--pairs", type=at_least(1), default=16, help="pairs of prompts of the causal HRV, per concept")
    parser.add_argument("--prompts", type=at_least(1), default=8, help="prompts per concept")
    parser.add_argument("--seeds", type=at_least(1), default=2, help="images per prompt")
    parser.add_argument("--random-orders", type=at_least(1), default=3, help="random orders: what chance gives")
    parser.add_argument("--head-counts", default="9%, 27%", help="how many heads are weakened")
    parser.add_argument("--factor", type=float, default=0.0, help="of weakened heads: 0 or the paper's -2")
    parser.add_argument("--steps", type=at_least(1), default=20)
    parser.add_argument("--cfg", type=float, default=7.5)
    parser.add_argument("--sampler", default="euler", dest="sampler_name")
    parser.add_argument("--scheduler", default="normal")
    parser.add_argument("--width", type=at_least(16), help="pixels (512; HRV-mini 128)")
    parser.add_argument("--height", type=at_least(16), help="pixels (512; HRV-mini 128)")
    parser.add_argument("--batch-size", type=at_least(1), default=1, help="pairs or images at a time")
    parser.add_argument("--out", type=Path, required=True, help="folder for the report and the HRVs")
    parser.add_argument("--states", type=Path, help="folder of unfinished work (the host's user folder)")
    add_places(parser)
    options = parser.parse_args()
    mini = options.checkpoint in (MINI, MINI_TRANSFORMER)
    if not mini and options.scorer is None:
        parser.error("--scorer is needed: the folder of a CLIP, such as clip/clip-vit-large-patch14")
    options.width, options.height = (side or (128 if mini else 512) for side in (options.width, options.height))
    options.experiment = options.experiment or EXPERIMENTS / ("hrv-mini.txt" if mini else "paper-nine-concepts.txt")
    options.concepts = options.concepts or VOCABULARIES / ("hrv-mini.txt" if mini else "paper-34-concepts.txt")
    return options


class Check:
    """One run of the command: what it loads, makes and finds."""

    def __init__(self, options: argparse.Namespace, executor: Any):
        from hrv_pack.hrv.relevance.vocabulary import find_concept, parse_vocabulary
        from hrv_pack.hrv.scoring.experiments import parse_experiment, spread

        self.options, self.executor = options, executor
        self.experiment = parse_experiment(read(options.experiment))
        self.vocabulary = parse_vocabulary(read(options.concepts))
        known = self.experiment.concepts
        asked = [name.strip() for name in options.check.split(",") if name.strip()]
        self.names = [known[find_concept(name, known, "experiment")] for name in asked] or spread(known, 3)
        self.cases = {name: self.experiment.of(name, options.prompts) for name in self.names}
        self.model, self.clip, self.vae = load_parts(options.checkpoint)
        self.scorer = self.load_scorer()
        self.how = {name: getattr(options, name) for name in ("steps", "cfg", "sampler_name", "scheduler")}
        self.how |= {name: getattr(options, name) for name in ("width", "height", "batch_size")}

    def load_scorer(self) -> Any:
        from hrv_pack.host.scoring.transformers import TransformersScorer
        from hrv_pack.mini.truth_scorer import MiniScorer

        return MiniScorer() if self.options.scorer is None else TransformersScorer(self.options.scorer)

    def causal(self, report: Any) -> Any:
        from hrv_pack.host.building.causal import CausalSettings, build_causal_hrv
        from hrv_pack.hrv.building.pairs import Example

        examples = {
            name: [Example(case.prompt, case.target) for case in self.experiment.of(name)] for name in self.names
        }
        settings = CausalSettings(pairs=self.options.pairs, seed=0, **self.how)
        built = build_causal_hrv(
            self.model,
            self.clip,
            examples,
            settings,
            states=self.options.states,
            report=report,
            executor=self.executor,
        )
        return built.hrv

    def instant(self, report: Any) -> Any:
        from hrv_pack.host.building.value_contrast import background_of, instant_hrv
        from hrv_pack.hrv.prompts.frames import DEFAULT_FRAMES

        return instant_hrv(self.model, self.clip, self.vocabulary, DEFAULT_FRAMES, background_of(self.vocabulary))

    def ready_made(self) -> dict[str, Any]:
        """The published HRV, if there is one for these heads, and those that were asked for."""
        from hrv_pack.host.files.catalog import obtain, read_catalog
        from hrv_pack.host.files.folders import models_folder
        from hrv_pack.host.models.layouts import head_layout
        from hrv_pack.hrv.heads.families import FAMILIES
        from hrv_pack.hrv.relevance.files import load_hrv

        signature = head_layout(self.model).signature
        fitting = {family.name for family in FAMILIES if family.layout().signature == signature}
        found = {}
        if self.options.checkpoint == MINI:
            found[PUBLISHED] = load_hrv(PACK_ROOT / "hrv_presets" / "hrvs" / "hrv-mini.safetensors")
        else:
            for entry in read_catalog().values():
                if entry.family in fitting:
                    found[PUBLISHED] = obtain(entry, models_folder() / "published", download=self.options.download)
        for text in self.options.hrv:
            name, _, file = text.partition("=")
            if not file or name in (CAUSAL, INSTANT, PUBLISHED):
                raise LauncherError(f"--hrv takes NAME=FILE with a name of its own, not {text!r}.")
            found[name] = load_hrv(Path(file))
        return found

    def weakened(self, hrv: Any, chance: dict[str, Any], report: Any) -> dict[str, Any]:
        """Findings by concept. Random orders are made for the first HRV that has a concept; ``chance`` keeps them."""
        from hrv_pack.host.weakening.grid import WeakeningSettings
        from hrv_pack.host.weakening.making import Examined
        from hrv_pack.host.weakening.run import analyse_weakening
        from hrv_pack.hrv.weakening.plan import Plan, parse_head_counts
        from hrv_pack.hrv.weakening.statistics import finding

        has = [name for name in self.names if name.casefold() in {known.casefold() for known in hrv.concepts}]
        counts = parse_head_counts(self.options.head_counts, hrv.layout.head_count)
        settings = WeakeningSettings(seeds=tuple(range(self.options.seeds)), **self.how)
        found = {}
        for orders, names in (
            (self.options.random_orders, [name for name in has if name not in chance]),
            (0, [name for name in has if name in chance]),
        ):
            if not names:
                continue
            plan = Plan(counts, orders, (self.options.factor,))
            examined = Examined(self.model, self.clip, self.vae, hrv, self.scorer)
            cases = {name: self.cases[name] for name in names}
            analysis = analyse_weakening(
                examined, cases, plan, settings, states=self.options.states, report=report, executor=self.executor
            )
            for name, result in zip(names, analysis.results, strict=True):
                found[name] = finding(result, chance=chance.get(name, ()))
                chance.setdefault(name, found[name].random_areas)
        return found


def plain(value: Any) -> Any:
    """A setting without the folders of this machine."""
    return value.name if isinstance(value, Path) else value


def compare(options: argparse.Namespace) -> None:
    import comfy.model_management
    import torch
    from hrv_pack.hrv.relevance.files import save_hrv

    options.out.mkdir(parents=True, exist_ok=True)
    device = comfy.model_management.get_torch_device()
    scorer = ("HRV_ScorerTransformers", {"folder": options.scorer}) if options.scorer else ("HRV_ScorerMini", {})
    with torch.inference_mode(), executor_of(options, scorer) as executor:
        check = Check(options, executor)
        hrvs, costs = check.ready_made(), {}
        findings: dict[str, dict[str, Any]] = {}

        def step(title: str, work: Callable[[Any], Any]) -> tuple[Any, Cost]:
            print(title, flush=True)
            with progress_bar("step") as bar:
                return measured(device, partial(work, lambda progress: bar.set_postfix_str(str(progress))))

        print(f"{', '.join(check.names)}: {sum(map(len, check.cases.values()))} prompts, {options.seeds} seeds.")
        for name, make in ((CAUSAL, check.causal), (INSTANT, check.instant)):
            hrvs[name], costs[name] = step(f"The {name} HRV", make)
            save_hrv(hrvs[name], options.out / f"{name}.safetensors", overwrite=True)
        chance: dict[str, Any] = {}
        for name in (CAUSAL, INSTANT, *(other for other in hrvs if other not in (CAUSAL, INSTANT))):
            findings[name], costs[f"check of {name}"] = step(
                f"Weakening by the {name} HRV", partial(check.weakened, hrvs[name], chance)
            )
    settings = {name: plain(value) for name, value in vars(options).items() if name not in NOT_SETTINGS}
    settings["scorer"] = check.scorer.name
    found = Comparison(Path(options.checkpoint).name, check.model, device, settings, hrvs, costs, findings)
    print(write_report(found, options.out))


def main() -> None:
    run_in_host(parse_arguments(), compare)


if __name__ == "__main__":
    main()
